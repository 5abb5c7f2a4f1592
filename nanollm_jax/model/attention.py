"""Attention: within packed rows, for training, and to a cache."""

import jax
import jax.numpy as jnp

QUERY_BLOCK = 64  # queries at a time on the training path; a block never sees keys after its end
MOST_BLOCKS = 8  # longer sequences use longer blocks, so that the program stays small


def attention(q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, *,
              segment_ids_BT: jax.Array | None = None, causal: bool = True) -> jax.Array:
  """Softmax attention (Vaswani et al. 2017, eq. 1), grouped (Ainslie et al. 2023), within rows.

  Args:
    q_BTNH: queries, N heads.
    k_BSKH: keys, K heads, K dividing N.
    v_BSKH: values.
    segment_ids_BT: int32 document of each position; a query sees its own document only.
    causal: False lets every query see its whole row (masked-token training).

  Returns:
    float array [B, T, N, H] in the dtype of q; the softmax is taken in float32.
  """
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


def attention_to_cache(q_BTNH: jax.Array, k_BKSH: jax.Array, v_BKSH: jax.Array,
                       index_BT: jax.Array) -> jax.Array:
  """As `attention`, of the query at [b, t] to the slots 0 .. index_BT[b, t] of a cache."""
  mask_BTS = jnp.arange(k_BKSH.shape[2]) <= index_BT[:, :, None]
  return _attend(q_BTNH, k_BKSH, v_BKSH, mask_BTS, 'BKSH')


def _same_document(segment_ids_BT, start: int, end: int, keys: int) -> jax.Array | None:
  if segment_ids_BT is None:
    return None
  return segment_ids_BT[:, start:end, None] == segment_ids_BT[:, None, :keys]


def _attend(q_BTNH, k, v, mask_BTS, axes: str = 'BSKH') -> jax.Array:
  """`axes` are those of keys and values."""
  B, T, N, H = q_BTNH.shape
  K = k.shape[axes.index('K')]
  q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H) * H**-0.5
  scores_BKGTS = jnp.einsum(f'BTKGH,{axes}->BKGTS', q_BTKGH, k,
                            preferred_element_type=jnp.float32)
  if mask_BTS is not None:
    scores_BKGTS = jnp.where(mask_BTS[:, None, None], scores_BKGTS, jnp.float32(-1e30))
  # Normalised after the product with the values, which is the smaller array: 3 to 6% of a step.
  top_BKGT1 = jax.lax.stop_gradient(jnp.max(scores_BKGTS, axis=-1, keepdims=True))
  weights_BKGTS = jnp.exp(scores_BKGTS - top_BKGT1)
  total_BTKG1 = jnp.moveaxis(jnp.sum(weights_BKGTS, axis=-1, keepdims=True), 3, 1)
  out_BTKGH = jnp.einsum(f'BKGTS,{axes}->BTKGH', weights_BKGTS.astype(v.dtype), v,
                         preferred_element_type=jnp.float32)
  return (out_BTKGH / total_BTKG1).astype(q_BTNH.dtype).reshape(B, T, N, H)
