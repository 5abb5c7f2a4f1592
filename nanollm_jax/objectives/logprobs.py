"""Log-probabilities and cross-entropy from hidden states, a chunk of positions at a time.

The logits of a whole batch are never materialised: for 32 rows of 1,024 tokens and 50,257
entries they would be 6.6 GB. Chunks run along time, so a batch sharded over devices stays so.
"""

import functools

import jax
import jax.numpy as jnp

CHUNK = 128  # positions of a row whose logits exist at one time


def logprobs(hidden_BTD: jax.Array, head_VD: jax.Array, targets_BT: jax.Array,
             chunk: int = CHUNK) -> jax.Array:
  """float32 log p(target) [B, T]; differentiable, the logits are recomputed backwards."""

  @jax.checkpoint
  def one_chunk(_, inputs):
    logits_BCV = _logits(inputs[0], head_VD)
    return None, _pick(logits_BCV, inputs[1]) - jax.nn.logsumexp(logits_BCV, axis=-1)

  _, out = jax.lax.scan(one_chunk, None, _chunks((hidden_BTD, targets_BT), chunk))
  return _join(out, hidden_BTD.shape[1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def cross_entropy(hidden_BTD: jax.Array, head_VD: jax.Array, targets_BT: jax.Array,
                  weights_BT: jax.Array, chunk: int = CHUNK) -> tuple[jax.Array, jax.Array]:
  """The sum of -weight x log p(target), and log p(target) itself for metrics.

  The gradient is taken together with the value, chunk by chunk, because the cotangent of a
  logit is known there: weight x (softmax - one-hot). So nothing is computed twice.

  Args:
    hidden_BTD: final hidden states in the compute dtype.
    head_VD: output head.
    targets_BT: int32 ids.
    weights_BT: float32 weights; 0 leaves a position out. No gradient flows to them.
    chunk: positions of a row per chunk.

  Returns:
    float32 scalar, and float32 [B, T] through which no gradient flows.
  """
  _, (total, out) = _cross_entropy_scan(hidden_BTD, head_VD, targets_BT, weights_BT, chunk, False)
  return total, _join(out, hidden_BTD.shape[1])


def _cross_entropy_scan(hidden_BTD, head_VD, targets_BT, weights_BT, chunk, gradients: bool):
  def one_chunk(carry, inputs):
    total, head_gradient_VD = carry
    hidden_BCD, targets_BC, weights_BC = inputs
    logits_BCV = _logits(hidden_BCD, head_VD)
    normaliser_BC = jax.nn.logsumexp(logits_BCV, axis=-1)
    logprob_BC = _pick(logits_BCV, targets_BC) - normaliser_BC
    total -= jnp.sum(weights_BC * logprob_BC)
    if not gradients:
      return (total, head_gradient_VD), logprob_BC
    one_hot_BCV = targets_BC[..., None] == jnp.arange(head_VD.shape[0])
    error_BCV = weights_BC[..., None] * (jnp.exp(logits_BCV - normaliser_BC[..., None]) - one_hot_BCV)
    error_BCV = error_BCV.astype(hidden_BCD.dtype)
    head_gradient_VD += jnp.einsum('BCV,BCD->VD', error_BCV, hidden_BCD,
                                   preferred_element_type=jnp.float32)
    return (total, head_gradient_VD), (logprob_BC, jnp.einsum('BCV,VD->BCD', error_BCV, head_VD))

  start = jnp.zeros(head_VD.shape if gradients else (), jnp.float32)
  (total, head_gradient), outputs = jax.lax.scan(
      one_chunk, (jnp.float32(0), start), _chunks((hidden_BTD, targets_BT, weights_BT), chunk))
  return head_gradient, (total, outputs)


def _forward(hidden_BTD, head_VD, targets_BT, weights_BT, chunk):
  head_gradient_VD, (total, (logprob, hidden_gradient)) = _cross_entropy_scan(
      hidden_BTD, head_VD, targets_BT, weights_BT, chunk, True)
  T = hidden_BTD.shape[1]
  residuals = (_join(hidden_gradient, T), head_gradient_VD.astype(head_VD.dtype))
  return (total, _join(logprob, T)), residuals


def _backward(chunk, residuals, cotangents):
  hidden_gradient_BTD, head_gradient_VD = residuals
  scale = cotangents[0]
  return (hidden_gradient_BTD * scale.astype(hidden_gradient_BTD.dtype),
          head_gradient_VD * scale.astype(head_gradient_VD.dtype), None, None)


cross_entropy.defvjp(_forward, _backward)


def _logits(hidden_BCD, head_VD):
  return jnp.einsum('BCD,VD->BCV', hidden_BCD, head_VD, preferred_element_type=jnp.float32)


def _pick(logits_BCV, targets_BC):
  return jnp.take_along_axis(logits_BCV, targets_BC[..., None], axis=-1)[..., 0]


def _chunks(arrays, chunk: int):
  """Cuts arrays [B, T, ...] to [T/C, B, C, ...]; zeros fill the last chunk (their weight is 0)."""
  def cut(x):
    chunks = -(-x.shape[1] // chunk)
    size = -(-x.shape[1] // chunks)  # even chunks need the least padding
    x = jnp.pad(x, [(0, 0), (0, chunks * size - x.shape[1])] + [(0, 0)] * (x.ndim - 2))
    return jnp.moveaxis(x.reshape(x.shape[0], chunks, size, *x.shape[2:]), 1, 0)
  return jax.tree.map(cut, arrays)


def _join(x, length: int):
  x = jnp.moveaxis(x, 0, 1)
  return x.reshape(x.shape[0], -1, *x.shape[3:])[:, :length]
