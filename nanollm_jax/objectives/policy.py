"""The policy objective: a sampled token is made more probable by its advantage, within limits.

One loss with orthogonal switches. Published recipes are settings of them (defaults elsewhere):

  GRPO     aggregation=sequence_mean advantage=mean_std clip_high=0.2 kl=loss_k3   2402.03300
  Dr. GRPO aggregation=constant advantage=mean clip_high=0.2                       2503.20783
  DAPO     aggregation=token_mean advantage=mean_std clip_high=0.28                2503.14476
  GSPO     aggregation=sequence_mean advantage=mean_std ratio=sequence
           clip_low=0.0003 clip_high=0.0004                                        2507.18071
  CISPO    aggregation=token_mean advantage=mean_std cispo clip_high=4             2506.13585

An array [B, T] of a batch belongs to the token at its own place.
"""

import dataclasses
from typing import Any, Callable, Literal

import jax
import jax.numpy as jnp

from nanollm_jax import InputError
from nanollm_jax.objectives import Terms
from nanollm_jax.objectives.language import Apply, Batch, next_token_targets, shift
from nanollm_jax.objectives.logprobs import logprobs_and_entropy

LIMIT = 20.0  # log-ratios are held within +-20, where exp is finite


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
  """How a policy learns from rewards: DAPO's loss with an advantage that is not biased.

  advantage: a reward against its group of G: mean (minus the mean: right but for the factor
    (G-1)/G), rloo (minus the mean of the others: right), mean_std (divided by the group's standard
    deviation: a prompt that is solved one time in ten weighs 1.47 times one solved half the time
    at G = 16), batch_std (divided by the batch's).
  aggregation: what every trained token weighs: token_mean (all the same), sequence_mean (1 /
    length, which favours long wrong answers), constant (1 / the longest completion).
  clip_low: how far below 1 a ratio pi/old still teaches to avoid a token.
  clip_high: how far above 1 it still teaches to repeat one; above clip_low it keeps entropy up.
  ratio: of a token, or of a sequence: the geometric mean of its tokens' ratios.
  cispo: weigh the gradient of log pi by the ratio, at most 1 + clip_high, so that no token is
    left out; clip_low and dual_clip then have no say.
  dual_clip: the largest ratio that weighs a token to avoid, 3 in verl; 0 is no limit.
  tis: the largest weight old/rollout where the batch has rollout_logprobs; 0 leaves weights out.
  kl: hold pi near a reference: none; reward (the rollouts subtract the estimate k1 from the
    reward: right for the sequence as a whole), loss (value k3, gradient of k2: right per token),
    loss_k3 (as GRPO was published: the gradient of the KL divergence the other way round).
  kl_coefficient: what a nat of KL divergence costs.
  entropy: what a nat of entropy earns.
  """

  advantage: Literal['mean', 'rloo', 'mean_std', 'batch_std'] = 'mean'
  aggregation: Literal['token_mean', 'sequence_mean', 'constant'] = 'token_mean'
  clip_low: float = 0.2
  clip_high: float = 0.28
  ratio: Literal['token', 'sequence'] = 'token'
  cispo: bool = False
  dual_clip: float = 0.0
  tis: float = 2.0
  kl: Literal['none', 'reward', 'loss', 'loss_k3'] = 'none'
  kl_coefficient: float = 0.04
  entropy: float = 0.0

  def __post_init__(self):
    for name in ('clip_low', 'clip_high'):
      if getattr(self, name) <= 0:
        raise InputError(f'--policy.{name}={getattr(self, name)} must be positive; a large number '
                         'never clips.')
    for name in ('dual_clip', 'tis', 'kl_coefficient'):
      if getattr(self, name) < 0:
        raise InputError(f'--policy.{name}={getattr(self, name)} is negative.')
    if 0 < self.dual_clip <= 1 + self.clip_high:
      raise InputError(f'--policy.dual_clip={self.dual_clip} must lie above 1 + '
                       f'--policy.clip_high ({1 + self.clip_high}), or be 0 for no limit.')


