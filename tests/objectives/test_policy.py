"""The policy objective: equal to TRL, exact on a bandit, blind to padding, packing and order."""

import itertools
import pathlib
from typing import NamedTuple

from absl import flags as absl_flags
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nanollm_jax import InputError, flags
from nanollm_jax.objectives import language, policy
from nanollm_jax.objectives.policy import PolicyConfig
from nanollm_jax.sample.choose import choose
from nanollm_jax.train.step import accumulate

FIXTURE = dict(np.load(pathlib.Path(__file__).parents[1] / 'fixtures' / 'policy.npz'))
RECIPES = {  # TRL's names in our switches; `capped` and `tis` fixtures add to them
    'grpo': dict(aggregation='sequence_mean', clip_high=0.2),
    'bnpo': dict(aggregation='token_mean', clip_high=0.2),
    'dr_grpo': dict(aggregation='constant', clip_high=0.2),
    'dapo': dict(aggregation='token_mean', clip_high=0.28),
    'cispo': dict(aggregation='token_mean', cispo=True, clip_high=0.5),
    'gspo': dict(aggregation='sequence_mean', ratio='sequence', clip_low=0.03, clip_high=0.04),
}


class Out(NamedTuple):
  hidden_BTD: jax.Array
  head_VD: jax.Array


def logits_are_params(params, tokens, positions, segment_ids):
  """A model whose parameters are the logits [B, T, V] themselves."""
  return Out(params, jnp.eye(params.shape[-1]))


def table(params, tokens, positions, segment_ids):
  """A model whose logits follow from the current token: rows of params [V, V]."""
  return Out(jax.nn.one_hot(tokens, len(params)), params.T)


def mean_loss(objective, params, batch):
  """(loss, terms), gradient; compiled op by op, which all these small programs share."""
  def loss(params):
    terms = objective(params, batch)
    return terms.loss / terms.weight, terms
  with jax.disable_jit():
    return jax.value_and_grad(loss, has_aux=True)(params)


def from_fixture():
  """The fixture as a batch: one prompt token stands before every completion."""
  before = lambda x: jnp.pad(jnp.asarray(x), ((0, 0), (1, 0)))
  mask = FIXTURE['mask']
  real = np.cumsum(mask[:, ::-1], 1)[:, ::-1] > 0  # a forced stretch lies inside a sequence
  batch = {'tokens': before(FIXTURE['completion']), 'loss_mask': before(mask.astype(int)),
           'segment_ids': jnp.pad(jnp.asarray(real.astype(int)), ((0, 0), (1, 0)),
                                  constant_values=1), 'positions': None,
           'advantages': before(FIXTURE['advantages'][:, None] * mask),
           'old_logprobs': before(FIXTURE['old']), 'ref_logprobs': before(FIXTURE['ref'])}
  return batch, jnp.pad(jnp.asarray(FIXTURE['logits']), ((0, 0), (0, 1), (0, 0)))


@pytest.mark.parametrize('name', RECIPES)
@pytest.mark.parametrize('beta,kind', [(0.0, 'plain'), (0.04, 'plain'), (0.04, 'capped'),
                                       (0.0, 'tis')])
def test_value_and_gradient_equal_trl(name, beta, kind):
  recipe = dict(RECIPES[name], kl='loss_k3' if beta else 'none', kl_coefficient=beta)
  high = 1.5 if name == 'cispo' else recipe['clip_high']  # TRL's is the cap itself
  batch, logits = from_fixture()
  if kind == 'capped':
    recipe['dual_clip'] = 1 + 2 * high
  if kind == 'tis':
    weight = jnp.pad(jnp.asarray(FIXTURE['weight']), ((0, 0), (1, 0)), constant_values=1)
    batch['rollout_logprobs'] = batch['old_logprobs'] - jnp.log(weight)
  objective = policy.objective(logits_are_params, PolicyConfig(**recipe),
                               budget=int(FIXTURE['longest']))
  (loss, terms), gradient = mean_loss(objective, logits, batch)
  np.testing.assert_allclose(loss, FIXTURE[f'{name} {beta} {kind} value'], rtol=1e-5)
  theirs = FIXTURE[f'{name} {beta} {kind} gradient']
  np.testing.assert_allclose(gradient[:, :-1], theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())
  assert 0 < terms.metrics['clipped_high'][0] < terms.weight or name == 'gspo'


