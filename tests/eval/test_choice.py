"""Log-likelihoods: by hand, against whole forwards, one by one and in any company."""

import math

import jax
import numpy as np
import pytest

from nanollm_jax import InputError
from nanollm_jax.eval import choice, measure
from nanollm_jax.model import transformer
from nanollm_jax.model.config import ModelConfig

CONFIG = ModelConfig(depth=2, width=32, heads=4, key_heads=2, vocabulary=64, context=32).resolve()
PARAMS = jax.tree.map(lambda leaf: leaf * 3, transformer.init(CONFIG, jax.random.key(1)))
APPLY = jax.jit(lambda tokens: transformer.Transformer(CONFIG).apply({'params': PARAMS}, tokens))
SCORER = choice.Scorer(CONFIG, tokens=128)


def expected(ids, start):
  """(log-probs, greedy) of ids[start:] by one whole forward of at most the context."""
  assert len(ids) - 1 <= CONFIG.context
  padded = np.zeros((1, CONFIG.context), np.int32)
  padded[0, :len(ids) - 1] = ids[:-1]
  logits = np.asarray(APPLY(padded).logits()[0], np.float64)
  logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  rows = range(start - 1, len(ids) - 1)
  return ([logprobs[i, ids[i + 1]] for i in rows],
          all(logits[i].argmax() == ids[i + 1] for i in rows))


def requests(count=24):
  """Contexts of 1 to 20 ids, shared by up to three continuations; some continuations are greedy."""
  rng = np.random.default_rng(0)
  draw = lambda size: list(map(int, rng.integers(0, 64, size)))
  made = []
  while len(made) < count:
    context = draw(rng.integers(1, 21))
    made += [(context, draw(rng.integers(1, 5))) for _ in range(rng.integers(1, 4))]
    padded = np.zeros((1, CONFIG.context), np.int32)
    padded[0, :len(context)] = context
    made.append((context, [int(APPLY(padded).logits()[0, len(context) - 1].argmax())]))
  return made


def test_equals_whole_forwards_batched_and_one_by_one():
  asked = requests()
  together = SCORER.score(PARAMS, asked)
  for (context, continuation), score in zip(asked, together):
    logprobs, greedy = expected([*context, *continuation], len(context))
    np.testing.assert_allclose(score.logprobs, logprobs, atol=1e-4)
    assert score.greedy == greedy
    assert score.total == pytest.approx(sum(logprobs), abs=1e-4)
    assert score.mean == pytest.approx(sum(logprobs) / len(logprobs), abs=1e-4)
    (single,) = SCORER.score(PARAMS, [(context, continuation)])
    np.testing.assert_allclose(single.logprobs, score.logprobs, atol=1e-4)
    assert single.greedy == score.greedy
  assert 0 < sum(score.greedy for score in together) < len(together)
  assert SCORER._prefill._cache_size() + SCORER._continue._cache_size() <= 8


def test_neighbours_and_order_do_not_matter():
  asked = requests()
  together = SCORER.score(PARAMS, asked)
  order = np.random.default_rng(1).permutation(len(asked))
  shuffled = SCORER.score(PARAMS, [asked[i] for i in order])
  for i, score in zip(order, shuffled):
    np.testing.assert_allclose(score.logprobs, together[i].logprobs, atol=1e-4)
    assert score.greedy == together[i].greedy


def test_a_long_context_is_cut_at_the_left_and_the_continuation_kept():
  rng = np.random.default_rng(2)
  context, continuation = rng.integers(0, 64, 50).tolist(), rng.integers(0, 64, 3).tolist()
  whole = (context + continuation)[-(CONFIG.context + 1):]
  (score,) = SCORER.score(PARAMS, [(context, continuation)])
  logprobs, _ = expected(whole, len(whole) - 3)
  np.testing.assert_allclose(score.logprobs, logprobs, atol=1e-4)


def test_a_long_text_is_scored_once_a_token_in_windows():
  """70 tokens after a mark: windows of 32, 32 and 6, the last one with all that fits before."""
  ids = [7, *np.random.default_rng(3).integers(0, 64, 70).tolist()]
  (score,) = SCORER.score(PARAMS, [(ids[:1], ids[1:])])
  logprobs = [*expected(ids[:33], 1)[0], *expected(ids[32:65], 1)[0], *expected(ids[38:71], 27)[0]]
  np.testing.assert_allclose(score.logprobs, logprobs, atol=1e-4)
  assert len(score.logprobs) == 70


def test_empty_continuation_and_context():
  (score,) = SCORER.score(PARAMS, [([1, 2], [])])
  assert score.total == 0 and score.greedy
  assert SCORER.score(PARAMS, []) == []
  with pytest.raises(InputError, match='request 1 has an empty context'):
    SCORER.score(PARAMS, [([1], [2]), ([], [2])])


class Bytes:
  """Ids are bytes below 64."""
  end = 0

  def encode_batch(self, texts):
    return [[byte % 64 for byte in text.encode()] for text in texts]


def test_bits_per_byte_is_a_ratio_of_sums():
  texts = ['abc', 'a longer text of over 16 bytes', 'é']
  numbers = choice.bits_per_byte(SCORER, PARAMS, Bytes(), texts)
  nats = [-sum(expected([0, *ids], 1)[0]) for ids in Bytes().encode_batch(texts)]
  assert numbers['bits_per_byte'].value == pytest.approx(sum(nats) / math.log(2) / 35, abs=1e-5)
  assert numbers['loss'].value == pytest.approx(sum(nats) / 35, abs=1e-5)
  assert numbers['loss'].n == 3 and numbers['loss'].stderr > 0


def test_measures_by_hand():
  value, stderr, n = measure.mean([1, 0, 0, 1, 1])
  assert (value, n) == (0.6, 5)
  assert stderr == pytest.approx(math.sqrt((3 * 0.16 + 2 * 0.36) / 4 / 5))
  assert math.isnan(measure.mean([1]).stderr)
  # ratio 6/4 = 1.5; deviations 1 - 1.5, 2 - 1.5 and 3 - 3: sum of squares 0.5
  value, stderr, n = measure.ratio([1, 2, 3], [1, 1, 2])
  assert (value, n) == (1.5, 3) and stderr == pytest.approx(math.sqrt(0.5 * 3 / 2) / 4)
