"""The step: accumulation, weights, skipped updates, optimizers, meshes, overfitting."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nanollm_jax import InputError, mesh as mesh_lib
from nanollm_jax.mesh import MeshConfig
from nanollm_jax.model import config as config_lib, transformer
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.objectives import language
from nanollm_jax.train import loop, optim, state as state_lib
from nanollm_jax.train.optim import OptimConfig
from nanollm_jax.train.step import accumulate, train_step

CONFIG = ModelConfig(depth=1, width=32, heads=4, key_heads=2, vocabulary=64, context=32).resolve()
MODEL = transformer.Transformer(CONFIG)
APPLY = lambda params, *args, **kwargs: MODEL.apply({'params': params}, *args, **kwargs)
OBJECTIVE = language.next_token(APPLY, jnp.ones(64, jnp.int32))
KEY = jax.random.key(0)


def batch(rows=8, seed=0):
  """Random rows of which each holds another number of real tokens."""
  tokens = jax.random.randint(jax.random.key(seed), (rows, 32), 0, 64)
  real = jnp.arange(32) < (8 + 3 * jnp.arange(rows))[:, None]
  return {'tokens': tokens, 'segment_ids': real.astype(jnp.int32),
          'positions': jnp.broadcast_to(jnp.arange(32), (rows, 32))}


def params():
  return transformer.init(CONFIG, KEY)


def test_accumulation_weights_by_tokens():
  """Four microbatches of unequal length give the gradient of the whole batch."""
  whole = jax.jit(functools.partial(accumulate, OBJECTIVE, microbatches=1))(params(), batch(), KEY)
  parts = jax.jit(functools.partial(accumulate, OBJECTIVE, microbatches=4))(params(), batch(), KEY)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), whole, parts)
  assert whole[1].weight == sum(min(32, 8 + 3 * row) - 1 for row in range(8))


@pytest.mark.parametrize('microbatches', (1, 2, 4))
def test_a_metric_named_max_keeps_the_largest(microbatches):
  def objective(weights, data, key):
    loss, one = jnp.sum(weights['w'] * data['x']), jnp.float32(1)
    return language.Terms(loss, one, {'x': (loss, jnp.float32(data['x'].size)),
                                      'x_max': (jnp.max(data['x']), one)})
  optimizer = optax.sgd(0.1)
  state = state_lib.create({'w': jnp.array(1.0)}, optimizer, KEY)
  _, metrics = train_step(state, {'x': jnp.array([1.0, 7.0, 0.0, 2.0])}, objective=objective,
                          optimizer=optimizer, microbatches=microbatches)
  assert metrics['x'] == 2.5 and metrics['x_max'] == 7


def test_a_step_by_hand():
  """Plain gradient descent on mean of (w - x)^2 over weighted elements."""
  def objective(weights, data, key):
    error = data['x'] * (weights['w'] - data['y']) ** 2
    return language.Terms(error.sum(), data['x'].sum(), {'loss': (error.sum(), data['x'].sum())})
  optimizer = optax.sgd(0.1)
  state = state_lib.create({'w': jnp.array(1.0)}, optimizer, KEY)
  data = {'x': jnp.array([1.0, 3.0]), 'y': jnp.array([0.0, 3.0])}
  state, metrics = train_step(state, data, objective=objective, optimizer=optimizer)
  # mean loss = (1*1 + 3*4) / 4; gradient = (1*2*1 + 3*2*(-2)) / 4 = -2.5
  np.testing.assert_allclose(metrics['loss'], 13 / 4)
  np.testing.assert_allclose(metrics['grad_norm'], 2.5)
  np.testing.assert_allclose(state.params['w'], 1.25)
  assert state.step == 1


def test_an_update_that_is_not_finite_is_left_out_and_counted():
  def objective(weights, data, key):
    loss = weights['w'] * data['x'].sum()
    return language.Terms(loss, jnp.float32(1), {'loss': (loss, jnp.float32(1))})
  optimizer = optax.adam(0.1)
  state = state_lib.create({'w': jnp.array(1.0)}, optimizer, KEY)
  run = jax.jit(functools.partial(train_step, objective=objective, optimizer=optimizer))
  good, bad = {'x': jnp.ones(1)}, {'x': jnp.full(1, jnp.nan)}
  once, _ = run(state, good)
  after, metrics = run(*run(once, bad)[:1], bad)
  assert (metrics['skipped'], metrics['streak'], after.step) == (2, 2, 3)
  jax.tree.map(np.testing.assert_array_equal, (once.params, once.opt_state),
               (after.params, after.opt_state))
  healed, metrics = run(after, good)
  assert metrics['streak'] == 0 and metrics['skipped'] == 2 and healed.params['w'] < 1


def test_momentum_moves_nothing_where_a_batch_teaches_nothing():
  """Such as one of expert iteration without a right answer."""
  def objective(weights, data, key):
    loss = (weights['w'] * data['weight']).sum()
    return language.Terms(loss, data['weight'].sum(), {'loss': (loss, data['weight'].sum())})
  optimizer = optax.adam(0.1)
  run = jax.jit(functools.partial(train_step, objective=objective, optimizer=optimizer))
  once, _ = run(state_lib.create({'w': jnp.array(1.0)}, optimizer, KEY), {'weight': jnp.ones(2)})
  after, metrics = run(once, {'weight': jnp.zeros(2)})
  assert once.params['w'] < 1 and (metrics['skipped'], metrics['streak'], after.step) == (0, 0, 2)
  jax.tree.map(np.testing.assert_array_equal, (once.params, once.opt_state),
               (after.params, after.opt_state))


@pytest.mark.parametrize('scan', (pytest.param(False, marks=pytest.mark.slow), True))
def test_muon_takes_the_matrices_of_the_blocks_and_nothing_else(scan):
  """The trap: by number of dimensions, stacked norms look like matrices, stacked kernels do not."""
  config = ModelConfig(depth=2 if scan else 1, width=32, heads=4, vocabulary=64, scan=scan,
                       tied=False).resolve()
  tree = transformer.init(config, KEY)
  chosen = jax.tree_util.tree_leaves_with_path(
      optim.muon_dimensions(tree), is_leaf=lambda leaf: leaf is None or hasattr(leaf, 'reduction_axis'))
  for path, dimensions in chosen:
    assert (dimensions is not None) == (path[-1].key == 'kernel'), path
  optimizer = optim.make(optim.OptimConfig('muon', weight_decay=0.0, clip=0.0), 0.01, 10)
  gradients = jax.tree.map(lambda leaf: jax.random.normal(KEY, leaf.shape), tree)
  updates, _ = jax.jit(optimizer.update)(gradients, optimizer.init(tree), tree)
  block = updates['layers' if scan else 'layer_0']['attention']['query']['kernel']
  block = block[0] if scan else block
  singular = np.linalg.svd(np.asarray(block), compute_uv=False)
  assert singular.max() / singular.min() < 4  # orthogonalised: all directions alike
  # and scaled so that the root mean square is near 0.2 x the first learning rate
  rate = 0.01  # one warmup step
  assert 0.1 < np.sqrt(np.mean(np.square(block))) / rate < 0.3
  head = np.asarray(updates['head'])
  np.testing.assert_allclose(np.abs(head), 1.474 * rate, rtol=1e-3)  # Nesterov Adam: all alike


def test_weight_decay_spares_norms_and_biases():
  config = ModelConfig(family='gpt2', depth=1, width=32, vocabulary=64, scan=True).resolve()
  mask = optim.decayed(transformer.init(config, KEY))
  for path, value in jax.tree_util.tree_leaves_with_path(mask):
    assert value == (path[-1].key in ('kernel', 'embedding', 'positions')), path


@pytest.mark.parametrize('name', ['adamw', 'muon'])
def test_a_first_moment_in_bfloat16_moves_almost_alike(name):
  tree = {'kernel': jax.random.normal(KEY, (8, 16)), 'bias': jnp.ones(16)}
  def moved(dtype):
    optimizer = optim.make(optim.OptimConfig(name, dtype=dtype), 0.01, 10)
    now, state = tree, optimizer.init(tree)
    for step in range(5):
      gradients = jax.tree.map(
          lambda leaf: jax.random.normal(jax.random.key(step), leaf.shape), now)
      updates, state = optimizer.update(gradients, state, now)
      now = optax.apply_updates(now, updates)
    return jax.tree.map(jnp.subtract, now, tree), state
  (ours, state), (exact, full) = moved('bfloat16'), moved('float32')
  size = lambda state: sum(leaf.nbytes for leaf in jax.tree.leaves(state) if leaf.ndim)
  assert size(full) - size(state) == 2 * 144  # bytes of a number x parameters
  for one, other in zip(*map(jax.tree.leaves, (ours, exact))):
    assert one.dtype == jnp.float32 and not np.array_equal(one, other)
    assert np.linalg.norm(one - other) < 0.02 * np.linalg.norm(other)


@pytest.mark.parametrize('name', ['adamw', 'muon'])
def test_embeddings_decay_under_both_optimizers(name):
  """Without a gradient what is decayed shrinks by rate x decay, and nothing else moves."""
  config = OptimConfig(name=name, weight_decay=0.5, schedule='constant', clip=0.0)
  held = {'embedding': jnp.ones((8, 4)), 'mlp': {'kernel': jnp.ones((4, 4)), 'bias': jnp.ones(4)}}
  optimizer = optim.make(config, 0.1, 1)
  updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, held), optimizer.init(held), held)
  np.testing.assert_allclose(updates['embedding'], -0.05, rtol=1e-5)
  np.testing.assert_allclose(updates['mlp']['kernel'], -0.05, rtol=1e-5)
  np.testing.assert_allclose(updates['mlp']['bias'], 0)


@pytest.mark.parametrize('wrong', [dict(clip=-1.0), dict(weight_decay=-0.1), dict(beta1=1.0),
                                   dict(beta2=-0.1)])
def test_optimizers_that_cannot_work_are_refused(wrong):
  name, value = next(iter(wrong.items()))
  with pytest.raises(InputError, match=f'--optim.{name}={value}'):
    OptimConfig(**wrong)


@pytest.mark.parametrize('name', ['eval_every', 'eval_batches', 'sample_every', 'save_every', 'seed'])
def test_negative_counts_are_refused(name):
  with pytest.raises(InputError, match=f'--fit.{name}=-1 is negative'):
    loop.FitConfig(**{name: -1})


def test_schedules_at_their_corners():
  make = lambda name: optim.schedule(optim.OptimConfig(
      schedule=name, warmup=0.1, decay=0.2, final=0.1), 1.0, 100)
  for name in ('cosine', 'wsd', 'linear', 'constant'):
    rate = make(name)
    np.testing.assert_allclose([rate(0), rate(4), rate(9)], [0.1, 0.5, 1.0], rtol=1e-5)
    np.testing.assert_allclose(rate(100), 1.0 if name == 'constant' else 0.1, rtol=1e-4)
  np.testing.assert_allclose(make('cosine')(55), 0.55, rtol=1e-4)
  np.testing.assert_allclose(make('linear')(55), 0.55, rtol=1e-4)
  np.testing.assert_allclose([make('wsd')(79), make('wsd')(90)], [1.0, 0.55], rtol=1e-4)
  late = optim.schedule(optim.OptimConfig(schedule='wsd', warmup=0.5, decay=0.8), 1.0, 100)
  np.testing.assert_allclose([late(50), late(75), late(100)], [1.0, 0.55, 0.1], rtol=1e-4)
  for rate in (math.nan, math.inf, -1.0):
    with pytest.raises(InputError, match='--optim.learning_rate=.*: give 0 or more'):
      optim.OptimConfig(learning_rate=rate)
  assert abs(optim.default_learning_rate(768) - 6e-4) / 6e-4 < 0.2


def train(mesh_config, devices, steps=3, microbatches=1, name='adamw'):
  """Losses and parameters after a few steps on a mesh."""
  mesh = mesh_lib.make(mesh_config, jax.devices()[:devices])
  optimizer = optim.make(optim.OptimConfig(name), 0.01, 100)
  build = lambda: state_lib.create(params(), optimizer, KEY)
  where = mesh_lib.like_params(jax.eval_shape(build), mesh_lib.tree_sharding(
      mesh, transformer.logical_axes(CONFIG)), mesh)
  state = mesh_lib.born(mesh, build, where)
  with mesh_lib.use(mesh):
    step = jax.jit(functools.partial(train_step, objective=OBJECTIVE, optimizer=optimizer,
                                     microbatches=microbatches), out_shardings=(where, None))
    losses = []
    for index in range(steps):
      rows = jax.tree.map(np.asarray, batch(seed=index))
      state, metrics = step(state, mesh_lib.put(mesh, rows))
      losses.append(float(metrics['loss']))
  return losses, state


one_device = functools.cache(lambda name: train(MeshConfig(), 1, name=name))


@pytest.mark.parametrize('mesh_config, devices, microbatches', [
    pytest.param(MeshConfig(), 2, 2, marks=pytest.mark.slow), pytest.param(MeshConfig(fsdp=2, tensor=2), 4, 1, marks=pytest.mark.slow),
    (MeshConfig(data=2, fsdp=2, tensor=2), 8, 1)])
@pytest.mark.parametrize('name', ['adamw', pytest.param('muon', marks=pytest.mark.slow)])
def test_every_mesh_agrees_with_one_device(mesh_config, devices, microbatches, name):
  losses, state = one_device(name)
  others, other = train(mesh_config, devices, microbatches=microbatches, name=name)
  np.testing.assert_allclose(losses, others, rtol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), state.params, other.params)
  kernel = other.params['layer_0']['mlp']['up']['kernel']
  shard = kernel.addressable_shards[0].data.shape
  assert shard == (32 // mesh_config.fsdp, CONFIG.mlp // mesh_config.tensor)
  moments = [leaf for leaf in jax.tree.leaves(other.opt_state) if leaf.shape == kernel.shape]
  assert moments and all(leaf.sharding == kernel.sharding for leaf in moments)


def test_what_does_not_divide_is_told_what_would():
  mesh = mesh_lib.make(MeshConfig(fsdp=2, tensor=4))
  sizes = config_lib.sharded_sizes(CONFIG)
  with pytest.raises(InputError, match='--model.key_heads=2 does not divide over --mesh.tensor=4'):
    mesh_lib.check(mesh, 8, 1, sizes)
  with pytest.raises(InputError, match='--fit.batch_size=6 .* a multiple of 4, such as 8'):
    mesh_lib.check(mesh, 6, 2, {})
  with pytest.raises(InputError, match='there are 8: choose axes whose product is 8'):
    mesh_lib.make(MeshConfig(fsdp=3))
  with pytest.raises(InputError, match='axes are positive'):
    MeshConfig(tensor=0)


def test_overfits_one_batch():
  optimizer = optim.make(optim.OptimConfig(schedule='constant'), 0.01, 80)
  state = state_lib.create(params(), optimizer, KEY)
  step = jax.jit(functools.partial(train_step, objective=OBJECTIVE, optimizer=optimizer))
  for _ in range(80):
    state, metrics = step(state, batch())
  assert metrics['loss'] < 0.2
