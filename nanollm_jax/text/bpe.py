"""Training a byte-level BPE vocabulary."""

import dataclasses
import logging
from typing import Iterable, Iterator, Literal

import rustbpe

from nanollm_jax import InputError
from nanollm_jax.text import tokenizer as tokenizer_lib

logging.getLogger('rustbpe').setLevel(logging.WARNING)  # it logs every hundredth of its merges

# The published split regexes of Qwen 2 and of Llama 3; they differ in \p{N} alone.
PATTERNS = {
    name: (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + digits +
           r'| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+')
    for name, digits in {'qwen2': r'\p{N}', 'llama-bpe': r'\p{N}{1,3}'}.items()}


@dataclasses.dataclass(frozen=True)
class Config:
  """How to train a tokenizer.

  A GGUF file holds no regex, only the name of one on llama.cpp's own list, so a pattern that
  llama.cpp does not know would make an exported model read other tokens than it was trained on.

  vocabulary: ids in all, bytes and specials included; rounded up to a multiple of 64
  pattern: how text is split before merging; 'qwen2' takes digits one by one, 'llama-bpe' in
    groups of up to three from the left
  """
  vocabulary: int = 2048
  pattern: Literal['qwen2', 'llama-bpe'] = 'qwen2'

  def __post_init__(self):
    least = 256 + len(tokenizer_lib.SPECIALS)
    if not least <= self.vocabulary < 2**31:
      raise InputError(f'--tokenizer.vocabulary={self.vocabulary}: give at least {least}, for 256 '
                       'bytes and the special tokens, and less than 2^31.')


def train(texts: Iterable[str], config: Config) -> tokenizer_lib.Tokenizer:
  """Learns merges from texts, most frequent pair first; the same texts give the same ids.

  Raises InputError where the texts run out of pairs before the vocabulary is full.
  """
  merged = config.vocabulary - len(tokenizer_lib.SPECIALS)
  trainer = rustbpe.Tokenizer()
  trainer.train_from_iterator(_parts(texts), merged, pattern=PATTERNS[config.pattern])
  ranks = {bytes(token): rank for token, rank in trainer.get_mergeable_ranks()}
  if len(ranks) < merged:
    raise InputError(f'--documents hold enough text for {len(ranks)} tokens only: give more text '
                     'or a --tokenizer.vocabulary of at most '
                     f'{len(ranks) + len(tokenizer_lib.SPECIALS)}.')
  return tokenizer_lib.Tokenizer(config.pattern, PATTERNS[config.pattern], ranks,
                                 tokenizer_lib.special_ids(merged))


def _parts(texts: Iterable[str]) -> Iterator[str]:
  """What the trainer can take: lone surrogates replaced, very long texts cut, as in encode."""
  for text in texts:
    sound = text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')
    yield from tokenizer_lib.parts(sound)
