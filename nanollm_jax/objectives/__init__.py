"""What is minimised: arrays in, a summed loss with its weight and metrics out.

Every objective is a function `(params, batch, key) -> Terms`. It is handed `apply`, so that it
never sees a model: `apply(params, tokens_BT, positions_BT, segment_ids_BT, causal=True)` returns
an object with `hidden_BTD` and `head_VD`.
"""

from typing import NamedTuple

import jax


class Terms(NamedTuple):
  """A loss summed over its elements, their weight, and metrics as (sum, weight) pairs.

  Sums and weights add over microbatches and devices; the step divides once, at the end.
  A metric named `..._max` is (maximum >= 0, 1): its larger one is kept instead of the sum.
  """
  loss: jax.Array
  weight: jax.Array
  metrics: dict[str, tuple[jax.Array, jax.Array]]
