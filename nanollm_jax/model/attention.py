"""Attention: within packed rows, for training, and to a cache."""

import concurrent.futures
import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp

from nanollm_jax import InputError
from nanollm_jax.model import kernels

QUERY_BLOCK = 64  # queries at a time on the training path; a block never sees keys after its end
MOST_BLOCKS = 8  # longer sequences use longer blocks, so that the program stays small


def attention(q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, *,
              segment_ids_BT: jax.Array | None = None, causal: bool = True,
              backend: str = 'xla') -> jax.Array:
  """Softmax attention (Vaswani et al. 2017, eq. 1), grouped (Ainslie et al. 2023), within rows.

  Args:
    q_BTNH: queries, N heads.
    k_BSKH: keys, K heads, K dividing N.
    v_BSKH: values.
    segment_ids_BT: int32 document of each position; a query sees its own document only.
    causal: False lets every query see its whole row (masked-token training).
    backend: xla, which is the reference, or auto or one of `kernels.KERNELS`: where that cannot
      take the call, the reference runs. Kernels take a document's positions to lie together.

  Returns:
    float array [B, T, N, H] in the dtype of q; the softmax is taken in float32.
  """
  if backend != 'xla' and causal:
    B, T, N, H = q_BTNH.shape
    name, why = choose(backend, kernels.Call(
        B, T, N, k_BSKH.shape[2], H, str(q_BTNH.dtype), segment_ids_BT is not None))
    if name != 'xla':
      kernel = kernels.per_device(kernels.KERNELS[name])
      return kernel(q_BTNH, k_BSKH, v_BSKH, segment_ids_BT)
    if backend != 'auto':
      warnings.warn(f'attention: the reference runs in place of {why}', stacklevel=2)
  T, S = q_BTNH.shape[1], k_BSKH.shape[1]
  if not causal:
    return _attend(q_BTNH, k_BSKH, v_BSKH, _same_document(segment_ids_BT, 0, T, S))
  block = max(QUERY_BLOCK, -(-T // MOST_BLOCKS))
  outputs = []
  for start in range(0, T, block):
    end = min(start + block, T)
    mask_BTS = (jnp.arange(end) <= jnp.arange(start, end)[:, None])[None]
    same_BTS = _same_document(segment_ids_BT, start, end, end)
    mask_BTS = mask_BTS if same_BTS is None else mask_BTS & same_BTS
    outputs.append(_attend(q_BTNH[:, start:end], k_BSKH[:, :end], v_BSKH[:, :end], mask_BTS))
  return outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=1)


def announce(config: Any, rows: int, length: int = 0, packed: bool = True) -> str:
  """What runs attention over `rows` rows of a resolved ModelConfig on the current mesh.

  By default they are as long as the context, and packed.

  Raises InputError where that is not what --model.attention asks for.
  """
  name, why = choose(config.attention, kernels.Call(
      rows, length or config.context, config.heads, config.key_heads, config.head_size,
      config.dtype, packed))
  if config.attention not in ('auto', name):
    raise InputError(f'--model.attention={config.attention} cannot run here ({why}): leave it at '
                     'auto, or give xla, which runs everywhere.')
  return f'attention by {name} ({why})'


def choose(wanted: str, call: kernels.Call) -> tuple[str, str]:
  """The backend that runs, and why: `wanted`, or what auto finds; xla where nothing else can.

  What auto finds must first agree with the reference on this device, in values and gradients of
  packed rows; a kernel that does not is left out with a warning.
  """
  if wanted == 'xla':
    return 'xla', 'as asked'
  platform, kind = kernels.device()
  names = kernels.BY_PLATFORM.get(platform, ()) if wanted == 'auto' else (wanted,)
  reasons = []
  for name in names:
    reason = kernels.why_not(name, call)
    if not reason and wanted == 'auto' and platform == jax.default_backend():
      if reason := unsound(name, call.head_size, call.dtype):
        warnings.warn(f'attention: {name} is not used on {kind}: {reason}', stacklevel=2)
    if not reason:
      return name, 'as asked' if wanted == name else f'best for {kind}'
    reasons.append(f'{name}: {reason}')
  return 'xla', '; '.join(reasons) or f'the reference, for {kind}'


@functools.cache
def unsound(name: str, head_size: int, dtype: str) -> str:
  """What is wrong with a kernel on this device; '' where it agrees with the reference.

  Runs in a thread of its own, because it may be asked for while a program is traced.
  """
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    return pool.submit(_compare, kernels.KERNELS[name], head_size, dtype).result()


def _compare(kernel: kernels.Kernel, head_size: int, dtype: str) -> str:
  T, N, K = 256, 4, 2
  keys = jax.random.split(jax.random.key(0), 4)
  q, k, v, weight = (jax.random.normal(key, (2, T, heads, head_size), dtype)
                     for key, heads in zip(keys, (N, K, K, N)))
  segment_ids = jnp.stack([jnp.repeat(jnp.arange(1, 5), T // 4), jnp.searchsorted(
      jnp.array([37, 40, 201]), jnp.arange(T), side='right')]).astype(jnp.int32)
  def run(attend):
    def total(q, k, v):
      out = attend(q, k, v)
      return jnp.sum((out * weight).astype(jnp.float32)), out
    return jax.tree.leaves(jax.jit(jax.grad(total, (0, 1, 2), has_aux=True))(q, k, v))
  try:
    found = run(lambda *qkv: kernel(*qkv, segment_ids))
  except Exception as error:  # of any kind: the private function, cuDNN, the compiler
    return f'{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}'
  expected = run(lambda *qkv: attention(*qkv, segment_ids_BT=segment_ids))
  tolerance = 1e-3 if dtype == 'float32' else 5e-2
  error = jnp.max(jnp.stack([
      jnp.max(jnp.abs(a - b) / (1 + jnp.abs(b))) for a, b in zip(found, expected)]))
  return '' if error <= tolerance else f'it differs from the reference by {error:.2g}'


def attention_to_cache(q_BTNH: jax.Array, k_BKHS: jax.Array, v_BKSH: jax.Array,
                       index_BT: jax.Array) -> jax.Array:
  """As `attention`, of the query at [b, t] to the slots 0 .. index_BT[b, t] of a cache.

  Queries that share keys are the rows of one product, M of them: as two axes, XLA's CPU writes
  the scores transposed, and a step of decoding takes more than twice as long.
  """
  B, T, N, H = q_BTNH.shape
  K, S = k_BKHS.shape[1], k_BKHS.shape[3]
  q_BKTGH = jnp.moveaxis(q_BTNH.reshape(B, T, K, N // K, H), 1, 2) * H**-0.5
  scores_BKMS = jnp.einsum('BKMH,BKHS->BKMS', q_BKTGH.reshape(B, K, -1, H), k_BKHS,
                           preferred_element_type=jnp.float32)
  mask_BMS = jnp.arange(S) <= jnp.repeat(index_BT, N // K, axis=1)[:, :, None]
  scores_BKMS = jnp.where(mask_BMS[:, None], scores_BKMS, jnp.float32(-1e30))
  weights_BKMS = jnp.exp(scores_BKMS - jnp.max(scores_BKMS, axis=-1, keepdims=True))
  out_BKMH = jnp.einsum('BKMS,BKSH->BKMH', weights_BKMS.astype(v_BKSH.dtype), v_BKSH,
                        preferred_element_type=jnp.float32)
  out_BKMH = out_BKMH / jnp.sum(weights_BKMS, axis=-1, keepdims=True)
  out_BTKGH = jnp.moveaxis(out_BKMH.reshape(B, K, T, N // K, H), 2, 1)
  return out_BTKGH.astype(q_BTNH.dtype).reshape(B, T, N, H)


def _same_document(segment_ids_BT, start: int, end: int, keys: int) -> jax.Array | None:
  if segment_ids_BT is None:
    return None
  return segment_ids_BT[:, start:end, None] == segment_ids_BT[:, None, :keys]


def _attend(q_BTNH, k_BSKH, v_BSKH, mask_BTS) -> jax.Array:
  B, T, N, H = q_BTNH.shape
  K = k_BSKH.shape[2]
  q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H) * H**-0.5
  scores_BKGTS = jnp.einsum('BTKGH,BSKH->BKGTS', q_BTKGH, k_BSKH,
                            preferred_element_type=jnp.float32)
  if mask_BTS is not None:
    scores_BKGTS = jnp.where(mask_BTS[:, None, None], scores_BKGTS, jnp.float32(-1e30))
  # Normalised after the product with the values, which is the smaller array: 3 to 6% of a step.
  top_BKGT1 = jax.lax.stop_gradient(jnp.max(scores_BKGTS, axis=-1, keepdims=True))
  weights_BKGTS = jnp.exp(scores_BKGTS - top_BKGT1)
  total_BTKG1 = jnp.moveaxis(jnp.sum(weights_BKGTS, axis=-1, keepdims=True), 3, 1)
  out_BTKGH = jnp.einsum('BKGTS,BSKH->BTKGH', weights_BKGTS.astype(v_BSKH.dtype), v_BSKH,
                         preferred_element_type=jnp.float32)
  return (out_BTKGH / total_BTKG1).astype(q_BTNH.dtype).reshape(B, T, N, H)
