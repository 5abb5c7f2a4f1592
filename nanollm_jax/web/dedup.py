"""Which documents go because they are nearly others: candidates by MinHash, the exact measure.

Documents are ranked by a hash of their URL and id, which knows nothing of content, shards or
workers; the first of those that are alike stays. A document goes only if its exact Jaccard
similarity with one that stays reaches the threshold, so clusters never grow by chains.
"""

import collections
import hashlib
from typing import Callable, Iterator, Sequence

import numpy as np

from nanollm_jax.web import minhash

SIMILAR = 0.7  # Jaccard similarity of 5-grams from which documents are duplicates
FIRST = 64  # of a crowd that shares a band each document is compared with so many


def key_of(url: str, record: str) -> str:
  """The rank of a document: of those that are alike the one with the smallest key stays."""
  return hashlib.blake2b(f'{url}\n{record}'.encode('utf-8', 'replace'), digest_size=16).hexdigest()


def pairs_in(key_N: Sequence[str]) -> Iterator[tuple[str, str]]:
  """The pairs to compare of those that share a band: (smaller key, larger key)."""
  ranked = sorted(key_N)
  for at, key in enumerate(ranked):
    yield from ((first, key) for first in ranked[:min(at, FIRST)])


def candidates(keys: Sequence[str], bands_NB: np.ndarray) -> set[tuple[str, str]]:
  """The pairs of documents that share a band."""
  found: set[tuple[str, str]] = set()
  for band_N in bands_NB.T:
    order = np.argsort(band_N, kind='stable')
    borders = np.flatnonzero(np.diff(band_N[order])) + 1
    for group in np.split(order, borders):
      if len(group) > 1:
        found.update(pairs_in([keys[row] for row in group]))
  return found


def duplicates(pairs: set[tuple[str, str]], shingles: Callable[[str], np.ndarray],
               threshold: float = SIMILAR) -> dict[str, tuple[str, float]]:
  """What goes: its key, and the key and the Jaccard similarity of the one that stays.

  Args:
    pairs: candidates, smaller key first.
    shingles: key -> the document's shingles.
    threshold: the least similarity of duplicates.
  """
  earlier = collections.defaultdict(list)
  for first, second in pairs:
    earlier[second].append(first)
  gone: dict[str, tuple[str, float]] = {}
  for key in sorted(earlier):
    stays = {gone[one][0] if one in gone else one for one in earlier[key]}
    alike = ((minhash.jaccard(shingles(one), shingles(key)), one) for one in sorted(stays))
    if found := next(((one, value) for value, one in alike if value >= threshold), None):
      gone[key] = found
  return gone
