"""Near-duplicates: how alike two pages are, and a page's text with some of it changed."""

import itertools
import random
import re
import unicodedata

from nanollm_jax.world.html import Block
from nanollm_jax.world.prose import pick

# How many of each; words_04 has 4% of its words changed.
COPIES = {'exact_copy': 5, 'mirror': 3, 'one_word': 3, 'paragraph': 3, 'words_01': 3,
          'words_02': 3, 'words_04': 2, 'words_08': 2}


def text_of(title: str, blocks: list[Block]) -> str:
  """What a page says, one block a line."""
  return '\n'.join([title, *(text for _, text in blocks)])


def jaccard(one: str, other: str) -> float:
  """The Jaccard similarity of the word 5-grams of two texts, read as MinHash reads them."""
  a, b = _shingles(one), _shingles(other)
  return len(a & b) / max(1, len(a | b))


def changed(rng: random.Random, kind: str, blocks: list[Block], other: list[Block]) -> list[Block]:
  """The blocks of a page as the copy of this kind has them; a new paragraph is the other page's."""
  if kind == 'one_word':
    return _reworded(rng, blocks, 0.0)
  if kind.startswith('words'):
    return _reworded(rng, blocks, int(kind[-2:]) / 100)
  if kind == 'paragraph':
    at = max(range(len(blocks)), key=lambda n: len(blocks[n][1]))
    return [*blocks[:at], max(other, key=lambda block: len(block[1])), *blocks[at + 1:]]
  return blocks


def _reworded(rng: random.Random, blocks: list[Block], share: float) -> list[Block]:
  """The blocks with a share of their words, and at least one, replaced by others of the page."""
  said = re.findall(r'[A-Za-z]+', ' '.join(text for _, text in blocks))
  chosen = set(rng.sample(range(len(said)), max(1, round(share * len(said)))))
  count = itertools.count()

  def other(word: re.Match) -> str:
    if next(count) not in chosen:
      return word[0]
    return pick(rng, [other for other in said if other.lower() != word[0].lower()])

  return [(tag, re.sub(r'[A-Za-z]+', other, text)) for tag, text in blocks]


def _shingles(text: str) -> set[tuple[str, ...]]:
  text = re.sub(r'\d+', '0', text.lower())
  if not text.isascii():
    text = unicodedata.normalize('NFD', text)
    text = ''.join(mark for mark in text if unicodedata.category(mark) != 'Mn')
  said = re.findall(r'\w+', text)
  return {tuple(said[at:at + 5]) for at in range(max(1, len(said) - 4))}
