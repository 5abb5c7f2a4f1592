"""The reward objective: one score for a completion as a whole, learned from rankings."""

import dataclasses
from typing import Any, Callable, Literal

import jax
import jax.numpy as jnp

from nanollm_jax import InputError
from nanollm_jax.objectives import Terms, preference
from nanollm_jax.objectives.language import Apply, Batch

LOSSES = {loss.__name__: loss for loss in
          (preference.all_pairs, preference.plackett_luce, preference.best_of)}


@dataclasses.dataclass(frozen=True)
class RewardConfig:
  """How rewards are learned from a ranking of K completions, which is one element of the loss.

  loss: all_pairs (InstructGPT: the mean of Bradley-Terry over its pairs), plackett_luce (the
    probability of the whole order) or best_of (that of the first place only).
  centring: weight of the squared sum of a pair's rewards, which holds them around 0; 0.01 in TRL.
  """
  loss: Literal['all_pairs', 'plackett_luce', 'best_of'] = 'all_pairs'
  centring: float = 0.01

  def __post_init__(self):
    if self.centring < 0:
      raise InputError(f'--reward_model.centring={self.centring} is negative.')


def head(width: int, key: jax.Array) -> dict[str, Any]:
  """Fresh parameters of the reward, beside a Transformer's: weights of variance 1 / (D + 1).

  Ziegler et al., arXiv:1909.08593, as told in lm-human-preference-details.
  """
  return {'reward': {'weight': jax.random.normal(key, (width,)) * (width + 1) ** -0.5,
                     'bias': jnp.zeros(())}}


def scores(apply: Apply, params: Any, tokens_BT: jax.Array, lengths_B: jax.Array) -> jax.Array:
  """float32 [B]: the reward is read off the last token's hidden state; what follows is padding."""
  hidden_BTD = apply(params, tokens_BT).hidden_BTD
  last_BD = jnp.take_along_axis(hidden_BTD, (lengths_B - 1)[:, None, None], axis=1)[:, 0]
  weight_D, bias = params['reward']['weight'], params['reward']['bias']
  return jnp.sum(last_BD.astype(jnp.float32) * weight_D, axis=-1) + bias


def ranking(apply: Apply, config: RewardConfig) -> Callable[..., Terms]:
  """The objective of rankings, the best first: 'tokens' [B, K, T] and 'lengths' [B, K], 0 for none.

  Its accuracy is the share of pairs whose better completion has the higher reward.
  """
  loss_of = LOSSES[config.loss]

  def objective(params: Any, batch: Batch, key: jax.Array | None = None) -> Terms:
    B, K, T = batch['tokens'].shape
    valid_BK = batch['lengths'] > 0
    reward_BK = scores(apply, params, batch['tokens'].reshape(B * K, T),
                       batch['lengths'].reshape(B * K)).reshape(B, K)
    loss_B = loss_of(reward_BK, valid_BK)
    loss_B += config.centring * preference.centring(reward_BK, valid_BK)
    weight_B = (jnp.sum(valid_BK, axis=1) > 1).astype(jnp.float32)
    loss, weight = jnp.sum(loss_B * weight_B), jnp.sum(weight_B)
    pair_BKK = valid_BK[:, :, None] & valid_BK[:, None, :] & jnp.triu(jnp.ones((K, K), bool), 1)
    right_BKK = pair_BKK & (reward_BK[:, :, None] > reward_BK[:, None, :])
    return Terms(loss, weight, {'loss': (loss, weight),
                                'accuracy': (jnp.sum(right_BKK), jnp.sum(pair_BKK))})
  return objective
