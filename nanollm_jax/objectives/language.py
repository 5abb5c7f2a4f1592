"""Language modelling: the next token, masked tokens (BERT), corrupted spans (T5)."""

from typing import Any, Callable

import jax
import jax.numpy as jnp

from nanollm_jax.objectives import Terms
from nanollm_jax.objectives.logprobs import cross_entropy

Batch = dict[str, jax.Array]
Apply = Callable[..., Any]


def shift(x_BT: jax.Array) -> jax.Array:
  """What belongs to the next token, at the position that predicts it; zero at the end."""
  return jnp.pad(x_BT[:, 1:], ((0, 0), (0, 1)))


def next_token_targets(batch: Batch) -> tuple[jax.Array, jax.Array]:
  """Targets int32 [B, T] and weights float32 [B, T] of a packed batch.

  The target of a position is the next token of its own document; a document's last token and
  padding (segment 0) have none. `batch['loss_mask']` (of the targets' own positions) may narrow.
  """
  tokens_BT, segment_ids_BT = batch['tokens'], batch['segment_ids']
  weights_BT = (shift(segment_ids_BT) == segment_ids_BT) & (segment_ids_BT > 0)
  if 'loss_mask' in batch:
    weights_BT &= shift(batch['loss_mask']) > 0
  return shift(tokens_BT), weights_BT.astype(jnp.float32)


def next_token(apply: Apply, byte_lengths_V: jax.Array,
               end: int | None = None) -> Callable[..., Terms]:
  """Minus the log-probability of each next token, in nats; also in bits per byte.

  Bits per byte leaves out targets without bytes (special tokens), above and below the line.
  With `end` also the mean probability of that token where it is the target: does a turn end?
  """
  def objective(params: Any, batch: Batch, key: jax.Array | None = None) -> Terms:
    targets_BT, weights_BT = next_token_targets(batch)
    out = apply(params, batch['tokens'], batch['positions'], batch['segment_ids'])
    loss, logprob_BT = cross_entropy(out.hidden_BTD, out.head_VD, targets_BT, weights_BT)
    weight = jnp.sum(weights_BT)
    bytes_BT = weights_BT * byte_lengths_V[targets_BT]
    bits = -jnp.sum(weights_BT * logprob_BT * (bytes_BT > 0)) / jnp.log(2.0)
    metrics = {'loss': (loss, weight), 'bits_per_byte': (bits, jnp.sum(bytes_BT))}
    if end is not None:
      ends_BT = weights_BT * (targets_BT == end)
      metrics['end_probability'] = (jnp.sum(ends_BT * jnp.exp(logprob_BT)), jnp.sum(ends_BT))
    return Terms(loss, weight, metrics)
  return objective


def masked_token(apply: Apply, mask_id: int, vocabulary: int,
                 rate: float = 0.15) -> Callable[..., Terms]:
  """Masked-token prediction with all positions visible (BERT, arXiv:1810.04805, section 3.1).

  Of the chosen positions 80% show the mask token, 10% a random token, 10% themselves.
  """
  def objective(params: Any, batch: Batch, key: jax.Array) -> Terms:
    tokens_BT, real_BT = batch['tokens'], batch['segment_ids'] > 0
    choose, kind, other = jax.random.split(key, 3)
    chosen_BT = jax.random.bernoulli(choose, rate, tokens_BT.shape) & real_BT
    kind_BT = jax.random.uniform(kind, tokens_BT.shape)
    random_BT = jax.random.randint(other, tokens_BT.shape, 0, vocabulary)
    shown_BT = jnp.where(kind_BT < 0.8, mask_id, jnp.where(kind_BT < 0.9, random_BT, tokens_BT))
    shown_BT = jnp.where(chosen_BT, shown_BT, tokens_BT)
    out = apply(params, shown_BT, batch['positions'], batch['segment_ids'], causal=False)
    weights_BT = chosen_BT.astype(jnp.float32)
    loss, _ = cross_entropy(out.hidden_BTD, out.head_VD, tokens_BT, weights_BT)
    weight = jnp.sum(weights_BT)
    return Terms(loss, weight, {'loss': (loss, weight)})
  return objective


def corrupt_spans(tokens_T: jax.Array, real_T: jax.Array, key: jax.Array, sentinels: jax.Array,
                  rate: float = 0.15) -> tuple[jax.Array, jax.Array]:
  """Rewrites a row as `text with spans replaced <x0> .. <xn>` + `<x0> span <x1> span ..`.

  A span begins in each of n equal stretches of the row, n = len(sentinels). The row's last 2n
  tokens are left out, so that the result has the length of the row: at least 3n.

  Args:
    real_T: bool, False for padding, of which nothing is to be predicted.

  Returns:
    int32 [T] rewritten tokens and bool [T], true in the second part: what is to be predicted.
  """
  n, T = len(sentinels), tokens_T.shape[0]
  kept = T - 2 * n
  stretch = kept // n
  span = max(1, round(rate * stretch))
  start_n = jnp.arange(n) * stretch + jax.random.randint(key, (n,), 0, stretch - span + 1)
  index_T = jnp.arange(kept)
  hidden_T = jnp.any((index_T >= start_n[:, None]) & (index_T < start_n[:, None] + span), axis=0)
  # Sorting by a key puts every piece in its place: second parts lie behind all first parts.
  order = jnp.concatenate([2 * index_T + 1 + 4 * T * hidden_T, 2 * start_n, 2 * start_n + 4 * T])
  pieces = jnp.concatenate([tokens_T[:kept], sentinels, sentinels])
  real = jnp.concatenate([real_T[:kept], real_T[start_n], real_T[start_n]])
  order, rewritten_T, real_T = jax.lax.sort((order, pieces, real), num_keys=1)
  return rewritten_T, real_T & (order >= 4 * T)


def span_corruption(apply: Apply, sentinels: jax.Array, rate: float = 0.15) -> Callable[..., Terms]:
  """Span corruption (T5, arXiv:1910.10683, section 3.1.4) in decoder-only form.

  The corrupted text is the prefix, the spans are its continuation; the loss is on the latter.
  A row is taken as one document, whatever it packs.
  """
  def objective(params: Any, batch: Batch, key: jax.Array) -> Terms:
    keys_B = jax.random.split(key, batch['tokens'].shape[0])
    corrupt = jax.vmap(lambda *row: corrupt_spans(*row, sentinels, rate))
    tokens_BT, predicted_BT = corrupt(batch['tokens'], batch['segment_ids'] > 0, keys_B)
    out = apply(params, tokens_BT, None, None)
    targets_BT, weights_BT = next_token_targets(
        {'tokens': tokens_BT, 'segment_ids': jnp.ones_like(tokens_BT), 'loss_mask': predicted_BT})
    loss, _ = cross_entropy(out.hidden_BTD, out.head_VD, targets_BT, weights_BT)
    weight = jnp.sum(weights_BT)
    return Terms(loss, weight, {'loss': (loss, weight)})
  return objective
