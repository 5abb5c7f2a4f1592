"""The model: families, causality, packing, the cache, layouts, published sizes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nanollm_jax import InputError
from nanollm_jax.model import attention as attention_lib
from nanollm_jax.model import cache, config as config_lib, transformer
from nanollm_jax.model.config import ModelConfig

FAMILIES = ('qwen3', 'llama', 'gpt2')


@functools.cache
def tiny(family='qwen3', **fields):
  config = ModelConfig(family=family, depth=2, width=32, heads=4, key_heads=2, vocabulary=64,
                       context=160, **fields).resolve()
  return config, transformer.init(config, jax.random.key(0))


@functools.partial(jax.jit, static_argnames=('config', 'causal'))
def hidden(config, params, *args, causal=True):
  return transformer.Transformer(config).apply({'params': params}, *args, causal=causal).hidden_BTD


def tokens(rows, length, seed=1):
  return jax.random.randint(jax.random.key(seed), (rows, length), 0, 64)


@pytest.mark.parametrize('family', FAMILIES)
def test_causality_by_gradient(family):
  """No position's output has a gradient to a later input, across query blocks too."""
  config, params = tiny(family)
  ids_BT, length, at = tokens(1, 150), 150, 70

  def output(shift_TD):
    table = params['embedding'][ids_BT[0]] + shift_TD  # one embedding row for each position
    config_T = dataclasses.replace(config, vocabulary=length, tied=True)
    return jnp.sum(jnp.sin(hidden(config_T, params | {'embedding': table},
                                  jnp.arange(length)[None])[0, at]))

  gradient_T = jnp.abs(jax.jit(jax.grad(output))(jnp.zeros((length, config.width)))).sum(-1)
  assert np.all(gradient_T[at + 1:] == 0)
  assert np.all(gradient_T[:at + 1] > 0)


@pytest.mark.parametrize('family', ('gpt2', 'llama'))
def test_gradients_of_frequent_tokens_and_positions_add_up_in_float32(family):
  """Under bfloat16 a token that is 90% of a batch has the gradient that it has in float32."""
  config, params = tiny(family)
  ids_BT = jnp.where(tokens(600, 8) < 58, 3, tokens(600, 8, seed=2))

  @functools.partial(jax.jit, static_argnums=0)
  def gradients(config, params):
    return jax.grad(lambda params: jnp.mean(hidden(config, params, ids_BT)[..., 0].astype(
        jnp.float32)))(params)

  exact = gradients(config, params)
  found = gradients(dataclasses.replace(config, dtype='bfloat16'), params)
  for name in ('embedding', 'positions')[:1 + (family == 'gpt2')]:
    wrong = np.linalg.norm(found[name] - exact[name]) / np.linalg.norm(exact[name])
    assert wrong < .03, (name, wrong)


def test_without_the_mask_everything_sees_everything():
  config, params = tiny()
  a, b = tokens(1, 20), tokens(1, 20).at[0, 15].set(3)
  same = hidden(config, params, a)[0, :15] == hidden(config, params, b)[0, :15]
  assert np.all(same)
  see_all = lambda ids: hidden(config, params, ids, causal=False)[0, :15]
  assert not np.any(np.all(see_all(a) == see_all(b), axis=-1))


@pytest.mark.parametrize('family, scan', [
    ('qwen3', False), ('llama', False), ('gpt2', False), ('qwen3', True)])
def test_packed_equals_unpacked(family, scan):
  """Two documents in a row are as two rows; without the segment mask they are not."""
  config, params = tiny(family)
  if scan:
    config, params = dataclasses.replace(config, scan=True), transformer.stack(params)
  a, b = tokens(1, 90, 1), tokens(1, 60, 2)
  packed = jnp.concatenate([a, b], axis=1)
  segment_ids = jnp.concatenate([jnp.full((1, 90), 1), jnp.full((1, 60), 2)], axis=1)
  positions = jnp.concatenate([jnp.arange(90), jnp.arange(60)])[None]
  together = hidden(config, params, packed, positions, segment_ids)
  np.testing.assert_allclose(together[:, :90], hidden(config, params, a), atol=2e-5)
  np.testing.assert_allclose(together[:, 90:], hidden(config, params, b), atol=2e-5)
  leaking = hidden(config, params, packed, positions)
  assert np.abs(leaking[:, 90:] - together[:, 90:]).max() > 1e-2


@pytest.mark.parametrize('family', FAMILIES)
def test_cached_decode_equals_full_forward(family):
  """Ragged right-padded prefill, then one token at a time, each row at its own position."""
  config, params = tiny(family)
  ids, lengths = tokens(2, 40), np.array([10, 17])
  full = hidden(config, params, ids)
  prompt = jnp.where(jnp.arange(20) < lengths[:, None], ids[:, :20], 63)  # 63: padding, must not leak
  run = jax.jit(lambda ids, positions, cache: transformer.Transformer(config).apply(
      {'params': params}, ids, positions, cache=cache))
  out = run(prompt, jnp.broadcast_to(jnp.arange(20), (2, 20)), cache.empty(config, 2, 48))
  for row, length in enumerate(lengths):
    np.testing.assert_allclose(out.hidden_BTD[row, :length], full[row, :length], atol=2e-5)
  for step in range(20):
    position = lengths + step
    out = run(ids[np.arange(2), position][:, None], position[:, None], out.cache)
    np.testing.assert_allclose(out.hidden_BTD[:, 0], full[np.arange(2), position], atol=2e-5)


@pytest.mark.parametrize('family, remat', [
    ('qwen3', 'none'), pytest.param('qwen3', 'dots', marks=pytest.mark.slow), ('qwen3', 'full'),
    pytest.param('llama', 'none', marks=pytest.mark.slow), pytest.param('gpt2', 'none', marks=pytest.mark.slow)])