LENGTHS = (7, 4, 6, 5, 0, 0)


def sequences(seed=0, lengths=LENGTHS, width=9, V=5):
  """Rows of a sequence each: two prompt tokens, then sampled ones, the second of them forced."""
  rng = np.random.default_rng(seed)
  at, length = np.arange(width), np.array(lengths)[:, None]
  shape = (len(lengths), width)
  batch = {'tokens': rng.integers(0, V, shape), 'positions': np.tile(at, (len(lengths), 1)),
           'segment_ids': (at < length).astype(int),
           'loss_mask': ((at >= 2) & (at < length) & (at != 3)).astype(int),
           'advantages': np.repeat(rng.normal(size=(len(lengths), 1)), width, 1)}
  batch |= {name: -1.6 + rng.normal(0, 0.4, shape) for name in
            ('old_logprobs', 'ref_logprobs', 'rollout_logprobs')}
  return {name: jnp.asarray(x, jnp.float32 if x.dtype == float else jnp.int32)
          for name, x in batch.items()}, jnp.asarray(rng.normal(size=(V, V)) * 0.3, jnp.float32)


EVERY = [PolicyConfig(aggregation=aggregation, ratio=ratio, kl='loss', entropy=0.1)
         for aggregation, ratio in (('token_mean', 'token'), ('sequence_mean', 'sequence'),
                                    ('constant', 'token'))]


def same(one, other):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), one, other)


@pytest.mark.parametrize('config', EVERY, ids=lambda c: f'{c.aggregation}-{c.ratio}')
def test_padding_packing_order_and_microbatches_do_not_matter(config):
  """Whatever stands where nothing is trained, even NaN, and wherever a sequence stands."""
  batch, params = sequences()
  objective = policy.objective(table, config, budget=8)
  expected = mean_loss(objective, params, batch)
  same(mean_loss(objective, params, {name: x[::-1] for name, x in batch.items()}), expected)
  rubbish = {name: jnp.where(batch['loss_mask'] > 0, x, jnp.nan) if x.dtype == jnp.float32 else x
             for name, x in batch.items()}
  same(mean_loss(objective, params, rubbish), expected)
  packed = {name: jnp.concatenate([row[:length] for row, length in zip(x, LENGTHS)])[None]
            for name, x in batch.items()}
  packed['segment_ids'] = jnp.repeat(jnp.arange(1, 7), jnp.array(LENGTHS))[None]
  same(mean_loss(objective, params, packed), expected)
  parts = jax.jit(lambda p: accumulate(objective, p, batch, jax.random.key(0), 2))(params)
  same(jax.tree.map(lambda g: g / parts[1].weight, parts[0]), expected[1])
  same(parts[1], expected[0][1])


def test_one_device_equals_two():
  batch, params = sequences()
  objective = policy.objective(table, PolicyConfig(aggregation='sequence_mean', ratio='sequence'))
  devices = jax.sharding.Mesh(jax.devices()[:2], ('rows',))
  rows = jax.sharding.NamedSharding(devices, jax.sharding.PartitionSpec('rows'))
  apart = jax.jit(objective)(params, jax.device_put(batch, rows))
  same(apart, mean_loss(objective, params, batch)[0][1])


def test_weights_by_hand():
  """Trained tokens 4, 1, 3, 2 in four sequences; a row that trains nothing is no sequence."""
  batch, params = sequences()
  batch['loss_mask'] = batch['loss_mask'].at[1].set(0)
  for aggregation, weight in (('token_mean', 9), ('sequence_mean', 3), ('constant', 3 * 8)):
    config = PolicyConfig(aggregation=aggregation)
    assert policy.objective(table, config, budget=8)(params, batch).weight == weight


