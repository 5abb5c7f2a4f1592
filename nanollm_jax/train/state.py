"""The train state: everything that a checkpoint must hold to go on exactly, but the data."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class State(NamedTuple):
  """A value; a step takes one and returns the next."""
  step: jax.Array  # int32: updates tried so far
  params: Any  # float32 master parameters
  opt_state: Any
  key: jax.Array  # every random key of step t is folded from this one and t
  skipped: jax.Array  # int32: updates left out because loss or gradient was not finite
  streak: jax.Array  # int32: how many of them in a row, up to now


def create(params: Any, optimizer: optax.GradientTransformation, key: jax.Array) -> State:
  """The state before the first step."""
  zero = lambda: jnp.zeros((), jnp.int32)
  return State(zero(), params, optimizer.init(params), key, zero(), zero())
