"""The engine: equal to one-at-a-time full forwards, whatever shares the batch."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nanollm_jax import InputError
from nanollm_jax.model import transformer
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.sample.choose import choose, keep
from nanollm_jax.sample.engine import Engine, Sampling

CONFIG = ModelConfig(depth=2, width=32, heads=4, key_heads=2, vocabulary=64, context=32).resolve()
PARAMS = jax.tree.map(lambda leaf: leaf * 3, transformer.init(CONFIG, jax.random.key(1)))
STOP = [5, 9]
CHOOSE = jax.jit(choose, static_argnums=5)
APPLY = jax.jit(lambda tokens: transformer.Transformer(CONFIG).apply({'params': PARAMS}, tokens))


def one_at_a_time(prompt, sampling):
  """The reference: a full forward over the padded sequence for every token, drawn with choose."""
  ids, logprobs, made = list(prompt), [], []
  while len(made) < sampling.max_tokens and len(ids) < CONFIG.context:
    padded = jnp.asarray([ids + [0] * (CONFIG.context - len(ids))])
    logits = APPLY(padded).logits()[:, len(ids) - 1]
    key = jax.random.fold_in(jax.random.key(sampling.seed), len(made))
    token, logprob = CHOOSE(logits, jnp.array([sampling.temperature]), jnp.array([sampling.top_k]),
                            jnp.array([sampling.top_p]), key[None], True)
    logprobs.append(float(logprob[0]))
    if int(token[0]) in STOP:
      return made, logprobs, True
    made.append(int(token[0]))
    ids.append(made[-1])
  return made, logprobs, False


engine_of = functools.cache(lambda slots: Engine(CONFIG, STOP, slots=slots, chunk=5))


def requests(count):
  rng = np.random.default_rng(0)
  prompts = [list(map(int, rng.integers(0, 64, rng.integers(1, 24)))) for _ in range(count)]
  each = [Sampling(max_tokens=int(rng.integers(1, 24)), temperature=float(rng.choice([0, 0.7, 1.0])),
                   top_k=int(rng.choice([0, 5])), top_p=float(rng.choice([1.0, 0.8])), seed=i)
          for i in range(count)]
  return prompts, each


def test_equals_one_at_a_time_and_compiles_little():
  """48 ragged requests through 8 slots, every kind of sampling mixed."""
  prompts, each = requests(48)
  engine = engine_of(4)
  together = engine.generate(PARAMS, prompts, each)
  assert engine._prefill._cache_size() + engine._decode._cache_size() <= 12
  assert sum(completion.finished for completion in together) > 5
  for prompt, sampling, completion in list(zip(prompts, each, together))[::3]:
    ids, logprobs, finished = one_at_a_time(prompt, sampling)
    assert completion.ids == ids and completion.finished == finished
    np.testing.assert_allclose(completion.logprobs, logprobs, atol=1e-4)


def test_a_sample_depends_on_its_seed_alone():
  prompts, each = requests(6)
  alone = engine_of(1)
  crowd = engine_of(4).generate(PARAMS, prompts, each)
  for prompt, sampling, completion in zip(prompts, each, crowd):
    assert alone.generate(PARAMS, [prompt], sampling)[0].ids == completion.ids
  hot = Sampling(max_tokens=12, temperature=1.0, top_p=0.99)
  made = {tuple(alone.generate(PARAMS, prompts[:1], dataclasses.replace(hot, seed=seed))[0].ids)
          for seed in range(4)}
  assert len(made) == 4


def test_scanned_parameters_and_streaming_give_the_same():
  prompts, _ = requests(2)
  sampling = Sampling(max_tokens=20, temperature=0)
  engine = engine_of(1)
  expected = engine.generate(PARAMS, prompts, sampling)
  scanned = Engine(dataclasses.replace(CONFIG, scan=True), STOP, slots=1, chunk=5)
  assert scanned.generate(transformer.stack(PARAMS), prompts, sampling) == expected
  streamed = list(engine.stream(PARAMS, prompts[0], sampling))
  assert sum(streamed, []) == expected[0].ids and len(streamed) > 1


def test_prompts_that_do_not_fit():
  engine = engine_of(1)
  with pytest.raises(InputError, match='prompt 1 has 32 tokens, but the context holds 1 to 31'):
    engine.generate(PARAMS, [[1], [1] * 32])
  with pytest.raises(InputError, match='prompt 0 has 0 tokens'):
    engine.generate(PARAMS, [[]])
  filled = engine.generate(PARAMS, [[1] * 28], Sampling(max_tokens=50))[0]
  assert len(filled.ids) <= 4
  with pytest.raises(InputError, match='out of range'):
    Sampling(top_p=0)


def test_keep_by_hand():
  logits = jnp.log(jnp.array([[.1, .5, .1, .3]] * 5))
  kept = keep(logits, jnp.array([0, 2, 1, 0, 3]), jnp.array([1.0, 1.0, 1.0, 0.6, 0.85]))
  expected = [[1, 1, 1, 1], [0, 1, 0, 1], [0, 1, 0, 0], [0, 1, 0, 1], [1, 1, 0, 1]]
  np.testing.assert_array_equal(kept, np.array(expected, bool))


def test_draws_follow_the_distribution_and_its_logprob():
  B = 4000
  logits = jnp.broadcast_to(jnp.log(jnp.array([.1, .5, .1, .3])), (B, 4))
  full = lambda value, dtype: jnp.full(B, value, dtype)
  token, logprob = choose(logits, full(2.0, jnp.float32), full(3, jnp.int32), full(1.0, jnp.float32),
                          jax.random.split(jax.random.key(0), B), True)
  weights = np.sqrt([.1, .5, 0, .3])  # temperature 2 takes roots; top-3 drops the second 0.1
  expected = weights / weights.sum()
  shares = np.bincount(token, minlength=4) / B
  np.testing.assert_allclose(shares, expected, atol=4 * 0.5 / np.sqrt(B))
  np.testing.assert_allclose(logprob, np.log(expected[token]), rtol=1e-5)
