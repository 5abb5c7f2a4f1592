"""Preferences: which of several answers is better, as losses on rewards or on log-probabilities.

Pure functions of arrays. A margin is what the better answer has more than the worse one. A ranking
[B, K] goes from the best answer to the worst; `valid` is False where it is shorter than K, and
what stands there, even NaN, has no effect.
"""

import dataclasses
from typing import Any, Callable, Literal

import jax
import jax.numpy as jnp

from nanollm_jax import InputError
from nanollm_jax.objectives import Terms
from nanollm_jax.objectives.language import Apply, Batch, shift
from nanollm_jax.objectives.logprobs import logprobs

NOTHING = -1e30  # the reward of no answer: exp gives 0; -inf would give gradients of NaN


def bradley_terry(margin: jax.Array) -> jax.Array:
  """-log sigma(r_better - r_worse), elementwise (Bradley & Terry 1952)."""
  return -jax.nn.log_sigmoid(margin)


def all_pairs(reward_BK: jax.Array, valid_BK: jax.Array,
              place_BK: jax.Array | None = None) -> jax.Array:
  """Mean of Bradley-Terry over all pairs of a ranking, as one element (arXiv:2203.02155, eq. 1).

  Args:
    reward_BK: float rewards.
    valid_BK: bool.
    place_BK: int places in any order, the lowest is the best; equal places are a tie, half a win
      for either side. None: 0 .. K-1.

  Returns:
    float32 [B]; 0 for rankings of fewer than two.
  """
  reward_BK = jnp.where(valid_BK, reward_BK.astype(jnp.float32), 0.0)
  if place_BK is None:
    place_BK = jnp.broadcast_to(jnp.arange(reward_BK.shape[1]), reward_BK.shape)
  before_BKK = place_BK[:, None, :] - place_BK[:, :, None]
  win_BKK = jnp.heaviside(before_BKK.astype(jnp.float32), 0.5) * _pairs(valid_BK)
  loss_BKK = bradley_terry(reward_BK[:, :, None] - reward_BK[:, None, :])
  return jnp.sum(win_BKK * loss_BKK, (1, 2)) / jnp.maximum(jnp.sum(win_BKK, (1, 2)), 1)


def centring(reward_BK: jax.Array, valid_BK: jax.Array) -> jax.Array:
  """Mean of (r_i + r_j)^2 over all pairs, float32 [B]: times 0.01 it holds rewards around 0.

  Eisenstein et al., arXiv:2312.09244, section 2; arguments as in `all_pairs`.
  """
  reward_BK = jnp.where(valid_BK, reward_BK.astype(jnp.float32), 0.0)
  sum_BKK = reward_BK[:, :, None] + reward_BK[:, None, :]
  pair_BKK = _pairs(valid_BK)
  return (jnp.sum(pair_BKK * jnp.square(sum_BKK), (1, 2))
          / jnp.maximum(jnp.sum(pair_BKK, (1, 2)), 1))


def _pairs(valid_BK: jax.Array) -> jax.Array:
  K = valid_BK.shape[1]
  return valid_BK[:, :, None] & valid_BK[:, None, :] & ~jnp.eye(K, dtype=bool)


def plackett_luce(reward_BK: jax.Array, valid_BK: jax.Array) -> jax.Array:
  """-log probability of a ranking whose places are drawn one after the other (Plackett 1975).

  Returns float32 [B]; at K = 2 it is `all_pairs`. It knows no ties.
  """
  reward_BK = jnp.where(valid_BK, reward_BK.astype(jnp.float32), NOTHING)
  rest_BK = jax.lax.cumlogsumexp(reward_BK, axis=1, reverse=True)
  return jnp.sum(jnp.where(valid_BK, rest_BK - reward_BK, 0.0), axis=1)


def best_of(reward_BK: jax.Array, valid_BK: jax.Array) -> jax.Array:
  """-log softmax of the first answer among K, float32 [B] (arXiv:1909.08593, eq. 1)."""
  reward_BK = jnp.where(valid_BK, reward_BK.astype(jnp.float32), NOTHING)
  return jax.nn.logsumexp(reward_BK, axis=1) - reward_BK[:, 0]


def dpo(margin: jax.Array, beta: float = 0.1) -> jax.Array:
  """-log sigma(beta margin); the margin is of log pi/ref summed over answers (arXiv:2305.18290)."""
  return bradley_terry(beta * margin)


