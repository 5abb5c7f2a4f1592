"""Preferences: equal to TRL, probabilities that sum to one, ties, and padding without effect."""

import itertools
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nanollm_jax import InputError
from nanollm_jax.objectives import preference

FIXTURE = dict(np.load(pathlib.Path(__file__).parents[1] / 'fixtures' / 'policy.npz'))
MASK = FIXTURE['mask']
LOGPROBS = MASK * np.take_along_axis(np.asarray(jax.nn.log_softmax(FIXTURE['logits'])),
                                     FIXTURE['completion'][..., None], -1)[..., 0]
RANKED = [preference.all_pairs, preference.plackett_luce, preference.best_of]
named = lambda loss: loss.__name__


def equal(loss, arrays, name):
  value, gradient = jax.value_and_grad(loss)(jnp.asarray(arrays))
  np.testing.assert_allclose(value, FIXTURE[f'{name} value'], rtol=1e-5)
  np.testing.assert_allclose(gradient, FIXTURE[f'{name} gradient'], rtol=1e-5, atol=1e-7)


def test_dpo_ipo_and_simpo_equal_trl():
  """Rows 0 and 1 are the better answers, 2 and 3 the worse ones."""
  length, reference = MASK.sum(1), (FIXTURE['ref'] * MASK).sum(1)
  margin = lambda x: x[:2] - x[2:]
  equal(lambda x: preference.dpo(margin(x.sum(1) - reference)).mean(), LOGPROBS, 'dpo')
  equal(lambda x: preference.ipo(margin((x.sum(1) - reference) / length)).mean(), LOGPROBS, 'ipo')
  equal(lambda x: preference.simpo(margin(x.sum(1) / length)).mean(), LOGPROBS, 'simpo')


@pytest.mark.parametrize('ranked', RANKED, ids=named)
def test_the_reward_loss_equals_trl_at_two_answers(ranked):
  pairs, valid = lambda r: r.reshape(2, 2).T, jnp.ones((2, 2), bool)
  equal(lambda r: ranked(pairs(r), valid).mean(), FIXTURE['rewards'], 'reward')
  equal(lambda r: (ranked(pairs(r), valid) + 0.01 * preference.centring(pairs(r), valid)).mean(),
        FIXTURE['rewards'], 'centred reward')


def test_all_pairs_and_centring_by_hand():
  reward = np.array([[2.0, -1.0, 0.5]])
  margins, sums = np.array([3.0, 1.5, -1.5]), np.array([1.0, 2.5, -0.5])
  valid = jnp.ones((1, 3), bool)
  np.testing.assert_allclose(preference.all_pairs(jnp.asarray(reward), valid),
                             [np.log1p(np.exp(-margins)).mean()], rtol=1e-6)
  np.testing.assert_allclose(preference.centring(jnp.asarray(reward), valid), [(sums**2).mean()],
                             rtol=1e-6)


def test_rankings_have_probabilities():
  """Plackett-Luce sums to one over all orders; its first place is best_of's softmax."""
  reward, valid = jnp.array([0.3, -1.2, 0.9, 0.1]), jnp.ones((1, 4), bool)
  orders = list(itertools.permutations(range(4)))
  chance = {order: float(jnp.exp(-preference.plackett_luce(reward[None, list(order)], valid))[0])
            for order in orders}
  np.testing.assert_allclose(sum(chance.values()), 1, rtol=1e-5)
  for first in range(4):
    order = next(order for order in orders if order[0] == first)
    best = jnp.exp(-preference.best_of(reward[None, list(order)], valid))[0]
    np.testing.assert_allclose(best, sum(p for o, p in chance.items() if o[0] == first), rtol=1e-5)
    np.testing.assert_allclose(best, jax.nn.softmax(reward)[first], rtol=1e-5)


