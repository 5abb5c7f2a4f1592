"""MinHash (Broder 1997) over word 5-grams: 14 bands of 8 hashes, so that documents whose sets of
5-grams have a Jaccard similarity of 0.7, 0.75, 0.8, 0.85 meet in a band with 56, 77, 92, 99%.
"""

import functools
import hashlib
import re
import unicodedata

import numpy as np

BANDS, ROWS, GRAM = 14, 8, 5
_NUMBER = re.compile(r'\d+(?:[.,]\d+)?')
_WORD = re.compile(r'[^\W_]+')
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_KEY, _SHIFT = np.random.default_rng(0).integers(1 << 63, size=(2, BANDS, ROWS), dtype=np.uint64)
_KEY |= np.uint64(1)


def shingles(text: str) -> np.ndarray:
  """The different word 5-grams as sorted 64-bit hashes, uint64[S]; fewer words are one gram.

  Case, numbers, punctuation and accents make no difference.
  """
  text = _NUMBER.sub('0', text.lower())
  if not text.isascii():
    text = ''.join(char for char in unicodedata.normalize('NFD', text)
                   if not unicodedata.combining(char))
  words = _WORD.findall(text)
  hash_N = np.fromiter(map(word_hash, words), np.uint64, len(words))
  n = min(GRAM, len(words))
  count = len(words) - n + 1 if n else 0
  gram_N = np.zeros(count, np.uint64)
  for k in range(n):
    gram_N = gram_N * _FACTOR + hash_N[k:k + count]
  return np.unique(_mix(gram_N))


@functools.lru_cache(1 << 17)
def word_hash(word: str) -> int:
  """64 bits of a word, the same in every process."""
  return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest())


def _mix(values: np.ndarray) -> np.ndarray:
  """Splitmix64's finaliser: every bit of the result depends on every bit."""
  for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
    values = (values ^ values >> np.uint64(shift)) * np.uint64(factor)
  return values ^ values >> np.uint64(31)


def bands(shingle_S: np.ndarray) -> np.ndarray:
  """A hash of the 8 minima of each band, uint64[14]; no shingles have no bands."""
  if not len(shingle_S):
    return np.zeros(0, np.uint64)
  least_BR = np.empty((BANDS, ROWS), np.uint64)
  for band, row in np.ndindex(BANDS, ROWS):
    least_BR[band, row] = ((shingle_S ^ _SHIFT[band, row]) * _KEY[band, row]).min()
  found_B = np.arange(BANDS, dtype=np.uint64)
  for least_B in least_BR.T:
    found_B = _mix(found_B * _FACTOR + least_B)
  return found_B


def jaccard(one_S: np.ndarray, other_S: np.ndarray) -> float:
  """Shared shingles of all shingles of two documents."""
  shared = len(np.intersect1d(one_S, other_S, assume_unique=True))
  return shared / max(1, len(one_S) + len(other_S) - shared)