def test_on_policy_the_ratio_is_one_and_the_gradient_is_reinforce():
  batch, params = sequences()
  del batch['old_logprobs'], batch['rollout_logprobs']
  for switches in ({}, {'ratio': 'sequence'}, {'cispo': True}):
    objective = policy.objective(table, PolicyConfig(**switches))
    step = jax.jit(lambda params: accumulate(objective, params, batch, jax.random.key(0), 1))
    gradient, terms = step(params)
    gradient /= terms.weight
    metrics = {name: float(total / count) for name, (total, count) in terms.metrics.items()}
    assert metrics['ratio'] == metrics['ratio_max'] == 1 and metrics['approx_kl'] == 0
    assert metrics['clipped_low'] == metrics['clipped_high'] == 0

    def reinforce(params):
      targets, mask = language.next_token_targets(batch)
      logprob = jax.nn.log_softmax(params[batch['tokens']])
      picked = jnp.take_along_axis(logprob, targets[..., None], -1)[..., 0]
      if 'ratio' in switches:  # a sequence's ratio spreads its advantage evenly: the same here
        length = jnp.maximum(jnp.sum(mask, 1, keepdims=True), 1)
        picked = jnp.sum(picked * mask, 1, keepdims=True) / length
      return -jnp.sum(mask * language.shift(batch['advantages']) * picked) / jnp.sum(mask)
    np.testing.assert_allclose(gradient, jax.grad(reinforce)(params), atol=1e-6)


def test_training_on_all_right_answers_is_reinforce_without_a_baseline():
  """Expert iteration: the summed loss of right answers / G, on frozen samples."""
  batch, params = sequences()
  del batch['old_logprobs'], batch['rollout_logprobs']
  right = jnp.array([1.0, 0.0, 0.0, 1.0, 0.0, 0.0])
  batch['advantages'] = jnp.broadcast_to(right[:, None], batch['tokens'].shape)
  objective = policy.objective(table, PolicyConfig(aggregation='constant'), budget=1)
  (_, terms), gradient = mean_loss(objective, params, batch)
  chosen = {name: x[jnp.array([0, 3])] for name, x in batch.items()}
  finetune = lambda params: language.next_token(table, jnp.ones(5, jnp.int32))(params, chosen).loss
  np.testing.assert_allclose(gradient, jax.grad(finetune)(params) / 4, atol=1e-6)
  assert terms.weight == 4


def test_the_end_token_receives_gradient_and_a_forced_one_none():
  batch, _ = sequences()
  logits = jax.random.normal(jax.random.key(0), (*batch['tokens'].shape, 5))
  on_policy = {name: x for name, x in batch.items() if 'logprobs' not in name}
  _, gradient = mean_loss(policy.objective(logits_are_params, PolicyConfig()), logits, on_policy)
  size = np.abs(gradient).max(-1)
  for row, length in enumerate(LENGTHS[:4]):
    assert np.all(size[row, length - 1:] == 0) and size[row, 2] == 0  # 2 predicts the forced one
    assert (size[row, length - 2] > 0) == (length > 4)  # predicts the last token, which is the end


# A bandit of two tokens: P prompts, G samples each, of which token 1 is rewarded with 1.

def expected_gradient(mode, probabilities, G):
  """The mean of the objective's gradient over every outcome, weighted with its probability.

  Returns it as a share of the gradient of the mean reward, one number a prompt.
  """
  P = len(probabilities)
  params = jnp.log(jnp.array([[1 - p, p] for p in probabilities]))
  apply = lambda params, tokens, positions, segment_ids: Out(
      jnp.repeat(jnp.repeat(params, G, 0)[:, None], 2, 1), jnp.eye(2))
  objective = policy.objective(apply, PolicyConfig())

  def gradient(actions_PG):
    reward = actions_PG.astype(jnp.float32)
    advantage = policy.advantages(reward, jnp.ones((P, G), bool), mode)
    rows = lambda x: jnp.pad(x.reshape(-1, 1), ((0, 0), (1, 0)))
    batch = {'tokens': rows(actions_PG), 'positions': None, 'loss_mask': rows(jnp.ones((P, G))),
             'segment_ids': jnp.ones((P * G, 2), jnp.int32), 'advantages': rows(advantage)}
    def loss(params):
      terms = objective(params, batch)
      return -terms.loss / terms.weight * P
    return jax.grad(loss)(params)[:, 1]

  outcomes = np.array(list(itertools.product((0, 1), repeat=P * G))).reshape(-1, P, G)
  p = np.array(probabilities)[None, :, None]
  chance = np.prod(np.where(outcomes == 1, p, 1 - p), (1, 2))
  gradients = jax.jit(jax.vmap(gradient))(jnp.asarray(outcomes))
  return chance @ np.asarray(gradients) / (p * (1 - p))[0, :, 0]