def test_scanned_and_recomputed_layers_equal_unrolled(family, remat):
  config, params = tiny(family)
  other = dataclasses.replace(config, scan=True, remat=remat)
  stacked = transformer.stack(params)
  loss = lambda config, params: jnp.sum(jnp.sin(hidden(config, params, tokens(2, 30))))
  value, gradient = jax.jit(jax.value_and_grad(functools.partial(loss, config)))(params)
  value2, gradient2 = jax.jit(jax.value_and_grad(functools.partial(loss, other)))(stacked)
  np.testing.assert_allclose(value, value2, rtol=1e-4)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4, rtol=2e-3),
               gradient, transformer.unstack(gradient2))
  jax.tree.map(np.testing.assert_array_equal, params, transformer.unstack(stacked))
  shapes = lambda tree: jax.tree.map(jnp.shape, tree)
  assert shapes(stacked) == shapes(transformer.init(other, jax.random.key(0)))


def test_attention_equals_a_direct_softmax():
  """Against loops over heads, positions and keys in NumPy, with grouped heads and blocks."""
  rng = np.random.default_rng(0)
  T, N, K, H = 130, 4, 2, 8
  q, k, v = (rng.normal(size=(1, T, heads, H)).astype(np.float32) for heads in (N, K, K))
  segment_ids = np.array([[1] * 50 + [2] * 80])
  got = attention_lib.attention(*map(jnp.asarray, (q, k, v)), segment_ids_BT=jnp.asarray(segment_ids))
  for t in (0, 49, 50, 64, 129):
    for n in range(N):
      visible = [s for s in range(t + 1) if segment_ids[0, s] == segment_ids[0, t]]
      scores = k[0, visible, n // 2] @ q[0, t, n] / np.sqrt(H)
      weights = np.exp(scores - scores.max())
      expected = (weights / weights.sum()) @ v[0, visible, n // 2]
      np.testing.assert_allclose(got[0, t, n], expected, atol=2e-6)


@pytest.mark.parametrize('depth, width, heads, published', [
    (12, 768, 12, 124_439_808), (24, 1024, 16, 354_823_168), (36, 1280, 20, 774_030_080),
    (48, 1600, 25, 1_557_611_200)])
def test_gpt2_has_the_published_number_of_parameters(depth, width, heads, published):
  config = ModelConfig(family='gpt2', depth=depth, width=width, heads=heads, context=1024,
                       vocabulary=50257, scan=True).resolve()
  assert transformer.count(config) == published
  assert config.exportable_as() == ('gpt2', [])


def test_counts_and_flops_by_hand():
  config, params = tiny('qwen3', tied=False)
  # A layer: q 32x32, k 32x16, v 32x16, out 32x32, three MLP matrices 32 x 128; head 64 x 32.
  layer = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * config.mlp
  assert config.mlp == 128  # 8/3 x 32 rounded up to a multiple of 64
  assert config_lib.matmul_parameters(config) == 2 * layer + 64 * 32
  assert config_lib.flops_per_token(config, 10) == 6 * (2 * layer + 64 * 32) + 12 * 2 * 32 * 10
  norms = 2 * (2 * 32 + 2 * 8) + 32  # two a layer, query and key norms, the last one
  assert transformer.count(config) == 2 * layer + 2 * 64 * 32 + norms
  assert transformer.count(config) == sum(leaf.size for leaf in jax.tree.leaves(params))


def test_exportable_as_names_what_is_in_the_way():
  config, _ = tiny('llama')
  assert config.exportable_as() == ('llama', [])
  odd = dataclasses.replace(config, activation='relu2', bias=True)
  assert odd.exportable_as() == (None, ['activation=relu2', 'bias=True'])
  assert dataclasses.replace(tiny('gpt2')[0], norm_eps=1e-6).exportable_as()[0] is None  # key heads


def test_the_dial_and_its_overrides():
  config = ModelConfig(depth=6).resolve(1000)
  assert (config.width, config.heads, config.head_size, config.mlp) == (384, 6, 64, 1024)
  assert ModelConfig(depth=6, width=128, heads=2).resolve(9).head_size == 64
  for fields, flag in [(dict(width=100), '--model.width=100'), (dict(depth=0), '--model.depth=0'),
                       (dict(heads=3, key_heads=2), '--model.heads=3'),
                       (dict(vocabulary=5), '--model.vocabulary=5'),
                       (dict(head_size=3, width=9), '--model.head_size=3')]:
    with pytest.raises(InputError, match=flag):
      ModelConfig(**fields).resolve(10)


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('scan', [False, True])
def test_logical_axes_name_every_axis_of_every_parameter(family, scan):
  """By sizes that all differ: what is called mlp is as large as the MLP, and so on."""
  config = ModelConfig(family=family, depth=3, width=48, heads=4, key_heads=2, head_size=8, mlp=40,
                       vocabulary=64, context=160, scan=scan).resolve()
  sizes = {'layer': {3}, 'width': {48}, 'heads': {4 * 8, 2 * 8}, 'mlp': {40}, 'vocabulary': {64},
           None: {8, 160}}  # the norm of a head; learned positions
  params = jax.eval_shape(lambda: transformer.init(config, jax.random.key(0)))
  axes = transformer.logical_axes(config)
  named = jax.tree_util.tree_leaves_with_path(
      axes, is_leaf=lambda leaf: isinstance(leaf, jax.sharding.PartitionSpec))
  shapes = jax.tree_util.tree_leaves_with_path(params)
  for (path, spec), (where, leaf) in zip(named, shapes, strict=True):
    assert path == where and len(spec) == leaf.ndim, path
    assert all(size in sizes[name] for name, size in zip(spec, leaf.shape)), (path, spec, leaf)
