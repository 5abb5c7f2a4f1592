"""Trains a tokenizer on documents and says how well it packs text that it has not seen.

python -m experiments.train_tokenizer --documents='corpus/*.jsonl.gz' --workdir=runs/tokenizer
"""

import dataclasses
import pathlib
import time
from typing import Iterator

from nanollm_jax import flags
from nanollm_jax.data import documents
from nanollm_jax.text import bpe

_EXAMPLES = ('The capital of France is Paris.', '12345 + 67890 = 80235', 'ubiquitous strawberry',
             'naïve café 日本語 👍🏽', 'for i in range(10):\n    print(i)')


@dataclasses.dataclass(frozen=True)
class Config:
  """A tokenizer and what it learns from.

  workdir: where tokenizer.json goes
  documents: files or globs: .txt, .jsonl, .jsonl.gz, .jsonl.zst, .parquet
  text_field: the field or column that holds the text
  held_out: part of the documents kept aside to measure bytes per token
  """
  workdir: str = 'runs/tokenizer'
  documents: tuple[str, ...] = ()
  text_field: str = 'text'
  held_out: float = 0.05
  tokenizer: bpe.Config = bpe.Config()


def main(config: Config) -> None:
  flags.spare_model(config.workdir)
  began, held, size = time.time(), [], 0

  def texts() -> Iterator[str]:
    nonlocal size
    for split, text in documents.read(config.documents, config.held_out, config.text_field):
      if split == 'train':
        size += len(text.encode())
        yield text
      elif len(held) < 1000:
        held.append(text)

  tokenizer = bpe.train(texts(), config.tokenizer)
  seconds = time.time() - began
  flags.save(config, config.workdir)
  path = pathlib.Path(config.workdir) / 'tokenizer.json'
  tokenizer.save(path)
  print(f'trained {tokenizer.size} tokens, {len(tokenizer.special)} of them special, on '
        f'{size / 1e6:.1f} MB in {seconds:.1f} s ({size / 1e6 / seconds:.1f} MB/s)')
  if held:
    tokens = sum(map(len, tokenizer.encode_batch(held)))
    unseen = sum(len(text.encode()) for text in held)
    print(f'{unseen / tokens:.3f} bytes per token on {unseen / 1e6:.2f} MB held out')
  for text in _EXAMPLES:
    pieces = (tokenizer.decode([token]) for token in tokenizer.encode(text))
    print('  ' + '|'.join(pieces).replace('\n', '\\n'))
  print(f'wrote {path}')


if __name__ == '__main__':
  flags.run(main, Config)