@pytest.mark.parametrize('mode,G,probabilities,expected', [
    ('mean', 4, (0.1, 0.5), (0.75, 0.75)),  # (G - 1) / G at any p: right over prompts
    ('rloo', 4, (0.1, 0.5), (1.0, 1.0)),  # right
    # Biased: a prompt solved one time in ten weighs 1.05 times one that is solved half the time,
    # with G = 8 1.25 times, and, as this share goes to 1 / sqrt(p (1 - p)), 1.67 times in the end.
    ('mean_std', 4, (0.1, 0.5), (1.4635, 1.3993)),
    ('mean_std', 8, (0.1,), (2.1773,)), ('mean_std', 8, (0.5,), (1.7347,)),
    ('batch_std', 4, (0.1, 0.5), (1.5097, 1.6233))])  # biased, the other way round here
def test_bias_of_the_advantages_on_a_bandit(mode, G, probabilities, expected):
  np.testing.assert_allclose(expected_gradient(mode, probabilities, G), expected, rtol=1e-3)


def test_advantages_by_hand():
  reward, valid = np.array([[1.0, 0.0, 0.0, 3.0]]), np.ones((1, 4), bool)
  hand = lambda mode, x: np.testing.assert_allclose(
      policy.advantages(reward, valid, mode), [x], rtol=1e-5, atol=1e-6)
  hand('mean', [0, -1, -1, 2])
  hand('rloo', [0, -4 / 3, -4 / 3, 8 / 3])
  std = np.std(reward, ddof=1) + 1e-4
  hand('mean_std', np.array([0, -1, -1, 2]) / std)
  hand('batch_std', np.array([0, -1, -1, 2]) / std)
  two = policy.advantages(np.array([[0.0, 1.0], [5.0, 9.0]]), np.ones((2, 2), bool), 'batch_std')
  np.testing.assert_allclose(two, np.array([[-.5, .5], [-2, 2]]) / (np.std([0, 1, 5, 9], ddof=1)
                                                                   + 1e-4), rtol=1e-5)


@pytest.mark.parametrize('mode', ('mean', 'rloo', 'mean_std', 'batch_std'))
def test_invalid_samples_are_outside_the_group(mode):
  """A reward of NaN, an excluded one, a group of one, an empty one and one all equal."""
  reward = np.array([[1, 0, np.nan, 7.0], [2, np.nan, np.nan, 7], [np.nan] * 4, [.1] * 4])
  valid = np.array([[1, 1, 1, 0], [1, 1, 1, 0], [1] * 4, [1] * 4], bool)
  out = policy.advantages(reward, valid, mode)
  assert np.all(out[0, 2:] == 0) and np.all(out[1:3] == 0) and out[0, 0] == -out[0, 1] > 0
  np.testing.assert_allclose(out[3], 0, atol=1e-3)
  if mode != 'batch_std':
    alone = policy.advantages(reward[:1, :2], valid[:1, :2], mode)
    np.testing.assert_allclose(out[0, :2], alone[0])
  swapped = policy.advantages(reward[:, ::-1], valid[:, ::-1], mode)
  np.testing.assert_allclose(swapped[:, ::-1], out, rtol=1e-6)


LOGITS, REFERENCE = jnp.array([0.3, -1.2, 0.8, 0.1]), jnp.log(jnp.array([0.1, 0.5, 0.1, 0.3]))


def exact_kl(logits, reverse=True):
  logp = jax.nn.log_softmax(logits)
  return jnp.sum(jnp.exp(logp) * (logp - REFERENCE) if reverse
                 else jnp.exp(REFERENCE) * (REFERENCE - logp))


