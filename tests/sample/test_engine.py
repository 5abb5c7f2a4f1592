"""The engine: equal to one-at-a-time full forwards, whatever shares the batch."""

import collections
import dataclasses
import functools
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nanollm_jax import InputError, mesh as mesh_lib
from nanollm_jax.model import transformer
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.sample.choose import choose, keep
from nanollm_jax.sample import engine as engine_lib
from nanollm_jax.sample.engine import Call, Engine, Sampling

CONFIG = ModelConfig(depth=2, width=32, heads=4, key_heads=2, vocabulary=64, context=32).resolve()
PARAMS = jax.tree.map(lambda leaf: leaf * 3, transformer.init(CONFIG, jax.random.key(1)))
STOP = [5, 9]
CHOOSE = jax.jit(choose, static_argnums=5)
APPLY = jax.jit(lambda tokens: transformer.Transformer(CONFIG).apply({'params': PARAMS}, tokens))


def one_at_a_time(prompt, sampling, calls=()):
  """The reference: a full forward over the padded sequence for every token, drawn with choose."""
  ids, logprobs, made, forced, call, question = list(prompt), [], [], [], None, []
  while len(made) < sampling.max_tokens and len(ids) < CONFIG.context:
    if forced:
      made.append(forced.pop(0))
      ids.append(made[-1])
      logprobs.append(0.0)
      continue
    padded = jnp.asarray([ids + [0] * (CONFIG.context - len(ids))])
    logits = APPLY(padded).logits()[:, len(ids) - 1]
    key = jax.random.fold_in(jax.random.key(sampling.seed), len(made))
    token, logprob = CHOOSE(logits, jnp.array([sampling.temperature]), jnp.array([sampling.top_k]),
                            jnp.array([sampling.top_p]), key[None], True)
    logprobs.append(float(logprob[0]))
    if int(token[0]) in (*STOP, *sampling.stop):
      return made, logprobs, True
    made.append(int(token[0]))
    ids.append(made[-1])
    if call is None:
      call = next((call for call in calls if call.start == made[-1]), None)
    elif made[-1] == call.end:
      forced, call, question = call.run(question), None, []
    else:
      question.append(made[-1])
  return made, logprobs, False


engine_of = functools.cache(lambda slots: Engine(CONFIG, STOP, slots=slots, chunk=5))


def requests(count):
  rng = np.random.default_rng(0)
  prompts = [list(map(int, rng.integers(0, 64, rng.integers(1, 24)))) for _ in range(count)]
  each = [Sampling(max_tokens=int(rng.integers(1, 24)), temperature=float(rng.choice([0, 0.7, 1.0])),
                   top_k=int(rng.choice([0, 5])), top_p=float(rng.choice([1.0, 0.8])), seed=i,
                   stop=(int(rng.integers(64)), int(rng.integers(64)))[:i % 3])
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


def test_a_cache_that_grows_changes_nothing(monkeypatch):
  prompts = [prompt[:3] for prompt in requests(6)[0]]
  each = [Sampling(max_tokens=28, temperature=seed % 2, seed=seed) for seed in range(6)]
  expected = engine_of(4).generate(PARAMS, prompts, each)
  monkeypatch.setattr(engine_lib, 'SMALLEST_CACHE', 16)
  engine = Engine(CONFIG, STOP, slots=4, chunk=5)
  for one, other in zip(engine.generate(PARAMS, prompts, each), expected):
    assert one.ids == other.ids and one.finished == other.finished
    np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)
  assert max(len(one.ids) for one in expected) == 28
  assert engine._resize._cache_size() == 2  # 16, 24, 32


def test_prompts_are_prefilled_in_parts_that_fit_memory(monkeypatch):
  """Different prompts count, by the longest of them; the same one over is prefilled once."""
  prompts = [[seed % 64] * 9 for seed in range(6)] + [[7] * 12] * 4
  each = [Sampling(max_tokens=3, seed=seed) for seed in range(10)]
  expected = engine_of(10).generate(PARAMS, prompts, each)
  monkeypatch.setattr(engine_lib, 'MOST_PREFILLED', 30)
  engine, seen = Engine(CONFIG, STOP, slots=10, chunk=5, lanes=1), []
  prefill = engine._prefill
  engine._prefill = lambda *args, **named: (seen.append(args[2].shape[0]), prefill(*args, **named))[1]
  assert [one.ids for one in engine.generate(PARAMS, prompts, each)] == [
      one.ids for one in expected]
  assert seen == [4, 4, 1]  # 3, 3 and 1, as powers of two


