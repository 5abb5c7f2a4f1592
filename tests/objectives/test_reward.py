"""The reward objective: read off the last token, rankings whole, losses by hand."""


import functools

import jax
import numpy as np
import pytest

from nanollm_jax import InputError
from nanollm_jax.model import transformer
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.objectives import preference, reward
from nanollm_jax.objectives.reward import RewardConfig
from nanollm_jax.train import step

CONFIG = ModelConfig(depth=1, width=16, heads=2, context=24).resolve(30)
MODEL = transformer.Transformer(CONFIG)
RNG = np.random.default_rng(0)


@jax.jit
def apply(params, *args):
  return MODEL.apply({'params': params}, *args)


scores = jax.jit(functools.partial(reward.scores, apply))


@pytest.fixture(scope='module')
def params():
  head = reward.head(16, jax.random.key(1))
  return transformer.init(CONFIG, jax.random.key(0)) | jax.tree.map(lambda leaf: leaf + 0.1, head)


@pytest.fixture(scope='module')
def batch():
  lengths = np.array([[5, 9, 3], [7, 12, 0], [8, 0, 0], [4, 4, 11]], np.int32)
  there = np.arange(12) < lengths[..., None]
  return {'tokens': RNG.integers(1, 30, (4, 3, 12)).astype(np.int32) * there, 'lengths': lengths}


def test_the_head_begins_with_variance_one_over_width_and_one():
  head = reward.head(10_000, jax.random.key(0))['reward']
  assert head['weight'].std() * 10_001 ** 0.5 == pytest.approx(1, abs=0.03) and head['bias'] == 0


def test_the_score_is_read_off_the_last_token_and_no_padding(params):
  tokens = RNG.integers(1, 30, (3, 12)).astype(np.int32)
  lengths = np.array([1, 7, 12], np.int32)
  found = scores(params, tokens, lengths)
  weight, bias = params['reward']['weight'], params['reward']['bias']
  hidden = apply(params, tokens[1:2, :7]).hidden_BTD[0, -1]  # alone and without padding
  np.testing.assert_allclose(found[1], hidden @ weight + bias, rtol=1e-5, atol=1e-5)
  other = np.where(np.arange(12) < lengths[:, None], tokens, 29 - tokens)
  padded = np.pad(other, ((0, 0), (0, 9)))
  np.testing.assert_allclose(scores(params, padded, lengths), found, rtol=1e-5,
                             atol=1e-5)
  ends = tokens.copy()
  ends[np.arange(3), lengths - 1] = 30 - ends[np.arange(3), lengths - 1]
  assert np.abs(scores(params, ends, lengths) - found).min() > 1e-3


def test_the_loss_is_that_of_all_pairs_by_hand(params, batch):
  terms = jax.jit(reward.ranking(apply, RewardConfig(centring=0.1)))(params, batch)
  losses, right, count = [], 0, 0
  for tokens, lengths in zip(batch['tokens'], batch['lengths']):
    some = np.asarray(scores(params, tokens, lengths))[:np.sum(lengths > 0)]
    pairs = [(better, worse) for k, better in enumerate(some) for worse in some[k + 1:]]
    count, right = count + len(pairs), right + sum(better > worse for better, worse in pairs)
    if pairs:
      losses.append(np.mean([np.log1p(np.exp(worse - better)) + 0.1 * (better + worse) ** 2
                             for better, worse in pairs]))
  assert float(terms.loss) == pytest.approx(sum(losses), rel=1e-5) and terms.weight == 3
  assert [float(x) for x in terms.metrics['accuracy']] == [right, count] and count == 7


@pytest.mark.parametrize('name', ['all_pairs', 'plackett_luce', 'best_of'])
def test_each_loss_is_the_one_it_is_named_for(params, batch, name):
  terms = jax.jit(reward.ranking(apply, RewardConfig(name, 0.0)))(params, batch)
  valid = batch['lengths'] > 0
  flat = scores(params, batch['tokens'].reshape(12, 12), batch['lengths'].ravel())
  want = getattr(preference, name)(flat.reshape(4, 3), valid)
  assert float(terms.loss) == pytest.approx(float(want.sum()), rel=1e-5)  # a ranking of one costs 0


def test_microbatches_keep_rankings_whole(params, batch):
  objective = reward.ranking(apply, RewardConfig())
  whole, parts = (jax.jit(lambda params, n=n: step.accumulate(
      objective, params, batch, jax.random.key(0), n))(params) for n in (1, 2))
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), whole, parts)


def test_a_negative_centring_is_refused():
  with pytest.raises(InputError, match='--reward_model.centring=-1 is negative'):
    RewardConfig(centring=-1)
