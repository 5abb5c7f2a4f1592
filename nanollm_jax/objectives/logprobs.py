"""Log-probabilities and cross-entropy from hidden states, a chunk of positions at a time.

The logits of a whole batch are never materialised: for 32 rows of 1,024 tokens and 50,257
entries they would be 6.6 GB. Chunks run along time, so a batch sharded over devices stays so;
each share of it has its own copy of the head and its own gradient, added up once at the end.
"""

import functools
import math
from typing import Any, Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

CHUNK = 128  # positions of a row whose logits exist at one time


def logprobs(hidden_BTD: jax.Array, head_VD: jax.Array, targets_BT: jax.Array, chunk: int = CHUNK,
             temperature: float = 1.0) -> jax.Array:
  """float32 log p(target) [B, T] at a temperature; its gradient computes the logits again."""
  return _logprobs_scan(hidden_BTD, head_VD, targets_BT, chunk, temperature, False)[0]


def logprobs_and_entropy(
    hidden_BTD: jax.Array, head_VD: jax.Array, targets_BT: jax.Array, chunk: int = CHUNK,
    temperature: float = 1.0) -> tuple[jax.Array, jax.Array]:
  """`logprobs`, and the entropy float32 [B, T], in nats, of what each target is drawn from."""
  return _logprobs_scan(hidden_BTD, head_VD, targets_BT, chunk, temperature, True)


def _logprobs_scan(hidden_BTD, head_VD, targets_BT, chunk, temperature, entropy: bool):
  one_share = functools.partial(
      _logprobs_of_share, chunk=chunk, temperature=temperature, entropy=entropy)
  return _each_share(one_share, hidden_BTD, head_VD, targets_BT)


def _logprobs_of_share(hidden_BTD, head_VD, targets_BT, chunk, temperature, entropy: bool):
  @jax.checkpoint
  def one_chunk(_, inputs):
    logits_BCV = _logits(inputs[0], head_VD) / temperature
    normaliser_BC = jax.nn.logsumexp(logits_BCV, axis=-1)
    logprob_BC = _pick(logits_BCV, inputs[1]) - normaliser_BC
    if not entropy:
      return None, (logprob_BC,)
    logprob_BCV = logits_BCV - normaliser_BC[..., None]
    return None, (logprob_BC, -jnp.sum(jnp.exp(logprob_BCV) * logprob_BCV, axis=-1))

  _, outputs = jax.lax.scan(one_chunk, None, _chunks((hidden_BTD, targets_BT), chunk))
  return tuple(_join(out, hidden_BTD.shape[1]) for out in outputs)


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
  one_share = lambda *arrays: _cross_entropy(*arrays, chunk)
  total, logprob_BT = _each_share(one_share, hidden_BTD, head_VD, targets_BT, weights_BT)
  return jnp.sum(total), logprob_BT


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _cross_entropy(hidden_BTD, head_VD, targets_BT, weights_BT, chunk):
  _, (total, out) = _cross_entropy_scan(hidden_BTD, head_VD, targets_BT, weights_BT, chunk, False)
  return total, _join(out, hidden_BTD.shape[1])


def _cross_entropy_scan(hidden_BTD, head_VD, targets_BT, weights_BT, chunk, gradients: bool):
  V, D = head_VD.shape

  def one_chunk(carry, inputs):
    total, head_gradient_VD = carry
    hidden_BCD, targets_BC, weights_BC = inputs
    rows = targets_BC.shape
    # Two dimensions: XLA's CPU copies and transposes the operands of products in three.
    hidden_ND = hidden_BCD.reshape(-1, D)
    targets_N, weights_N = targets_BC.ravel(), weights_BC.ravel()
    logits_NV = _logits(hidden_ND, head_VD)
    normaliser_N = jax.nn.logsumexp(logits_NV, axis=-1)
    logprob_N = _pick(logits_NV, targets_N) - normaliser_N
    total -= jnp.sum(weights_N * logprob_N)
    if not gradients:
      return (total, head_gradient_VD), logprob_N.reshape(rows)
    one_hot_NV = targets_N[:, None] == jnp.arange(V)
    error_NV = weights_N[:, None] * (jnp.exp(logits_NV - normaliser_N[:, None]) - one_hot_NV)
    error_NV = error_NV.astype(hidden_ND.dtype)
    head_gradient_VD += jnp.matmul(error_NV.T, hidden_ND, preferred_element_type=jnp.float32)
    hidden_gradient_BCD = (error_NV @ head_VD).reshape(*rows, D)
    return (total, head_gradient_VD), (logprob_N.reshape(rows), hidden_gradient_BCD)

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


_cross_entropy.defvjp(_forward, _backward)


def _each_share(function: Callable[..., Any], hidden_BTD, head_VD, *arrays_BT):
  """Calls `function` on each device's rows, and puts what it returns together along them.

  Under FSDP the head is then gathered once, and its gradient reduced once, not once a chunk.
  """
  shares = math.gcd(hidden_BTD.shape[0], _devices_of_rows())
  if shares == 1:
    return function(hidden_BTD, head_VD, *arrays_BT)
  def split(x):
    rest = [None] * x.ndim
    return nn.with_logical_constraint(x.reshape(shares, -1, *x.shape[1:]), ('batch', *rest))
  head_SVD = nn.with_logical_constraint(
      jnp.broadcast_to(head_VD, (shares, *head_VD.shape)), ('batch', 'vocabulary', None))
  out = jax.vmap(function)(split(hidden_BTD), head_SVD, *map(split, arrays_BT))
  return jax.tree.map(lambda x: x if x.ndim == 1 else x.reshape(-1, *x.shape[2:]), out)


def _devices_of_rows() -> int:
  """Over how many devices of the current mesh the rows of a batch are spread."""
  mesh = jax.sharding.get_abstract_mesh()
  axes = () if mesh.empty else nn.logical_to_mesh_axes(('batch',))[0] or ()
  return math.prod(mesh.shape[axis] for axis in ((axes,) if isinstance(axes, str) else axes))


def _logits(hidden, head_VD):
  return jnp.einsum('...D,VD->...V', hidden, head_VD, preferred_element_type=jnp.float32)


def _pick(logits, targets):
  return jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]


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