def ipo(margin: jax.Array, beta: float = 0.1) -> jax.Array:
  """(margin - 1 / (2 beta))^2; the margin is of log pi/ref averaged over tokens (2310.12036)."""
  return jnp.square(margin - 1 / (2 * beta))


def simpo(margin: jax.Array, beta: float = 2.0, gamma: float = 1.0) -> jax.Array:
  """-log sigma(beta margin - gamma); the margin is of mean log pi, no reference (2405.14734)."""
  return bradley_terry(beta * margin - gamma)


@dataclasses.dataclass(frozen=True)
class PreferenceConfig:
  """How a policy learns from rankings without rewards; see `dpo`, `ipo` and `simpo`.

  loss: dpo, ipo or simpo, on every pair of a ranking.
  beta: how hard a difference in log-probability counts; usual are 0.1, and 2 for simpo.
  gamma: the margin that simpo asks for.
  """
  loss: Literal['dpo', 'ipo', 'simpo'] = 'dpo'
  beta: float = 0.1
  gamma: float = 1.0

  def __post_init__(self):
    if self.beta <= 0:
      raise InputError(f'--preference.beta={self.beta} must be positive.')


def completion_logprobs(apply: Apply, params: Any, batch: Batch) -> jax.Array:
  """float32 [B, K]: the log-probability of each completion of a batch, its end among it."""
  B, K, T = batch['tokens'].shape
  tokens_NT = batch['tokens'].reshape(B * K, T)
  out = apply(params, tokens_NT)
  logprob_BKT = logprobs(out.hidden_BTD, out.head_VD, shift(tokens_NT)).reshape(B, K, T)
  next_T = jnp.arange(1, T + 1)
  said_BKT = ((next_T >= batch['starts'][:, None, None])
              & (next_T < batch['lengths'][..., None]))
  return jnp.sum(jnp.where(said_BKT, logprob_BKT, 0.0), axis=-1)


def rankings(apply: Apply, config: PreferenceConfig) -> Callable[..., Terms]:
  """The objective of rankings, the best first: 'tokens' [B, K, T], 'lengths' [B, K], 'starts' [B].

  All but simpo need the reference's 'ref_logprobs' [B, K]. A ranking is one element, as a mean of
  its pairs. Metrics: the share of pairs whose margin is positive, and log-probabilities a token of
  the best and the worst, which may both fall.
  """
  def objective(params: Any, batch: Batch, key: jax.Array | None = None) -> Terms:
    valid_BK = batch['lengths'] > 0
    tokens_BK = jnp.maximum(batch['lengths'] - batch['starts'][:, None], 1)
    logprob_BK = completion_logprobs(apply, params, batch)
    mean_BK = logprob_BK / tokens_BK
    if config.loss == 'simpo':
      score_BK, loss_of = mean_BK, lambda margin: simpo(margin, config.beta, config.gamma)
    else:
      score_BK = logprob_BK - batch['ref_logprobs']
      score_BK, loss_of = ((score_BK, lambda margin: dpo(margin, config.beta))
                           if config.loss == 'dpo' else
                           (score_BK / tokens_BK, lambda margin: ipo(margin, config.beta)))
    pair_BKK = jnp.triu(_pairs(valid_BK))
    margin_BKK = score_BK[:, :, None] - score_BK[:, None, :]
    pairs_B = jnp.sum(pair_BKK, (1, 2))
    loss_B = jnp.sum(pair_BKK * loss_of(margin_BKK), (1, 2)) / jnp.maximum(pairs_B, 1)
    loss, weight, pairs = jnp.sum(loss_B), jnp.sum(pairs_B > 0), jnp.sum(pairs_B)
    last_B = jnp.maximum(jnp.sum(valid_BK, axis=1) - 1, 0)
    worst_B = jnp.take_along_axis(mean_BK, last_B[:, None], axis=1)[:, 0]
    return Terms(loss, weight, {
        'loss': (loss, weight), 'accuracy': (jnp.sum(pair_BKK & (margin_BKK > 0)), pairs),
        'margin': (jnp.sum(pair_BKK * margin_BKK), pairs),
        'logprob_best': (jnp.sum(mean_BK[:, 0] * (pairs_B > 0)), weight),
        'logprob_worst': (jnp.sum(worst_B * (pairs_B > 0)), weight)})
  return objective
