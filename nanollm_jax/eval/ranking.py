"""How well scores rank: order kept, pairs right by margin, confidence that is deserved."""

import itertools
import math
from typing import Sequence

import numpy as np

from nanollm_jax.eval.measure import Measure, mean


def kendall_tau(scores: Sequence[float], places: Sequence[float]) -> float:
  """Kendall's tau-b of scores (higher is better) and places (lower is better), from -1 to 1.

  (pairs that agree - pairs that do not) / sqrt(pairs untied here x pairs untied there); NaN
  where one side is all ties (Kendall 1945).
  """
  upper = np.triu_indices(len(scores), 1)
  signs = lambda x: np.sign(np.subtract.outer(x, x)[upper])
  ours, theirs = signs(np.asarray(scores, float)), -signs(np.asarray(places, float))
  untied = math.sqrt(np.count_nonzero(ours) * np.count_nonzero(theirs))
  return float(ours @ theirs) / untied if untied else math.nan


def pair_accuracy(margins: Sequence[float]) -> Measure:
  """Share of pairs whose better answer got the higher score; an equal score is half right.

  Args:
    margins: score of the better answer minus score of the worse one, one a pair.
  """
  return mean([float(share) for share in np.heaviside(np.asarray(margins, float), 0.5)])


def accuracy_by(margins: Sequence[float], labels: Sequence[float],
                edges: Sequence[float]) -> dict[str, Measure]:
  """`pair_accuracy` of the pairs whose label, such as the judge's margin, lies between two edges.

  Returns:
    'low to high' -> measure, the low edge within and the high one not; bins without pairs are
    left out.
  """
  margins, labels = np.asarray(margins, float), np.asarray(labels, float)
  bins = {f'{low:g} to {high:g}': margins[(labels >= low) & (labels < high)]
          for low, high in zip(edges, edges[1:])}
  return {name: pair_accuracy(inside) for name, inside in bins.items() if len(inside)}


def calibration(margins: Sequence[float],
                bins: int = 10) -> tuple[list[tuple[float, float, int]], float]:
  """Is a pair right as often as sigma(|margin|) says? Equal bins of confidence from 0.5 to 1.

  Returns:
    (mean confidence, share right, pairs) of each bin that has pairs; and the expected
    calibration error, the mean of |confidence - share right| over pairs (arXiv:1706.04599).
  """
  margins = np.asarray(margins, float)
  confidence = 1 / (1 + np.exp(-np.abs(margins)))
  right = np.heaviside(margins, 0.5)
  bin_of = np.minimum(((confidence - 0.5) * 2 * bins).astype(int), bins - 1)
  rows = [(float(confidence[inside].mean()), float(right[inside].mean()), int(inside.sum()))
          for inside in (bin_of == index for index in range(bins)) if inside.any()]
  error = sum(n * abs(sure - share) for sure, share, n in rows) / max(len(margins), 1)
  return rows, error


def pairs(values: Sequence[float]) -> list[float]:
  """Each value less each that comes after it: of a ranking, the better less the worse."""
  return [better - worse for better, worse in itertools.combinations(values, 2)]


def summary(scores: Sequence[Sequence[float]],
            gold: Sequence[Sequence[float]] | None = None) -> dict[str, float]:
  """How well scores follow rankings, each from its best completion to its worst.

  Args:
    scores: of each ranking, the scores of its completions.
    gold: their true scores, if they are known. `ceiling` is the accuracy of these: labels are
      noisy, so no score does better but by luck.
  """
  margins = [pairs(values) for values in scores]
  taus = [kendall_tau(values, range(len(values))) for values in scores]
  taus = [tau for tau in taus if not math.isnan(tau)]
  numbers = {'loss': mean([np.logaddexp(0, np.negative(some)).mean() for some in margins]).value,
             'accuracy': pair_accuracy(np.concatenate(margins)).value,
             'kendall_tau': mean(taus).value if taus else 0.0,
             'calibration_error': calibration(np.concatenate(margins))[1]}
  if gold:
    numbers['ceiling'] = pair_accuracy(np.concatenate([*map(pairs, gold)])).value
    numbers['gold_correlation'] = np.corrcoef(np.concatenate(scores), np.concatenate(gold))[0, 1]
  return {name: float(value) for name, value in numbers.items()}


def accuracies(scores: Sequence[Sequence[float]], lengths: Sequence[Sequence[int]],
               gold: Sequence[Sequence[float]] | None = None) -> dict[str, dict[str, Measure]]:
  """`accuracy_by` what sets a pair apart; arguments as of `summary`, and lengths in tokens."""
  join = lambda groups: np.concatenate([*map(pairs, groups)])
  margins, apart = join(scores), -join(range(len(values)) for values in scores)
  tables = {'places apart': accuracy_by(margins, apart, range(1, int(max(apart)) + 2)),
            'tokens that the better has more': accuracy_by(
                margins, join(lengths), [-math.inf, 0, 1, math.inf])}
  if gold:
    tables['difference in gold score'] = accuracy_by(
        margins, np.abs(join(gold)), [0, 0.25, 0.5, 1, 2, math.inf])
  return tables