@pytest.mark.parametrize('estimator,value,gradient', [
    (policy.k1, 'exact', lambda logits: jnp.zeros(4)), (policy.k2, 'biased', jax.grad(exact_kl)),
    (policy.k3, 'exact', jax.grad(lambda logits: exact_kl(logits, False))),
    (policy.kl_loss, 'exact', jax.grad(exact_kl))], ids=('k1', 'k2', 'k3', 'kl_loss'))
def test_kl_estimators_and_their_gradients_by_enumeration(estimator, value, gradient):
  weights = jax.nn.softmax(LOGITS)  # frozen: samples are drawn, not differentiated
  expected = lambda logits: jnp.sum(weights * estimator(jax.nn.log_softmax(logits) - REFERENCE))
  error = abs(float(expected(LOGITS) - exact_kl(LOGITS)))
  assert error < 1e-6 if value == 'exact' else error > 0.01
  np.testing.assert_allclose(jax.grad(expected)(LOGITS), gradient(LOGITS), atol=1e-6)


def test_kl_in_the_loss_has_the_value_of_k3_and_the_gradient_of_k2():
  batch, params = sequences()
  batch['advantages'] = jnp.zeros_like(batch['advantages'])
  objective = policy.objective(table, PolicyConfig(kl='loss', kl_coefficient=0.5))
  (loss, terms), gradient = mean_loss(objective, params, batch)

  def mean(params, estimator):
    targets, mask = language.next_token_targets(batch)
    logprob = jnp.take_along_axis(jax.nn.log_softmax(params[batch['tokens']]),
                                  targets[..., None], -1)[..., 0]
    drift = logprob - language.shift(batch['ref_logprobs'])
    return 0.5 * jnp.sum(mask * estimator(drift)) / jnp.sum(mask)
  np.testing.assert_allclose(loss, mean(params, policy.k3), rtol=1e-5)
  np.testing.assert_allclose(gradient, jax.grad(mean)(params, policy.k2), atol=1e-6)
  kl, weight = terms.metrics['kl_k3']
  np.testing.assert_allclose(kl / weight, 2 * loss, rtol=1e-5)


def test_kl_gradient_against_finite_differences():
  slope = [(exact_kl(LOGITS.at[i].add(1e-2)) - exact_kl(LOGITS.at[i].add(-1e-2))) / 2e-2
           for i in range(4)]
  np.testing.assert_allclose(jax.grad(exact_kl)(LOGITS), slope, atol=1e-4)


def test_log_ratios_are_clamped():
  far = jnp.array([-1e4, 1e4])
  for estimator in (policy.k1, policy.k2, policy.k3, policy.kl_loss):
    assert np.all(np.isfinite(estimator(far))) and np.all(np.isfinite(jax.vmap(
        jax.grad(estimator))(far)))


def test_kl_in_the_reward_and_its_controller_by_hand():
  logprobs, reference = jnp.array([[-1.0, -2.0, -9.0]]), jnp.array([[-1.5, -1.0, jnp.nan]])
  out = policy.kl_in_reward(jnp.array([3.0]), logprobs, reference, jnp.array([[1, 1, 0]]), 0.2)
  np.testing.assert_allclose(out, [3 - 0.2 * (0.5 - 1.0)], rtol=1e-6)
  trace = [0.15]
  for kl in (12.0, 6.6, 3.0):  # held at +0.2, within, held at -0.2
    trace.append(policy.adapted(trace[-1], kl, 500, target=6.0, horizon=10_000))
  np.testing.assert_allclose(trace[1:], [.15 * 1.01, .15 * 1.01 * 1.005, .15 * 1.01 * 1.005 * .99])
  assert policy.adapted(1.0, 0.0, 500, target=6.0, horizon=10) == pytest.approx(0.8)  # never below 0


@pytest.mark.parametrize('temperature', (pytest.param(0.7, marks=pytest.mark.slow), 1.0,
                                         pytest.param(1.6, marks=pytest.mark.slow)))
