"""Every attention backend against the reference on packed rows: values, gradients, and no leak."""

import dataclasses
import types
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nanollm_jax import InputError, mesh as mesh_lib
from nanollm_jax.model import attention as attention_lib, kernels, transformer
from nanollm_jax.model.attention import attention
from nanollm_jax.model.config import ModelConfig

B, T, N, K, H = 2, 384, 4, 2, 32  # T is three blocks of splash
NAMES = ['xla', *kernels.KERNELS]


def on_gpu() -> bool:
  return jax.default_backend() == 'gpu'


def needs(name: str) -> None:
  if name.startswith('cudnn') and not on_gpu():
    pytest.skip('cuDNN needs a GPU; what it is given is tested below')
  if name == 'cudnn_packed' and kernels.capability() < (9, 0):
    pytest.skip('packed cuDNN needs Hopper')


def packed(rng) -> tuple[list[jax.Array], jax.Array]:
  """q, k, v and segment ids: documents of 100, 1, 59, 64 with padding, and of 300, 84."""
  dtype = jnp.bfloat16 if on_gpu() else jnp.float32
  qkv = [jnp.asarray(rng.normal(size=(B, T, heads, H)), dtype) for heads in (N, K, K)]
  rows = [[1] * 100 + [2] + [3] * 59 + [4] * 64 + [0] * 160, [1] * 300 + [2] * 84]
  return qkv, jnp.asarray(rows, jnp.int32)