def test_the_last_rows_move_together_and_change_nothing(monkeypatch):
  """Rows of unequal length, of which some wait for tools while the slots are halved."""
  plain = engine_of(8).generate(PARAMS, PROMPTS, HOT)
  calls = tools(plain, [])
  expected = engine_of(8).generate(PARAMS, PROMPTS, HOT, calls)
  monkeypatch.setattr(engine_lib, 'NARROWEST_LANE', 2)
  engine, states = Engine(CONFIG, STOP, slots=8, chunk=5), []
  decode = engine._decode
  engine._decode = lambda *args, **named: (states.append(args[1]), decode(*args, **named))[1]
  made = engine.generate(PARAMS, PROMPTS, HOT, calls)
  assert [(one.ids, one.sampled, one.finished) for one in made] == [
      (one.ids, one.sampled, one.finished) for one in expected]
  for one, other in zip(made, expected):
    np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)
  widths = [state.left_B.size for state in states]
  assert widths == sorted(widths, reverse=True) and set(widths) == {8, 4, 2}
  with mesh_lib.use(mesh_lib.make(mesh_lib.MeshConfig(data=1), jax.devices()[:1])):
    free = engine._empty(length=64)
    assert [engine._narrowed(free, {})[0].left_B.size for _ in range(2)] == [2, 2]


@pytest.mark.slow
def test_slots_that_are_halved_compile_little():
  prompts, each = requests(48)
  engine = Engine(CONFIG, STOP, slots=16, chunk=5)
  engine.generate(PARAMS, prompts, each)
  assert engine._prefill._cache_size() + engine._decode._cache_size() <= 12


def test_lanes_share_the_work_and_change_nothing():
  """Threads that share requests, tools and programs; left early, they stop."""
  plain = engine_of(4).generate(PARAMS, PROMPTS, HOT)
  log, calls = [], tools(plain, [])
  expected = engine_of(4).generate(PARAMS, PROMPTS, HOT, calls)
  engine, lane, threads = Engine(CONFIG, STOP, slots=8, chunk=5, lanes=2), Engine._lane, set()
  def seen(*args):
    for event in lane(engine, *args):
      threads.add(threading.current_thread())
      log.append(event)
      yield event
  engine._lane = seen
  made = engine.generate(PARAMS, PROMPTS, HOT, calls)
  assert [one.ids for one in made] == [one.ids for one in expected] and len(threads) == 2
  assert engine._decode._cache_size() <= 2  # one for each length of the cache
  whole = len(log)
  log.clear()
  events = engine.completed(PARAMS, PROMPTS, HOT, calls)
  next(events)
  events.close()
  assert not any(thread.is_alive() for thread in threads) and len(log) < whole
  engine.generate(PARAMS, PROMPTS[:4], HOT[:4])
  assert threading.current_thread() in threads  # what fits into one lane needs no thread
  broken = tuple(call._replace(run=lambda question: 1 / 0) for call in calls)
  with pytest.raises(ZeroDivisionError):
    engine.generate(PARAMS, PROMPTS, HOT, broken)


def test_over_a_mesh_rows_are_divided_and_samples_the_same():
  prompts, each = requests(5)
  expected = engine_of(4).generate(PARAMS, prompts, each)
  mesh = mesh_lib.make(mesh_lib.MeshConfig(data=2, fsdp=2, tensor=2))
  params = jax.device_put(PARAMS, mesh_lib.tree_sharding(mesh, transformer.logical_axes(CONFIG)))
  engine, states = Engine(CONFIG, STOP, slots=4, chunk=5), []
  decode = engine._decode
  engine._decode = lambda *args, **named: (states.append(args[1]), decode(*args, **named))[1]
  with mesh_lib.use(mesh):
    made = engine.generate(params, prompts, each)
  assert [one.ids for one in made] == [one.ids for one in expected]
  for leaf in jax.tree.leaves([state.cache for state in states]):
    assert leaf.sharding.shard_shape(leaf.shape) == (1, 1, *leaf.shape[2:])
  assert decode._cache_size() == 1  # the state lies from the first as it does later


@pytest.mark.slow
def test_a_sample_depends_on_its_seed_alone():
  prompts, each = requests(6)
  alone = engine_of(1)
  crowd = engine_of(4).generate(PARAMS, prompts, each)
  for prompt, sampling, completion in zip(prompts, each, crowd):
    assert alone.generate(PARAMS, [prompt], sampling)[0].ids == completion.ids
  hot = Sampling(max_tokens=12, temperature=2.0, top_p=0.99)
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


PROMPTS = [[20, 3, 7], [30, 4], [1, 2, 3, 20], [8, 30, 8], [11, 12], [13]] * 7
HOT = [Sampling(max_tokens=26, temperature=(0.9, 1.3, 2.0)[seed % 3], seed=seed)
       for seed in range(len(PROMPTS))]