def test_the_gap_to_the_sampler_shows_a_forgotten_temperature(temperature):
  """Log-probs of the sampler's own function are the trainer's, if both know the temperature."""
  params = jax.random.normal(jax.random.key(1), (6, 6)) * 2
  rows = [jnp.arange(64) % 6]
  logprobs = [jnp.zeros(64)]
  for step in range(5):
    keys = jax.random.split(jax.random.key(step), 64)
    fill = lambda x: jnp.full(64, x)
    token, logprob = choose(params[rows[-1]], fill(temperature), fill(0), fill(1.0), keys, False)
    rows.append(token)
    logprobs.append(logprob)
  tokens = jnp.stack(rows, 1)
  batch = {'tokens': tokens, 'positions': None, 'segment_ids': jnp.ones_like(tokens),
           'loss_mask': jnp.ones_like(tokens), 'advantages': jnp.ones(tokens.shape),
           'rollout_logprobs': jnp.stack(logprobs, 1)}
  gap = lambda t: policy.objective(table, PolicyConfig(), t)(params, batch).metrics
  assert gap(temperature)['rollout_gap_max'][0] < 1e-5
  assert gap(temperature * 1.2)['rollout_gap_max'][0] > 0.1


def test_metrics_by_hand():
  """Three tokens with ratios 3, 1/2 and 1 of advantages 1, -1, 1; uniform policy over four."""
  log4 = np.log(0.25)
  array = lambda *x: jnp.array([[0.0, *x]], jnp.float32)
  batch = {'tokens': jnp.array([[0, 1, 2, 3]]), 'positions': None, 'loss_mask': jnp.ones((1, 4)),
           'segment_ids': jnp.ones((1, 4), jnp.int32), 'advantages': array(1, -1, 1),
           'old_logprobs': array(log4 - np.log(3), log4 + np.log(2), log4),
           'rollout_logprobs': array(log4 - np.log(3), log4 + np.log(2), log4 - 3),
           'ref_logprobs': array(log4, log4, log4 + 1)}
  terms = policy.objective(table, PolicyConfig(tis=4.0))(jnp.zeros((4, 4)), batch)
  metrics = {name: float(total / count) for name, (total, count) in terms.metrics.items()}
  expected = dict(ratio=4.5 / 3, ratio_max=3, ratio_inverse_max=2, clipped_low=1 / 3,
                  clipped_high=1 / 3, approx_kl=(1.5 - np.log(3) + np.log(2)) / 3, entropy=np.log(4), kl_k1=-1 / 3,
                  kl_k3=(np.e - 2) / 3, rollout_gap=1, rollout_gap_max=3, rollout_weight=2,
                  loss=-(1.28 - 0.8 + 4) / 3)
  assert metrics.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)


def test_an_entropy_bonus_flattens_and_its_gradient_is_exact():
  batch, params = sequences()
  batch['advantages'] = jnp.zeros_like(batch['advantages'])
  objective = policy.objective(table, PolicyConfig(entropy=0.5))
  (loss, _), gradient = mean_loss(objective, params, batch)
  def bonus(params):
    _, mask = language.next_token_targets(batch)
    logp = jax.nn.log_softmax(params[batch['tokens']])
    return 0.5 * jnp.sum(mask * jnp.sum(jnp.exp(logp) * logp, -1)) / jnp.sum(mask)
  np.testing.assert_allclose(loss, bonus(params), rtol=1e-5)
  np.testing.assert_allclose(gradient, jax.grad(bonus)(params), atol=1e-6)


def test_flags_and_what_they_refuse():
  assert all(help_text for *_, help_text in flags.leaves(PolicyConfig()))
  assert flags.parse(PolicyConfig(), flags.to_text(PolicyConfig(cispo=True))).cispo
  flags.define(PolicyConfig(), absl_flags.FlagValues())
  for wrong, word in ((dict(clip_low=0.0), 'clip_low'), (dict(dual_clip=1.1), 'dual_clip'),
                      (dict(tis=-2.0), 'tis')):
    with pytest.raises(InputError, match=f'--policy.{word}'):
      PolicyConfig(**wrong)
  batch, params = sequences()
  del batch['ref_logprobs']
  with pytest.raises(InputError, match='--policy.kl=loss needs'):
    policy.objective(table, PolicyConfig(kl='loss'))(params, batch)
