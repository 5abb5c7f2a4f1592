"""A linear classifier on hashed words and pairs of words: is a page like the good pile?

The step with most gain in DCLM (arXiv:2406.11794), whose own is fastText with the same features.
"""

import functools
import pathlib
from typing import Iterable

import numpy as np

from nanollm_jax import InputError
from nanollm_jax.web import minhash

BUCKETS = 1 << 18
_PAIR = np.uint64(0x9E3779B97F4A7C15)


def features(text: str) -> np.ndarray:
  """The buckets of all words and pairs of neighbours of a text, int64[N]."""
  words = text.lower().split()
  hash_N = np.fromiter(map(minhash.word_hash, words), np.uint64, len(words))
  pair_N = hash_N[:-1] * _PAIR + hash_N[1:]
  return (np.concatenate([hash_N, pair_N]) >> np.uint64(46)).astype(np.int64)


def train(good: Iterable[str], bad: Iterable[str], epochs: int = 5, rate: float = 20.0,
          seed: int = 0) -> np.ndarray:
  """Learns weights, float32[BUCKETS + 1] with the bias last, by logistic regression.

  A text's logit is the mean of its features' weights. Raises InputError for an empty pile.
  """
  rows = [(features(text), label) for label, pile in ((1, good), (0, bad)) for text in pile]
  rows = [(feature_N, label) for feature_N, label in rows if len(feature_N)]
  share = sum(label for _, label in rows) / max(1, len(rows))
  if share in (0, 1):
    raise InputError('the classifier needs good and bad texts: give documents of both kinds.')
  weights, rng = np.zeros(BUCKETS + 1, np.float32), np.random.default_rng(seed)
  balance = (1 / (2 * (1 - share)), 1 / (2 * share))  # both piles weigh the same
  for step, row in enumerate(np.concatenate([rng.permutation(len(rows)) for _ in range(epochs)])):
    feature_N, label = rows[row]
    error = (label - _probability(weights, feature_N)) * balance[label]
    pace = rate * (1 - step / (epochs * len(rows)))
    np.add.at(weights, feature_N, np.float32(pace * error / len(feature_N)))
    weights[-1] += 0.01 * pace * error
  return weights


def _probability(weights: np.ndarray, feature_N: np.ndarray) -> float:
  logit = float(weights[feature_N].mean() + weights[-1])
  return 1 / (1 + float(np.exp(-np.clip(logit, -30, 30))))


def save(weights: np.ndarray, path: str | pathlib.Path) -> None:
  """Writes the weights as a .npy file of half floats."""
  pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
  np.save(path, weights.astype(np.float16))


@functools.cache
def _load(path: str) -> np.ndarray:
  try:
    weights = np.load(path)
    if weights.shape != (BUCKETS + 1,):
      raise ValueError(f'its shape is {weights.shape}')
  except (OSError, ValueError) as error:
    raise InputError(f'--web.quality={path} is no classifier ({error}): train one with '
                     'experiments.train_quality.') from error
  return weights.astype(np.float32)


def score(path: str, text: str) -> float:
  """How probably the text is of the good pile, 0 to 1, by the classifier in a file."""
  feature_N = features(text)
  return round(_probability(_load(path), feature_N), 4) if len(feature_N) else 0.0
