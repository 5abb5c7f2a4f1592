"""Optimizers and schedules: AdamW and Muon over the same tree, one learning rate."""

import dataclasses
import math
from typing import Any, Literal

import jax
import optax
from optax import contrib

from nanollm_jax import InputError


@dataclasses.dataclass(frozen=True)
class OptimConfig:
  """How the parameters move.

  name: adamw, or muon for the matrices inside the blocks with adamw for all else.
  learning_rate: peak; unset means 0.4 / width, which is within 20% of GPT-3's table 2.1.
  schedule: after the warmup: cosine, wsd (hold, then fall linearly), linear, or constant.
  warmup: share of the steps over which the rate rises from zero.
  decay: share of the steps over which wsd falls.
  final: rate at the end, as a share of the peak.
  weight_decay: decoupled decay of matrices and embeddings; never of norms and biases.
  beta1: decay of the first moment.
  beta2: decay of the second moment.
  clip: largest global gradient norm; 0 turns clipping off.
  dtype: of the first moment, or Muon's momentum; bfloat16 takes a quarter off AdamW's state.
  """

  name: Literal['adamw', 'muon'] = 'adamw'
  learning_rate: float | None = None
  schedule: Literal['cosine', 'wsd', 'linear', 'constant'] = 'cosine'
  warmup: float = 0.02
  decay: float = 0.3
  final: float = 0.1
  weight_decay: float = 0.1
  beta1: float = 0.9
  beta2: float = 0.95
  clip: float = 1.0
  dtype: Literal['float32', 'bfloat16'] = 'float32'

  def __post_init__(self):
    if self.learning_rate is not None and not 0 <= self.learning_rate < math.inf:
      raise InputError(f'--optim.learning_rate={self.learning_rate}: give 0 or more.')
    for name in ('warmup', 'decay', 'final'):
      if not 0 <= getattr(self, name) <= 1:
        raise InputError(f'--optim.{name}={getattr(self, name)} is a share: give 0 to 1.')
    for name in ('beta1', 'beta2'):
      if not 0 <= getattr(self, name) < 1:
        raise InputError(f'--optim.{name}={getattr(self, name)}: give 0 or more, and less than 1.')
    for name in ('weight_decay', 'clip'):
      if not 0 <= getattr(self, name) < math.inf:
        raise InputError(f'--optim.{name}={getattr(self, name)}: give 0 or more; 0 turns it off.')


def default_learning_rate(width: int) -> float:
  """0.4 / width: 5.2e-4 at 768 and 2.0e-4 at 2,048 (GPT-3, arXiv:2005.14165: 6e-4, 2e-4)."""
  return 0.4 / width


def schedule(config: OptimConfig, peak: float, steps: int) -> optax.Schedule:
  """The learning rate as a function of the step, 0 to `steps`."""
  warmup = max(1, round(config.warmup * steps))
  after, low = max(1, steps - warmup), config.final * peak
  if config.schedule == 'cosine':
    rest = optax.cosine_decay_schedule(peak, after, alpha=config.final)
  elif config.schedule == 'linear':
    rest = optax.linear_schedule(peak, low, after)
  elif config.schedule == 'wsd':
    fall = min(after, max(1, round(config.decay * steps)))  # what the warmup leaves of it
    rest = optax.join_schedules(
        [optax.constant_schedule(peak), optax.linear_schedule(peak, low, fall)],
        [after - fall])
  else:
    rest = optax.constant_schedule(peak)
  return optax.join_schedules(
      [optax.linear_schedule(peak / warmup, peak, max(1, warmup - 1)), rest], [warmup])


def make(config: OptimConfig, peak: float, steps: int) -> optax.GradientTransformation:
  """The whole optimizer: clipping, then AdamW or Muon under the schedule."""
  rate = schedule(config, peak, steps)
  if config.name == 'adamw':
    update = optax.adamw(rate, config.beta1, config.beta2, mu_dtype=config.dtype,
                         weight_decay=config.weight_decay, mask=decayed)
  else:
    update = optax.chain(
        contrib.muon(rate, muon_weight_dimension_numbers=muon_dimensions, consistent_rms=0.2,
                     mu_dtype=config.dtype, adam_b1=config.beta1, adam_b2=config.beta2),
        optax.add_decayed_weights(lambda step: -config.weight_decay * rate(step), decayed))
  return optax.chain(optax.clip_by_global_norm(config.clip), update) if config.clip else update


def decayed(params: Any) -> Any:
  """True for matrices and embeddings, False for norms and biases, by the leaf's name.

  The number of dimensions cannot tell: a scanned model stacks its norms to [L, D].
  """
  return jax.tree_util.tree_map_with_path(
      lambda path, _: path[-1].key not in ('scale', 'bias'), params)


def muon_dimensions(params: Any) -> Any:
  """Which axes Muon orthogonalises (Jordan 2024): the kernels' last two; None means AdamW.

  Scaled by 0.2 sqrt(max(in, out)), so that AdamW's learning rate fits (arXiv:2502.16982).
  """
  def dimensions(path, leaf):
    if path[-1].key != 'kernel':
      return None
    return contrib.MuonDimensionNumbers(leaf.ndim - 2, leaf.ndim - 1)
  return jax.tree_util.tree_map_with_path(dimensions, params)
