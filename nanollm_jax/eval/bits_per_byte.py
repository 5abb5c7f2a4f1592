"""Loss and bits per byte on held-out batches: comparable across tokenizers."""

import itertools
from typing import Any, Callable, Iterable

import jax


def evaluate(objective: Callable[..., Any], params: Any, batches: Iterable[Any],
             limit: int = 0) -> dict[str, float]:
  """Every metric of an objective over whole batches.

  Args:
    objective: jitted `(params, batch, key) -> Terms`; sums and weights add over batches.
    params: the parameters.
    batches: batches on the devices.
    limit: batches at most; 0 means all.

  Returns:
    name -> sum / weight, such as 'loss' in nats a token and 'bits_per_byte'.
  """
  totals: dict[str, list[float]] = {}
  for index, batch in enumerate(itertools.islice(batches, limit or None)):
    terms = objective(params, batch, jax.random.key(index))
    for name, (total, weight) in jax.device_get(terms.metrics).items():
      sums = totals.setdefault(name, [0.0, 0.0])
      sums[0] += float(total)
      sums[1] += float(weight)
  return {name: total / weight for name, (total, weight) in totals.items() if weight}