def advantages(reward_PR: jax.Array, valid_PR: jax.Array, mode: str = 'mean') -> jax.Array:
  """float32 [P, R]: how much better a sample is than its group.

  Args:
    reward_PR: rewards of R samples for each of P prompts.
    valid_PR: bool; False, or a reward that is not a number, is outside of mean and standard
      deviation and has advantage 0.
    mode: see PolicyConfig. Standard deviations are of n - 1 and get 1e-4 added, as in TRL.
  """
  valid_PR = valid_PR & jnp.isfinite(reward_PR)
  n_P1 = jnp.sum(valid_PR, axis=1, keepdims=True)
  reward_PR = jnp.where(valid_PR, reward_PR, 0.0).astype(jnp.float32)
  mean_P1 = jnp.sum(reward_PR, axis=1, keepdims=True) / jnp.maximum(n_P1, 1)
  centred_PR = jnp.where(valid_PR, reward_PR - mean_P1, 0.0)
  if mode == 'mean':
    return centred_PR
  if mode == 'rloo':
    return centred_PR * n_P1 / jnp.maximum(n_P1 - 1, 1)
  if mode == 'mean_std':
    variance_P1 = jnp.sum(centred_PR**2, axis=1, keepdims=True) / jnp.maximum(n_P1 - 1, 1)
    return centred_PR / (jnp.sqrt(variance_P1) + 1e-4)
  n, mean = jnp.sum(n_P1), jnp.sum(reward_PR) / jnp.maximum(jnp.sum(n_P1), 1)
  variance = jnp.sum(jnp.where(valid_PR, reward_PR - mean, 0.0) ** 2) / jnp.maximum(n - 1, 1)
  return centred_PR / (jnp.sqrt(variance) + 1e-4)


def k1(log_ratio: jax.Array) -> jax.Array:
  """log pi/ref of tokens drawn from pi: unbiased; as a loss its gradient is 0 on average."""
  return jnp.clip(log_ratio, -LIMIT, LIMIT)


def k2(log_ratio: jax.Array) -> jax.Array:
  """Half the square: biased, but as a loss its gradient is that of KL(pi, ref) (2506.09477)."""
  return 0.5 * jnp.square(k1(log_ratio))


def k3(log_ratio: jax.Array) -> jax.Array:
  """ref/pi - 1 - log ref/pi: unbiased, never negative; as a loss it follows KL(ref, pi)."""
  return jnp.expm1(-k1(log_ratio)) + k1(log_ratio)


def kl_loss(log_ratio: jax.Array) -> jax.Array:
  """The value of k3 with the gradient of k2: both are right where tokens are drawn from pi."""
  return k2(log_ratio) + jax.lax.stop_gradient(k3(log_ratio) - k2(log_ratio))


def kl_in_reward(reward_B: jax.Array, logprobs_BT: jax.Array, ref_logprobs_BT: jax.Array,
                 mask_BT: jax.Array, coefficient: float) -> jax.Array:
  """float32 [B]: reward - coefficient x the sum of k1 over a row's sampled tokens (mask 1)."""
  kl_BT = jnp.where(mask_BT > 0, k1(logprobs_BT - ref_logprobs_BT), 0.0)
  return reward_B - coefficient * jnp.sum(kl_BT, axis=1)


def adapted(coefficient: float, kl: float, samples: int, target: float = 6.0,
            horizon: int = 10_000) -> float:
  """The next KL coefficient: up where `kl` nats a sample exceed the target (1909.08593, 2.2)."""
  error = min(max(kl / target - 1, -0.2), 0.2)
  return coefficient * (1 + error * min(1.0, samples / horizon))


def objective(apply: Apply, config: PolicyConfig, temperature: float = 1.0,
              budget: int = 1) -> Callable[..., Terms]:
  """The loss of one update on sampled tokens.

  The batch has tokens, positions, segment_ids (1, 2, ... in a row; 0 is padding) and loss_mask
  (1: sampled and trained, the end token too; 0: prompts, what tools said) int32 [B, T]. Per token
  float32 [B, T] it has `advantages`, and may have

    old_logprobs: of the policy when the batch was drawn, recomputed or the sampler's; without
      them it is the policy itself, and ratios are exactly 1.
    rollout_logprobs: the sampler's, where they are not the old ones: for `tis` and the gap.
    ref_logprobs: of the reference policy.

  All log-probabilities are of one temperature. Loss and weight add over rows, microbatches and
  devices; a sequence is in one row, and counts if one of its tokens is trained.

  Args:
    apply: the model, see `objectives`.
    config: the switches.
    temperature: what the sampler divided logits by.
    budget: tokens of the longest completion, for aggregation=constant; 1 adds tokens up.
  """
  def terms(params: Any, batch: Batch, key: jax.Array | None = None) -> Terms:
    targets_BT, mask_BT = next_token_targets(batch)
    out = apply(params, batch['tokens'], batch['positions'], batch['segment_ids'])
    logprob_BT, entropy_BT = logprobs_and_entropy(out.hidden_BTD, out.head_VD, targets_BT,
                                                  temperature=temperature)
    length_BT = _over_sequence(mask_BT, batch['segment_ids'])
    share_BT = mask_BT / jnp.maximum(length_BT, 1)
    loss_BT, watched = _token_loss(config, batch, logprob_BT, entropy_BT, mask_BT, share_BT)
    tokens, sequences = jnp.sum(mask_BT), jnp.round(jnp.sum(share_BT))
    loss = jnp.sum(loss_BT * (share_BT if config.aggregation == 'sequence_mean' else mask_BT))
    weight = {'token_mean': tokens, 'sequence_mean': sequences,
              'constant': sequences * budget}[config.aggregation]
    largest = lambda x_BT: (jnp.max(jnp.abs(x_BT) * mask_BT), jnp.float32(1))
    metrics = {name: largest(x_BT) if name.endswith('_max') else (jnp.sum(x_BT * mask_BT), tokens)
               for name, x_BT in watched.items()}
    return Terms(loss, weight, metrics | {'loss': (loss, weight)})
  return terms


