"""The lecture: a model sees tokens, not letters; vocabularies trade length against what is seen.

Vocabularies of growing size learn from the same documents; published ones stand beside them where
they are installed. Each is asked how long it makes unseen text, how many words it hides in one
token, and in how many ways it cuts numbers of one length.
python -m experiments.lecture.tokenizers
"""

import dataclasses
import itertools
import random

from experiments.lecture import claim
from nanollm_jax import InputError, flags
from nanollm_jax.data import documents
from nanollm_jax.tasks.letters import WORDS
from nanollm_jax.text import bpe, known
from nanollm_jax.text.tokenizer import Tokenizer

SHOWN = ('ubiquitous strawberry', '12345 + 67890 = 80235')


@dataclasses.dataclass(frozen=True)
class Config:
  """Vocabularies side by side.

  workdir: where the picture goes.
  documents: what is learned from, a part of it held out.
  vocabularies: sizes to train, each digit a token; the largest with groups of three digits too.
  published: others to show; one that is not installed is left out.
  limit: documents to read.
  """
  workdir: str = 'runs/tokenizers'
  documents: tuple[str, ...] = ('runs/world/train.jsonl',)
  vocabularies: tuple[str, ...] = ('320', '1024', '4096')
  published: tuple[str, ...] = ('gpt2', 'cl100k_base', 'o200k_base')
  limit: int = 20_000


def main(config: Config) -> None:
  rows = list(itertools.islice(documents.read(config.documents, 0.05), config.limit))
  learned = [text for split, text in rows if split == 'train']
  unseen = [text for split, text in rows if split == 'validation']
  sizes = sorted(map(int, config.vocabularies))
  ours = {str(size): bpe.train(learned, bpe.Config(size)) for size in sizes}
  grouped = bpe.train(learned, bpe.Config(sizes[-1], 'llama-bpe'))
  table = [looked_at(name, one, unseen) for name, one in (
      *ours.items(), (f'{sizes[-1]}, digits in threes', grouped), *installed(config.published))]
  bytes_, hidden = ([row[name] for row in table[:len(sizes)]]
                    for name in ('bytes per token', 'hidden words'))
  single, threes = table[len(sizes) - 1]['cuts of numbers'], table[len(sizes)]['cuts of numbers']
  claim.conclude(
      config.workdir, 'tokenizers',
      claim='a model sees tokens: larger ones are fewer and hide letters',
      rows=table,
      number=f'{bytes_[0]:.2f} to {bytes_[-1]:.2f} bytes per token, {hidden[0]:.0%} to '
      f'{hidden[-1]:.0%} of words are one token; numbers of six digits are cut in {single} way '
      f'digit by digit, in {threes} ways in groups',
      expected='more bytes per token and more hidden words with every larger vocabulary; one way '
      'of cutting numbers digit by digit',
      holds=bytes_ == sorted(set(bytes_)) and hidden == sorted(hidden) and hidden[-1] > hidden[0]
      and single == 1,
      otherwise='more documents for the larger vocabularies',
      picture=dict(title='What a token holds', xlabel='vocabulary', ylabel='bytes per token',
                   series={'held-out text': list(zip(sizes, bytes_))}))


def looked_at(name: str, tokenizer: Tokenizer, texts: list[str]) -> dict:
  """One vocabulary's row: length of texts, words of one token, ways of cutting numbers."""
  for text in SHOWN:
    pieces = (tokenizer.decode([token]) for token in tokenizer.encode(text))
    print(f'  {name:<24}{"|".join(pieces)}')
  tokens = sum(map(len, tokenizer.encode_batch(texts)))
  rng = random.Random(0)
  cuts = {tuple(len(tokenizer.token_bytes(token)) for token in tokenizer.encode(str(number)))
          for number in (rng.randrange(100_000, 1_000_000) for _ in range(500))}
  hidden = [len(tokenizer.encode(f' {word}')) == 1 for word in WORDS]
  return {'vocabulary': name, 'ids': tokenizer.size,
          'bytes per token': sum(len(text.encode()) for text in texts) / tokens,
          'hidden words': sum(hidden) / len(hidden), 'cuts of numbers': len(cuts)}


def installed(names: tuple[str, ...]) -> list[tuple[str, Tokenizer]]:
  """The published vocabularies that are here."""
  found = []
  for name in names:
    try:
      found.append((name, known.from_name_or_file(name)))
    except InputError as error:
      print(f'  {name} is left out: {error}')
  return found


if __name__ == '__main__':
  flags.run(main, Config)