def tools(plain, log):
  """Two tools between marks that the random model likes, which answer the call's length."""
  common = collections.Counter(token for made in plain for token in made.ids).most_common(4)
  start, end, other_start, other_end = (token for token, _ in common)
  def run(mark, question):
    log.append((mark, list(question)))
    return [mark, len(question) % 60, 5, mark + 1]  # 5 is a stop token: forced, it stops nothing
  return tuple(Call(*ends, functools.partial(run, mark), [mark, 63, mark + 1])
               for *ends, mark in ((start, end, 40), (other_start, other_end, 50)))


def test_rows_with_tools_and_plain_rows_equal_one_at_a_time():
  """Rows are in different states at the same time, and each equals itself alone."""
  plain, log = engine_of(4).generate(PARAMS, PROMPTS, HOT), []
  calls = tools(plain, log)
  together = engine_of(4).generate(PARAMS, PROMPTS, HOT, calls)
  assert len(log) > 10 and {mark for mark, _ in log} == {40, 50}
  untouched = forced = 0
  for prompt, sampling, completion in zip(PROMPTS, HOT, together):
    ids, logprobs, finished = one_at_a_time(prompt, sampling, calls)
    assert (completion.ids, completion.finished) == (ids, finished)
    np.testing.assert_allclose(completion.logprobs, logprobs, atol=1e-4)
    assert len(completion.sampled) == len(ids)
    assert not any(logprob for logprob, sampled in zip(completion.logprobs, completion.sampled)
                   if not sampled)
    forced += completion.sampled.count(False)
    untouched += all(completion.sampled)
  assert untouched > 3 and forced > 50
  silent = tuple(call._replace(run=lambda question: []) for call in calls)
  quiet = engine_of(4).generate(PARAMS, PROMPTS, HOT, silent)
  assert [made.ids for made in quiet] == [made.ids for made in plain]


def test_calls_too_long_or_too_many_are_answered_with_an_error(monkeypatch):
  plain = engine_of(4).generate(PARAMS, PROMPTS, HOT)
  calls = tools(plain, [])
  monkeypatch.setattr(engine_lib, 'LONGEST_CALL', 2)
  endless = tuple(call._replace(end=64) for call in calls)  # an end that is never sampled
  cut = 0
  for made in engine_of(4).generate(PARAMS, PROMPTS, HOT, endless):
    for at in range(1, len(made.ids) - 4):
      if made.sampled[at - 1] and not made.sampled[at]:
        assert made.ids[at:at + 4] in ([64, 40, 63, 41], [64, 50, 63, 51])
        cut += 1
  assert cut
  monkeypatch.setattr(engine_lib, 'LONGEST_CALL', 128)
  monkeypatch.setattr(engine_lib, 'MOST_CALLS', 0)
  refused = engine_of(4).generate(PARAMS, PROMPTS, HOT, calls)
  forced = [[token for token, sampled in zip(made.ids, made.sampled) if not sampled]
            for made in refused]
  assert any(forced) and all(set(ids) <= {40, 63, 41, 50, 51} for ids in forced)


def test_samples_of_one_prompt_share_its_prefill():
  prompt = list(range(10, 22))
  engine = Engine(CONFIG, STOP, slots=4, chunk=5)
  seen, prefill = [], engine._prefill
  engine._prefill = lambda params, state, tokens, *rest, **named: (
      seen.append(tokens.shape), prefill(params, state, tokens, *rest, **named))[1]
  each = [Sampling(max_tokens=8, temperature=2.0, seed=seed) for seed in range(4)]
  samples = engine.generate(PARAMS, [prompt] * 4, each)
  assert seen == [(1, 16)]
  assert len({tuple(sample.ids) for sample in samples}) > 1
  for sampling, sample in zip(each, samples):
    assert sample.ids == one_at_a_time(prompt, sampling)[0]


def test_prompts_that_do_not_fit():
  engine = engine_of(1)
  with pytest.raises(InputError, match='prompt 1 has 32 tokens, but the context holds 1 to 31'):
    engine.generate(PARAMS, [[1], [1] * 32])
  with pytest.raises(InputError, match='prompt 0 has 0 tokens'):
    engine.generate(PARAMS, [[]])
  filled = engine.generate(PARAMS, [[1] * 28], Sampling(max_tokens=50))[0]
  assert len(filled.ids) <= 4
  with pytest.raises(InputError, match='prompt 0 has 9 ids that end it.*fewer in --sample.stop'):
    engine.generate(PARAMS, [[1]], Sampling(stop=(1, 2, 3, 4, 6, 7, 8)))
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
