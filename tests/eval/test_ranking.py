"""Ranking: the lecture's table, brute force, ties, and confidence of a judge that is known."""

import itertools
import math

import numpy as np
import pytest

from nanollm_jax.eval import ranking


def test_the_lectures_table_has_a_tau_of_zero():
  """Five answers, the reward model's scores and a person's order: 5 of 10 pairs agree."""
  scores, places = [0.1, 0.8, 0.3, 0.4, 0.5], [2, 1, 3, 5, 4]
  assert ranking.kendall_tau(scores, places) == 0
  margins = [scores[i] - scores[j] for i, j in itertools.permutations(range(5), 2)
             if places[i] < places[j]]
  assert ranking.pair_accuracy(margins)[0] == 0.5 and len(margins) == 10


def test_tau_by_hand():
  assert ranking.kendall_tau([3, 2, 1], [0, 1, 2]) == 1
  assert ranking.kendall_tau([1, 2, 3], [0, 1, 2]) == -1
  # Places 0 0 1: pairs (a, c) and (b, c) count there, all three here; both agree.
  assert ranking.kendall_tau([3, 2, 1], [0, 0, 1]) == pytest.approx(2 / math.sqrt(2 * 3))
  assert math.isnan(ranking.kendall_tau([3, 2, 1], [4, 4, 4]))
  assert math.isnan(ranking.kendall_tau([1], [0]))


def test_accuracy_counts_equal_scores_half_and_bins_by_margin():
  measure = ranking.pair_accuracy([1.0, -1.0, 0.0, 2.0])
  assert (measure.value, measure.n) == (0.625, 4)
  table = ranking.accuracy_by([1.0, -1.0, 0.0, 2.0], [0.1, 0.4, 1.0, 2.0], [0, 0.5, 1, 5, 9])
  assert {name: (m.value, m.n) for name, m in table.items()} == {
      '0 to 0.5': (0.5, 2), '1 to 5': (0.75, 2)}


def test_calibration_of_a_known_judge():
  """Pairs drawn with the probability that the margins say; margins three times as sure; by hand."""
  rng = np.random.default_rng(0)
  true = rng.normal(0, 1.5, 20_000)
  margins = np.where(rng.random(20_000) < 1 / (1 + np.exp(-true)), true, -true)
  rows, error = ranking.calibration(margins)
  assert len(rows) == 10 and sum(n for *_, n in rows) == 20_000 and error < 0.015
  assert all(abs(sure - share) < 0.06 for sure, share, _ in rows)
  assert ranking.calibration(3 * margins)[1] > 0.1
  rows, error = ranking.calibration([math.log(3)] * 4 + [-math.log(3)] * 4, bins=2)
  assert [(round(sure, 6), share, n) for sure, share, n in rows] == [(0.75, 0.5, 8)]
  assert error == pytest.approx(0.25)
