"""Preferences: which of several answers is better, as losses on rewards or on log-probabilities.

Pure functions of arrays. A margin is what the better answer has more than the worse one. A ranking
[B, K] goes from the best answer to the worst; `valid` is False where it is shorter than K, and
what stands there, even NaN, has no effect.
"""

import jax
import jax.numpy as jnp

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
