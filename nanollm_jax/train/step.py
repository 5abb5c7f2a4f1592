"""The step: one update for every stage."""

import functools
from typing import Any, Callable

import jax
import jax.numpy as jnp
import optax

from nanollm_jax.train.state import State

Objective = Callable[..., Any]  # (params, batch, key) -> objectives Terms(loss, weight, metrics)


def train_step(state: State, batch: dict[str, jax.Array], *, objective: Objective,
               optimizer: optax.GradientTransformation,
               microbatches: int = 1) -> tuple[State, dict[str, jax.Array]]:
  """One update: gradients added up over microbatches, divided by their global weight.

  An update whose loss or gradient is not finite is left out and counted; so, uncounted, is one of
  a batch without weight, for momentum alone would move the model. The step still counts, so that
  data and keys go on.

  Args:
    state: the state, donated by the caller.
    batch: arrays whose first axis is the global batch.
    objective: returns summed loss, weight, and metrics as (sum, weight); of a metric named
      `..._max` microbatches give the larger, at least 0, instead of the sum.
    optimizer: an optax transformation.
    microbatches: parts of the batch that are run one after another.

  Returns:
    The next state, and float32 scalars: the objective's metrics, grad_norm, skipped, streak.
  """
  key = jax.random.fold_in(state.key, state.step)
  gradients, terms = accumulate(objective, state.params, batch, key, microbatches)
  weight = jnp.where(terms.weight > 0, terms.weight, 1.0)
  gradients = jax.tree.map(lambda g: g / weight, gradients)
  grad_norm = optax.global_norm(gradients)
  finite = jnp.isfinite(grad_norm) & jnp.isfinite(terms.loss)
  updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  learns = finite & (terms.weight > 0)
  keep = functools.partial(jax.tree.map, lambda new, old: jnp.where(learns, new, old))
  missed = 1 - finite.astype(jnp.int32)
  state = State(state.step + 1, keep(params, state.params), keep(opt_state, state.opt_state),
                state.key, state.skipped + missed, (state.streak + 1) * missed)
  metrics = {name: total / jnp.where(count > 0, count, 1.0)
             for name, (total, count) in terms.metrics.items()}
  metrics |= dict(grad_norm=grad_norm, skipped=state.skipped, streak=state.streak)
  return state, metrics


def accumulate(objective: Objective, params: Any, batch: dict[str, jax.Array], key: jax.Array,
               microbatches: int) -> tuple[Any, Any]:
  """Gradients of the summed loss, and the objective's Terms, added up over microbatches."""
  def gradients_of(batch, key):
    def loss(params):
      terms = objective(params, batch, key)
      return terms.loss, terms
    return jax.grad(loss, has_aux=True)(params)

  if microbatches == 1:
    return gradients_of(batch, key)

  def split(x):  # row i goes to microbatch i % M, so each device keeps the rows it has
    return x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1)

  def body(total, inputs):
    part, index = inputs
    return _add(total, gradients_of(part, jax.random.fold_in(key, index))), None

  parts = jax.tree.map(split, batch)
  first = jax.tree.map(lambda x: x[0], parts)
  zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
                       jax.eval_shape(gradients_of, first, key))
  return jax.lax.scan(body, zeros, (parts, jnp.arange(microbatches)))[0]


def _add(total: tuple[Any, Any], part: tuple[Any, Any]) -> tuple[Any, Any]:
  """Sums gradients and terms; of a metric named `..._max` the larger is kept."""
  gradients, terms = jax.tree.map(jnp.add, total, part)
  largest = {name: jax.tree.map(jnp.maximum, total[1].metrics[name], part[1].metrics[name])
             for name in terms.metrics if name.endswith('_max')}
  return gradients, terms._replace(metrics=terms.metrics | largest)
