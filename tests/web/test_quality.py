"""The linear classifier: learns two piles, does not depend on the process, says what is wrong."""

import numpy as np
import pytest

from nanollm_jax import InputError
from nanollm_jax.web import quality


def test_two_piles_are_told_apart(tmp_path):
  good = [f'the cat number {k} sat on the mat and slept' for k in range(40)]
  bad = [f'buy cheap watches {k} now click here' for k in range(20)]
  quality.save(quality.train(good[:30], bad[:15]), tmp_path / 'q.npy')
  score = lambda text: quality.score(str(tmp_path / 'q.npy'), text)
  assert min(map(score, good[30:])) > 0.5 > max(map(score, bad[15:]))
  assert score('') == 0.0


def test_order_matters_as_a_feature():
  assert len(set(quality.features('a b')) & set(quality.features('b a'))) == 2
  assert np.array_equal(quality.features('The Cat'), quality.features('the cat'))


def test_bad_input(tmp_path):
  with pytest.raises(InputError, match='good and bad texts'):
    quality.train(['only good'], [])
  np.save(tmp_path / 'x.npy', np.zeros(3))
  for name in ('x.npy', 'gone.npy'):
    with pytest.raises(InputError, match=f'{name} is no classifier.*train_quality'):
      quality.score(str(tmp_path / name), 'a text')