def _token_loss(config, batch, logprob_BT, entropy_BT, mask_BT, share_BT):
  """The loss of every token, and what is watched: name -> [B, T]."""
  def stored(name, otherwise):
    return jnp.where(mask_BT > 0, shift(batch[name]), otherwise) if name in batch else otherwise

  frozen_BT = jax.lax.stop_gradient(logprob_BT)
  advantage_BT, old_BT = stored('advantages', 0.0), stored('old_logprobs', frozen_BT)
  log_ratio_BT = k1(logprob_BT - old_BT)
  if config.ratio == 'sequence':
    log_ratio_BT = _over_sequence(share_BT * log_ratio_BT, batch['segment_ids'])
  ratio_BT = jnp.exp(log_ratio_BT)
  low_BT, high_BT = ratio_BT < 1 - config.clip_low, ratio_BT > 1 + config.clip_high
  if config.cispo:
    weight_BT = jax.lax.stop_gradient(jnp.minimum(ratio_BT, 1 + config.clip_high))
    gain_BT = weight_BT * advantage_BT * logprob_BT
  else:
    clipped_BT = jnp.clip(ratio_BT, 1 - config.clip_low, 1 + config.clip_high)
    free_BT = jnp.minimum(ratio_BT, config.dual_clip) if config.dual_clip else ratio_BT
    gain_BT = jnp.minimum(free_BT * advantage_BT, clipped_BT * advantage_BT)
  watched = {'ratio': ratio_BT, 'ratio_max': ratio_BT,
             'ratio_inverse_max': jnp.exp(-log_ratio_BT),  # 1 / the smallest ratio
             'approx_kl': k3(-log_ratio_BT),
             'clipped_low': low_BT & (advantage_BT < 0) & (not config.cispo),
             'clipped_high': high_BT & (advantage_BT > 0), 'entropy': entropy_BT}
  if 'rollout_logprobs' in batch:
    gap_BT = k1(old_BT - stored('rollout_logprobs', old_BT))
    watched |= {'rollout_gap': jnp.abs(gap_BT), 'rollout_gap_max': gap_BT}
    if config.tis:
      watched['rollout_weight'] = jnp.minimum(jnp.exp(gap_BT), config.tis)
      gain_BT *= watched['rollout_weight']
  loss_BT = -gain_BT - config.entropy * entropy_BT
  if 'ref_logprobs' in batch:
    drift_BT = k1(logprob_BT - stored('ref_logprobs', frozen_BT))
    watched |= {'kl_k1': drift_BT, 'kl_k3': k3(drift_BT)}
    if config.kl.startswith('loss'):
      loss_BT += config.kl_coefficient * (kl_loss if config.kl == 'loss' else k3)(drift_BT)
  elif config.kl.startswith('loss'):
    raise InputError(f'--policy.kl={config.kl} needs log-probabilities of a reference: give one, '
                     'or set --policy.kl=none.')
  return loss_BT, watched


def _over_sequence(x_BT: jax.Array, segment_ids_BT: jax.Array) -> jax.Array:
  """The sum of x over a token's own sequence, at every token [B, T]; rows may pack several."""
  def row(x_T, segment_ids_T):
    return jax.ops.segment_sum(x_T, segment_ids_T, x_T.shape[0] + 1)[segment_ids_T]
  return jax.vmap(row)(x_BT, segment_ids_BT)
