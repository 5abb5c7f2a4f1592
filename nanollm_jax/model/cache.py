"""The key-value cache: an explicit pytree, slot s of a row holds the token at position s."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from nanollm_jax.model.config import ModelConfig


class LayerCache(NamedTuple):
  """Keys and values of one layer, each as the product with it wants it."""
  k_BKHS: jax.Array
  v_BKSH: jax.Array


Cache = tuple[LayerCache, ...]


def empty(config: ModelConfig, batch: int, length: int) -> Cache:
  """A cache of zeros for `batch` rows of at most `length` positions, in the compute dtype."""
  zeros = lambda *shape: jnp.zeros((batch, config.key_heads, *shape), config.dtype)
  return tuple(LayerCache(zeros(config.head_size, length), zeros(length, config.head_size))
               for _ in range(config.depth))


def length(cache: Cache) -> int:
  """Positions that a row may have."""
  return cache[0].v_BKSH.shape[2]


def resize(cache: Cache, length: int) -> Cache:
  """The first `length` positions; those that it has not yet are zeros."""
  def fit(leaf, axis):
    leaf = jax.lax.slice_in_dim(leaf, 0, min(length, leaf.shape[axis]), axis=axis)
    return jnp.pad(leaf, [(0, (i == axis) * (length - size)) for i, size in enumerate(leaf.shape)])
  return tuple(LayerCache(fit(layer.k_BKHS, 3), fit(layer.v_BKSH, 2)) for layer in cache)


def insert(cache: Cache, new: Cache, source_B: jax.Array) -> Cache:
  """Row b takes the positions of row source_B[b] of `new`, which has no more; -1: it is left."""
  def put(old, new):
    part = (slice(None), slice(None), slice(new.shape[2]), slice(new.shape[3]))
    taken_B111 = (source_B >= 0)[:, None, None, None]
    return old.at[part].set(jnp.where(taken_B111, new[source_B], old[part]))
  return jax.tree.map(put, cache, new)


def write(cache: LayerCache, k_BTKH: jax.Array, v_BTKH: jax.Array,
          positions_BT: jax.Array) -> LayerCache:
  """Writes T new keys and values of each row at its own positions; what falls outside is dropped.

  Right-padded prompts may write padding after their end: a later token overwrites that slot
  before any query can see it, because a query sees the slots up to its own position only.
  """
  row = jnp.arange(k_BTKH.shape[0])[:, None]
  k_BKHS, v_BKSH = cache
  return LayerCache(
      k_BKHS.at[row, :, :, positions_BT].set(k_BTKH.astype(k_BKHS.dtype), mode='drop'),
      v_BKSH.at[row, :, positions_BT].set(v_BTKH.astype(v_BKSH.dtype), mode='drop'))
