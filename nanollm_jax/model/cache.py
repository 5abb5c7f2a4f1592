"""The key-value cache: an explicit pytree, slot s of a row holds the token at position s."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from nanollm_jax.model.config import ModelConfig


class LayerCache(NamedTuple):
  """Keys and values of one layer; a head's slots lie together, as products over them want it."""
  k_BKSH: jax.Array
  v_BKSH: jax.Array


Cache = tuple[LayerCache, ...]


def empty(config: ModelConfig, batch: int, length: int) -> Cache:
  """A cache of zeros for `batch` rows of at most `length` positions, in the compute dtype."""
  shape = (batch, config.key_heads, length, config.head_size)
  zeros = lambda: jnp.zeros(shape, config.dtype)
  return tuple(LayerCache(zeros(), zeros()) for _ in range(config.depth))


def length(cache: Cache) -> int:
  """Positions that a row may have."""
  return cache[0].k_BKSH.shape[2]


def resize(cache: Cache, length: int) -> Cache:
  """The first `length` positions; those that it has not yet are zeros."""
  grow = lambda leaf: jnp.pad(leaf, ((0, 0), (0, 0), (0, max(0, length - leaf.shape[2])), (0, 0)))
  return jax.tree.map(lambda leaf: grow(leaf[:, :, :length]), cache)


def write(cache: LayerCache, k_BTKH: jax.Array, v_BTKH: jax.Array,
          positions_BT: jax.Array) -> LayerCache:
  """Writes T new keys and values of each row at its own positions; what falls outside is dropped.

  Right-padded prompts may write padding after their end: a later token overwrites that slot
  before any query can see it, because a query sees the slots up to its own position only.
  """
  row = jnp.arange(k_BTKH.shape[0])[:, None]
  put = lambda old, new: old.at[row, :, positions_BT].set(new.astype(old.dtype), mode='drop')
  return LayerCache(put(cache.k_BKSH, k_BTKH), put(cache.v_BKSH, v_BTKH))
