"""The key-value cache: an explicit pytree, slot s of a row holds the token at position s."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from nanollm_jax.model.config import ModelConfig


class LayerCache(NamedTuple):
  """Keys and values of one layer."""
  k_BSKH: jax.Array
  v_BSKH: jax.Array


Cache = tuple[LayerCache, ...]


def empty(config: ModelConfig, batch: int, length: int) -> Cache:
  """A cache of zeros for `batch` rows of at most `length` positions, in the compute dtype."""
  shape = (batch, length, config.key_heads, config.head_size)
  zeros = lambda: jnp.zeros(shape, config.dtype)
  return tuple(LayerCache(zeros(), zeros()) for _ in range(config.depth))


def write(cache: LayerCache, k_BTKH: jax.Array, v_BTKH: jax.Array,
          positions_BT: jax.Array) -> LayerCache:
  """Writes T new keys and values of each row at its own positions; what falls outside is dropped.

  Right-padded prompts may write padding after their end: a later token overwrites that slot
  before any query can see it, because a query sees the slots up to its own position only.
  """
  row = jnp.arange(k_BTKH.shape[0])[:, None]
  put = lambda old, new: old.at[row, positions_BT].set(new.astype(old.dtype), mode='drop')
  return LayerCache(put(cache.k_BSKH, k_BTKH), put(cache.v_BSKH, v_BTKH))