def with_gradients(name, qkv, segment_ids_BT, weight_BTNH):
  def total(q, k, v):
    out = attention(q, k, v, segment_ids_BT=segment_ids_BT, backend=name)
    return jnp.sum((out * weight_BTNH).astype(jnp.float32)), out
  gradients, out = jax.jit(jax.grad(total, (0, 1, 2), has_aux=True))(*qkv)
  return [np.asarray(x, np.float32) for x in (out, *gradients)]


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('is_packed', [True, False], ids=['packed', 'whole'])
def test_values_and_gradients_are_those_of_the_reference(name, is_packed):
  needs(name)
  if name == 'cudnn_packed' and not is_packed:
    pytest.skip('packed cuDNN is for packed rows')
  rng = np.random.default_rng(0)
  qkv, segment_ids = packed(rng)
  segment_ids = segment_ids if is_packed else None
  weight = jnp.asarray(rng.normal(size=(B, T, N, H)), qkv[0].dtype)
  with warnings.catch_warnings():
    warnings.simplefilter('error')  # a fallback to the reference would pass
    found = with_gradients(name, qkv, segment_ids, weight)
  expected = with_gradients('xla', [x.astype(jnp.float32) for x in qkv], segment_ids, weight)
  tolerance = 5e-2 if on_gpu() else 1e-5
  for one, other in zip(found, expected):
    np.testing.assert_allclose(one, other, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize('name', NAMES)
def test_documents_of_a_row_do_not_reach_each_other(name):
  needs(name)
  rng = np.random.default_rng(1)
  qkv, segment_ids = packed(rng)
  changed = np.array(segment_ids == 3) & (np.arange(B) == 0)[:, None]  # one document of row 0
  shift = lambda x: x + jnp.asarray(changed[..., None, None] * rng.normal(size=x.shape), x.dtype)
  weight = jnp.ones((B, T, N, H), qkv[0].dtype)
  before = with_gradients(name, qkv, segment_ids, weight)
  after = with_gradients(name, [shift(x) for x in qkv], segment_ids, weight)
  for one, other in zip(before, after):
    np.testing.assert_array_equal(one[~changed], other[~changed])
    assert np.abs(one[changed] - other[changed]).max() > 0.01


def test_the_leak_test_can_see_a_leak():
  rng = np.random.default_rng(1)
  qkv, _ = packed(rng)
  changed = np.arange(T) < 50
  other = [x + changed[:, None, None] for x in qkv]
  weight = jnp.ones((B, T, N, H), qkv[0].dtype)
  before, after = (with_gradients('xla', x, None, weight) for x in (qkv, other))
  assert np.abs(before[0] - after[0])[:, ~changed].max() > 0.01


@pytest.mark.slow
def test_splash_under_a_mesh_equals_one_device():
  config = ModelConfig(vocabulary=64, depth=2, width=128, heads=4, key_heads=2, head_size=32,
                       context=128, scan=True).resolve()
  params = transformer.init(config, jax.random.key(0))
  tokens_BT = jnp.asarray(np.random.default_rng(0).integers(64, size=(4, 128)), jnp.int32)
  segment_ids_BT = jnp.asarray([[1] * 50 + [2] * 78] * 4, jnp.int32)
  def loss(params, name):
    model = transformer.Transformer(dataclasses.replace(config, attention=name))
    out = model.apply({'params': params}, tokens_BT, segment_ids_BT=segment_ids_BT)
    return jnp.sum(out.hidden_BTD.astype(jnp.float32)**2 * jnp.arange(128)[:, None] / 128)
  expected = jax.jit(jax.value_and_grad(loss), static_argnums=1)(params, 'xla')
  mesh = mesh_lib.make(mesh_lib.MeshConfig(fsdp=2, tensor=2))
  with mesh_lib.use(mesh), warnings.catch_warnings():
    warnings.simplefilter('error')
    step = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    found = step(params, 'splash')
    assert 'shard_map' in str(jax.make_jaxpr(loss, static_argnums=1)(params, 'splash'))
  for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
    np.testing.assert_allclose(one, other, atol=2e-3, rtol=1e-4)


def by_offsets(q, k, v, *, q_seqlen, kv_seqlen, q_offsets, kv_offsets, scale, qkv_layout,
               mask_type):
  """What jax documents of its private packed call, in numpy's way; positions outside are zero."""
  assert qkv_layout == 'BTNH' and mask_type == 'padding_causal'
  assert q.shape == k.shape == v.shape  # jax takes the offsets of keys by the query heads
  assert q_offsets.shape == (B, q_seqlen.shape[1] + 1) and kv_seqlen is q_seqlen
  position = jnp.arange(T)
  def row(q_TNH, k_TNH, v_TNH, starts_M, lengths_M):
    inside = (position >= starts_M[:-1, None]) & (position < (starts_M[:-1] + lengths_M)[:, None])
    inside &= (starts_M[:-1] >= 0)[:, None]
    same = jnp.einsum('MT,MS->TS', inside.astype(jnp.float32), inside.astype(jnp.float32)) > 0
    mask = same & (position <= position[:, None])
    scores = jnp.where(mask, jnp.einsum('TNH,SNH->NTS', q_TNH, k_TNH) * scale, -jnp.inf)
    weights = jnp.where(mask, jax.nn.softmax(jnp.where(mask, scores, -1e30)), 0)
    return jnp.einsum('NTS,SNH->TNH', weights, v_TNH)
  return jax.vmap(row)(q, k, v, q_offsets, q_seqlen)


@pytest.fixture
def pretended(monkeypatch):
  """The private packed call, as documented, in place of cuDNN's, on a pretended H100."""
  from jax._src.cudnn import fused_attention_stablehlo as fused
  monkeypatch.setattr(fused, 'dot_product_attention', by_offsets)
  monkeypatch.setattr(fused, 'MaskType', types.SimpleNamespace(PADDING_CAUSAL='padding_causal'))
  return fused


@pytest.mark.slow
def test_packed_cudnn_is_told_the_documents(pretended):
  rng = np.random.default_rng(2)
  qkv, segment_ids = packed(rng)
  weight = jnp.asarray(rng.normal(size=(B, T, N, H)), jnp.float32)
  def total(q, k, v):
    return jnp.sum(kernels.cudnn_packed(q, k, v, segment_ids) * weight)
  expected = with_gradients('xla', qkv, segment_ids, weight)
  np.testing.assert_allclose(kernels.cudnn_packed(*qkv, segment_ids), expected[0], atol=1e-5)
  for one, other in zip(jax.grad(total, (0, 1, 2))(*qkv), expected[1:]):
    np.testing.assert_allclose(one, other, atol=1e-5, rtol=1e-4)


def test_documents_by_hand_and_a_row_with_too_many_is_not_a_number(pretended):
  starts, lengths, fits = kernels.documents(jnp.array([[7, 7, 8, 0], [1, 2, 3, 4]]), 3)
  assert starts.tolist() == [[0, 2, 3], [0, 1, 2]] and lengths.tolist() == [[2, 1, 1], [1, 1, 1]]
  assert fits.tolist() == [True, False]
  qkv, segment_ids = packed(np.random.default_rng(3))
  segment_ids = segment_ids.at[1].set(jnp.arange(T) // 4)
  out = kernels.cudnn_packed(*qkv, segment_ids)
  assert jnp.isfinite(out[0]).all() and jnp.isnan(out[1]).all()


@pytest.mark.parametrize('name', ['cudnn', 'cudnn_packed'])
def test_cudnn_is_lowered_for_a_gpu_that_is_not_here(monkeypatch, name):
  from jax._src.cudnn import fused_attention_stablehlo as fused
  monkeypatch.setattr(fused, 'check_cudnn_version', lambda: 91000)
  monkeypatch.setattr(fused, 'check_compute_capability', lambda _: True)
  qkv, segment_ids = packed(np.random.default_rng(4))
  qkv = [x.astype(jnp.bfloat16) for x in qkv]
  def total(q, k, v):
    return jnp.sum(kernels.KERNELS[name](q, k, v, segment_ids).astype(jnp.float32))
  text = jax.export.export(
      jax.jit(jax.grad(total, (0, 1, 2))), platforms=['cuda'],
      disabled_checks=[jax.export.DisabledSafetyCheck.custom_call(call) for call in (
          '__cudnn$fmhaSoftmax', '__cudnn$fmhaSoftmaxBackward', '__cudnn$fmhaScaleBiasSoftmax',
          '__cudnn$fmhaScaleBiasSoftmaxBackward', 'CustomSPMDPartitioning')])(*qkv).mlir_module()
  assert '__cudnn$fmha' in text and 'Backward' in text


def call(**changes):
  return kernels.Call(**dict(batch=8, length=256, heads=4, key_heads=2, head_size=64,
                             dtype='bfloat16', packed=True) | changes)


@pytest.mark.parametrize('platform, capability, changes, expected', [
    ('cpu', '0', {}, 'xla'), ('tpu', '0', {}, 'splash'), ('tpu', '0', dict(length=200), 'xla'),
    ('gpu', '9.0', {}, 'cudnn_packed'), ('gpu', '8.0', {}, 'cudnn'),
    ('gpu', '9.0', dict(packed=False), 'cudnn'), ('gpu', '9.0', dict(dtype='float32'), 'xla'),
    ('gpu', '9.0', dict(head_size=256), 'cudnn_packed'), ('gpu', '8.0', dict(head_size=256), 'xla'),
    ('gpu', '8.0', dict(length=257), 'xla'), ('gpu', '9.0', dict(head_size=60), 'xla')])
def test_auto_takes_what_the_device_can_run(monkeypatch, platform, capability, changes, expected):
  monkeypatch.setattr(kernels, 'device', lambda: (platform, f'a {platform}'))
  monkeypatch.setattr(kernels, 'capability', lambda: tuple(map(int, capability.split('.'))))
  name, why = attention_lib.choose('auto', call(**changes))
  assert name == expected and why
  assert attention_lib.choose('xla', call(**changes))[0] == 'xla'


@pytest.mark.parametrize('changes, expected', [
    (dict(length=8192, heads=32, key_heads=8, batch=1), 'cudnn'),
    (dict(length=1024, heads=12, key_heads=12, batch=40), 'cudnn_packed'),
    (dict(length=1024, heads=12, key_heads=12, batch=48), 'cudnn')])
def test_packed_cudnn_is_not_for_rows_whose_statistics_fill_the_memory(
    monkeypatch, changes, expected):
  monkeypatch.setattr(kernels, 'device', lambda: ('gpu', 'a gpu'))
  monkeypatch.setattr(kernels, 'capability', lambda: (9, 0))
  assert attention_lib.choose('auto', call(**changes))[0] == expected
  assert ('of statistics' in kernels.why_not('cudnn_packed', call(**changes))) == (
      expected == 'cudnn')
  monkeypatch.setattr(kernels, 'shards', lambda: (8, 4))  # each device has its part
  if changes['batch'] == 48:
    assert attention_lib.choose('auto', call(**changes))[0] == 'cudnn_packed'


@pytest.mark.slow
def test_a_kernel_that_leaks_is_found_out_while_a_program_is_traced(monkeypatch):
  attention_lib.unsound.cache_clear()
  monkeypatch.setitem(kernels.BY_PLATFORM, 'cpu', ('leaks', 'breaks', 'splash'))
  monkeypatch.setitem(kernels.KERNELS, 'leaks', lambda q, k, v, ids: attention(q, k, v))
  monkeypatch.setitem(kernels.KERNELS, 'breaks', lambda *_: 1 / 0)
  checked = kernels.why_not
  monkeypatch.setattr(kernels, 'why_not', lambda name, call: (
      checked(name, call) if name == 'splash' else ''))
  qkv, segment_ids = packed(np.random.default_rng(5))
  with pytest.warns(UserWarning) as caught:
    text = str(jax.make_jaxpr(
        lambda *qkv: attention(*qkv, segment_ids_BT=segment_ids, backend='auto'))(*qkv))
  words = [str(one.message) for one in caught]
  assert any('leaks is not used on cpu: it differs from the reference by' in one for one in words)
  assert any('breaks is not used on cpu: ZeroDivisionError' in one for one in words)
  assert 'splash' in text
  attention_lib.unsound.cache_clear()


def test_what_cannot_run_is_said():
  config = ModelConfig(vocabulary=64, depth=1, width=64, context=128, attention='cudnn').resolve()
  with pytest.raises(InputError, match='--model.attention=cudnn cannot run here .*not on cpu'):
    attention_lib.announce(config, 8)
  splash = dataclasses.replace(config, attention='splash')
  assert attention_lib.announce(splash, 8) == 'attention by splash (as asked)'
  auto = dataclasses.replace(config, attention='auto')
  assert attention_lib.announce(auto, 8) == 'attention by xla (the reference, for cpu)'
  with mesh_lib.use(mesh_lib.make(mesh_lib.MeshConfig())), pytest.raises(
      InputError, match='3 rows, 1 heads and 1 key heads do not divide over 8 x 1 devices'):
    attention_lib.announce(splash, 3)
  with pytest.warns(UserWarning, match='the reference runs in place of splash: 100 positions'):
    jax.eval_shape(lambda x: attention(x, x, x, backend='splash'), jnp.ones((1, 100, 2, 8)))
