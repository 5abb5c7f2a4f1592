"""A page as the filters count it: its text, its words, and numbers of each different word."""

import functools
import re
from typing import NamedTuple

import numpy as np

from nanollm_jax.web import words as words_lib

_SYMBOLS = re.compile(r'[\W_]+')


class Page(NamedTuple):
  """N words, of which U differ: id_N points into the arrays of U."""
  text: str
  words: dict[str, int]  # each different word and its id
  id_N: np.ndarray
  length_U: np.ndarray  # characters
  letters_U: np.ndarray  # bool: has a letter
  symbol_U: np.ndarray  # bool: has neither letter nor digit


def page_of(text: str) -> Page:
  """Splits a text into words, once for all filters."""
  found = words_lib.split(text)
  index = {word: number for number, word in enumerate(dict.fromkeys(found))}
  id_N = np.fromiter(map(index.__getitem__, found), np.int64, len(found))
  facts = np.array(list(map(_facts, index)), np.int64).reshape(-1, 3)
  return Page(text, index, id_N, facts[:, 0], facts[:, 1] > 0, facts[:, 2] > 0)


@functools.lru_cache(1 << 17)
def _facts(word: str) -> tuple[int, bool, bool]:
  return (len(word), word.isalpha() or any(map(str.isalpha, word)),
          _SYMBOLS.fullmatch(word) is not None)
