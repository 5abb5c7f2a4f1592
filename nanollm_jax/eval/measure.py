"""A measure: a number, its standard error, and how many examples it was taken over."""

import math
from typing import NamedTuple, Sequence


class Measure(NamedTuple):
  """`value` +- `stderr` over `n` examples; the error is nan where n is 1."""
  value: float
  stderr: float
  n: int


def mean(values: Sequence[float]) -> Measure:
  """The mean and its sample standard error, sqrt(sum (x - mean)^2 / (n (n - 1)))."""
  return ratio(values, [1.0] * len(values))


def ratio(above: Sequence[float], below: Sequence[float]) -> Measure:
  """sum(above) / sum(below), such as bits per byte over documents, by linearised error.

  Cochran, Sampling Techniques (1977), section 6.4, without the correction for a finite population.
  """
  n, total = len(above), sum(below)
  value = sum(above) / total
  squares = sum((a - value * b) ** 2 for a, b in zip(above, below))
  return Measure(value, math.sqrt(squares * n / (n - 1)) / total if n > 1 else math.nan, n)