@pytest.mark.parametrize('ranked', RANKED + [preference.centring], ids=named)
@pytest.mark.parametrize('rubbish', (0.0, 7.0, np.nan, np.inf))
def test_padding_has_no_effect_and_no_gradient(ranked, rubbish):
  reward = jnp.array([[0.3, -1.2, 0.9], [1.0, 2.0, 0.0]])
  valid = jnp.array([[True] * 3, [True, True, False]])
  pad = jnp.full((2, 2), rubbish)
  wide = jnp.concatenate([jnp.where(valid, reward, rubbish), pad], 1)
  wide_valid = jnp.pad(valid, ((0, 0), (0, 2)))
  value, gradient = jax.value_and_grad(lambda r: ranked(r, wide_valid).sum())(wide)
  narrow = lambda r: (ranked(r[:1], valid[:1])[0] + ranked(r[1:, :2], valid[1:, :2])[0])
  np.testing.assert_allclose(value, narrow(reward), rtol=1e-5)
  np.testing.assert_allclose(gradient[:, :3], jax.grad(narrow)(reward), atol=1e-6)
  assert np.all(gradient[:, 3:] == 0)


@pytest.mark.parametrize('ranked', RANKED + [preference.centring], ids=named)
def test_fewer_than_two_answers_teach_nothing(ranked):
  valid = jnp.array([[True, False], [False, False]])
  value, gradient = jax.value_and_grad(lambda r: ranked(r, valid).sum())(jnp.array([[3., 1.]] * 2))
  assert value == 0 and np.all(gradient == 0)


def test_places_in_any_order_and_ties_as_half_a_win():
  reward = jnp.array([[0.3, -1.2, 0.9, 0.5]])
  valid = jnp.ones((1, 4), bool)
  places = jnp.array([[2, 0, 3, 1]])
  order = jnp.argsort(places[0])
  np.testing.assert_allclose(preference.all_pairs(reward, valid, places),
                             preference.all_pairs(reward[:, order], valid), rtol=1e-6)
  tie = lambda r: preference.all_pairs(r, valid[:, :2], jnp.array([[5, 5]]))[0]
  half = 0.5 * (np.log1p(np.exp(-1.5)) + np.log1p(np.exp(1.5)))
  np.testing.assert_allclose(tie(reward[:, :2]), half, rtol=1e-6)
  np.testing.assert_allclose(jax.grad(tie)(jnp.array([[0.7, 0.7]])), 0, atol=1e-7)
  pulled = jax.grad(tie)(reward[:, :2])[0]
  assert pulled[0] > 0 > pulled[1]  # descent brings them together


@pytest.mark.parametrize('loss, beta', [('dpo', 0.1), ('ipo', 0.2), ('simpo', 2.0)])
def test_the_objective_of_rankings_by_hand(loss, beta):
  """A model whose logits are an embedding of the token before; two rankings, one of two answers."""
  rng = np.random.default_rng(0)
  hidden, head = rng.normal(size=(7, 4)), rng.normal(size=(7, 4)).astype(np.float32)
  apply = lambda params, tokens: types.SimpleNamespace(hidden_BTD=params[tokens], head_VD=head)
  batch = {'tokens': rng.integers(0, 7, (2, 3, 6)), 'starts': np.array([2, 1]),
           'lengths': np.array([[6, 3, 5], [4, 2, 0]]),
           'ref_logprobs': rng.normal(size=(2, 3)).astype(np.float32)}
  logits = (hidden @ head.T)[batch['tokens']]
  logprob = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  def score(b, k):
    places = range(batch['starts'][b], batch['lengths'][b, k])
    total = sum(logprob[b, k, t - 1, batch['tokens'][b, k, t]] for t in places)
    total -= 0 if loss == 'simpo' else batch['ref_logprobs'][b, k]
    return total if loss == 'dpo' else total / len(places)
  of = {'dpo': lambda m: np.log1p(np.exp(-beta * m)), 'ipo': lambda m: (m - 1 / (2 * beta)) ** 2,
        'simpo': lambda m: np.log1p(np.exp(1.0 - beta * m))}[loss]
  margins = [[score(b, i) - score(b, j) for i, j in pairs] for b, pairs in
             enumerate([[(0, 1), (0, 2), (1, 2)], [(0, 1)]])]
  terms = preference.rankings(apply, preference.PreferenceConfig(loss, beta))(
      jnp.asarray(hidden, jnp.float32), batch)
  want = sum(np.mean([of(margin) for margin in some]) for some in margins)
  assert float(terms.loss) == pytest.approx(want, rel=1e-5) and terms.weight == 2
  right = sum(margin > 0 for some in margins for margin in some)
  assert [float(x) for x in terms.metrics['accuracy']] == [right, 4]
  with pytest.raises(InputError, match='--preference.beta=0 must be positive'):
    preference.PreferenceConfig(loss, 0)
