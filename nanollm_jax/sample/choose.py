"""How the next token is chosen: greedy, temperature, top-k, nucleus; with its log-probability."""

import jax
import jax.numpy as jnp

BLOCK = 64  # tokens of the vocabulary that are drawn among together


def choose(logits_BV: jax.Array, temperature_B: jax.Array, top_k_B: jax.Array, top_p_B: jax.Array,
           keys_B: jax.Array, truncate: bool) -> tuple[jax.Array, jax.Array]:
  """Draws one token a row.

  Args:
    logits_BV: float logits.
    temperature_B: float32; 0 takes the most probable token.
    top_k_B: int32; 0 keeps all tokens.
    top_p_B: float32; the smallest set of tokens with this probability is kept
      (Holtzman et al., arXiv:1904.09751); 1 keeps all.
    keys_B: a random key for each row.
    truncate: False leaves top-k and top-p out of the program (they need a sort).

  Returns:
    int32 tokens [B], and float32 log-probabilities [B] of the distribution that was drawn from:
    after temperature and truncation; for greedy rows, of the untouched distribution.
  """
  logits_BV = logits_BV.astype(jnp.float32)
  greedy_B = temperature_B <= 0
  scaled_BV = logits_BV / jnp.where(greedy_B, 1.0, temperature_B)[:, None]
  if truncate:
    kept_BV = keep(scaled_BV, top_k_B, top_p_B) | greedy_B[:, None]
    scaled_BV = jnp.where(kept_BV, scaled_BV, -jnp.inf)
  top_B = jnp.max(scaled_BV, axis=-1)
  weight_BV = jnp.exp(scaled_BV - top_B[:, None])
  uniform_B2 = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys_B)
  is_top_BV = (scaled_BV == top_B[:, None]).astype(jnp.float32)
  token_B = draw(jnp.where(greedy_B[:, None], is_top_BV, weight_BV),
                 jnp.where(greedy_B[:, None], 0.0, uniform_B2))
  picked_B = jnp.take_along_axis(scaled_BV, token_B[:, None], axis=-1)[:, 0]
  return token_B, picked_B - top_B - jnp.log(jnp.sum(weight_BV, axis=-1))


def draw(weight_BV: jax.Array, uniform_B2: jax.Array) -> jax.Array:
  """int32 tokens [B], drawn in proportion to their weights; 0 for both numbers takes the first.

  First a block of tokens is drawn, then one of its tokens, by the inverse of the cumulated
  weights: two random numbers a row, where Gumbel's way needs one for every token.
  """
  B, V = weight_BV.shape
  weight_BNK = jnp.pad(weight_BV, ((0, 0), (0, -V % BLOCK))).reshape(B, -1, BLOCK)
  block_B = _pick(jnp.sum(weight_BNK, axis=-1), uniform_B2[:, 0])
  token_B = _pick(weight_BNK[jnp.arange(B), block_B], uniform_B2[:, 1])
  return (block_B * BLOCK + token_B).astype(jnp.int32)


def _pick(weight_BN: jax.Array, uniform_B: jax.Array) -> jax.Array:
  sum_BN = jnp.cumsum(weight_BN, axis=-1)
  over_BN = (sum_BN > uniform_B[:, None] * sum_BN[:, -1:]) & (weight_BN > 0)
  return jnp.where(jnp.any(over_BN, axis=-1), jnp.argmax(over_BN, axis=-1),
                   jnp.argmax(weight_BN, axis=-1))  # the sums are rounded


def keep(logits_BV: jax.Array, top_k_B: jax.Array, top_p_B: jax.Array) -> jax.Array:
  """bool [B, V]: the tokens that both top-k and top-p leave; at least the most probable one."""
  order_BV = jnp.argsort(-logits_BV, axis=-1, stable=True)
  rank_BV = jnp.argsort(order_BV, axis=-1)
  probability_BV = jax.nn.softmax(jnp.take_along_axis(logits_BV, order_BV, axis=-1), axis=-1)
  before_BV = jnp.cumsum(probability_BV, axis=-1) - probability_BV  # mass of all better tokens
  nucleus_BV = jnp.take_along_axis(before_BV < top_p_B[:, None], rank_BV, axis=-1)
  wide = jnp.where(top_k_B > 0, top_k_B, logits_BV.shape[-1])
  return (rank_BV < wide[:, None]) & (nucleus_BV | (rank_BV == 0))
