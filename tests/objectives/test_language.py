"""Objectives: chunked = plain, hand-computed losses, masks, corrupted spans."""

import functools
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nanollm_jax import mesh as mesh_lib
from nanollm_jax.objectives import language, logprobs


def arrays(B=3, T=50, D=16, V=40, dtype=jnp.float32):
  keys = jax.random.split(jax.random.key(0), 4)
  return (jax.random.normal(keys[0], (B, T, D), dtype), jax.random.normal(keys[1], (V, D), dtype),
          jax.random.randint(keys[2], (B, T), 0, V), jax.random.uniform(keys[3], (B, T)))


def plain(hidden, head, targets, weights):
  """The loss written without chunks: the reference."""
  logprob = jax.nn.log_softmax(hidden @ head.T)
  return -jnp.sum(weights * jnp.take_along_axis(logprob, targets[..., None], -1)[..., 0])


@pytest.mark.parametrize('chunk', (7, 50, 128))
def test_chunked_equals_plain_in_value_and_gradient(chunk):
  hidden, head, targets, weights = arrays()
  both = lambda f: jax.jit(jax.value_and_grad(f, (0, 1)))(hidden, head)
  value, gradient = both(lambda h, w: plain(h, w, targets, weights))
  fused = both(lambda h, w: 3 * logprobs.cross_entropy(h, w, targets, weights, chunk)[0])
  again = both(lambda h, w: -jnp.sum(weights * logprobs.logprobs(h, w, targets, chunk)))
  np.testing.assert_allclose(fused[0], 3 * value, rtol=1e-5)
  np.testing.assert_allclose(again[0], value, rtol=1e-5)
  for ours, recomputed, theirs in zip(fused[1], again[1], gradient):
    np.testing.assert_allclose(ours, 3 * theirs, atol=2e-5)
    np.testing.assert_allclose(recomputed, theirs, atol=1e-5)


@pytest.mark.parametrize('chunk,temperature', ((7, 1.0), (50, 0.6), (128, 1.5)))
def test_log_probs_and_entropy_at_a_temperature_equal_plain(chunk, temperature):
  hidden, head, targets, weights = arrays()

  def reference(hidden, head):
    logprob = jax.nn.log_softmax(hidden @ head.T / temperature)
    picked = jnp.take_along_axis(logprob, targets[..., None], -1)[..., 0]
    return picked, -jnp.sum(jnp.exp(logprob) * logprob, -1)

  def summed(function):
    total = lambda *args: sum(jnp.sum(weights * x) for x in function(*args))
    return jax.jit(jax.grad(total, (0, 1)))(hidden, head)

  ours = lambda hidden, head: logprobs.logprobs_and_entropy(
      hidden, head, targets, chunk, temperature)
  alone = logprobs.logprobs(hidden, head, targets, chunk, temperature)
  for one, other in zip((*ours(hidden, head), alone), (*reference(hidden, head),
                                                       reference(hidden, head)[0])):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=2e-6)
  for one, other in zip(summed(ours), summed(reference)):
    np.testing.assert_allclose(one, other, atol=2e-5)


def test_gradient_against_finite_differences():
  hidden, head, targets, weights = arrays(1, 5, 4, 6)
  loss = jax.jit(lambda h: logprobs.cross_entropy(h, head, targets, weights, 3)[0])
  gradient = jax.grad(loss)(hidden)
  for at in [(0, 0, 0), (0, 3, 2), (0, 4, 3)]:
    step = jnp.zeros_like(hidden).at[at].set(1e-2)
    slope = (loss(hidden + step) - loss(hidden - step)) / 2e-2
    np.testing.assert_allclose(gradient[at], slope, atol=2e-3)


def test_logits_are_never_materialised_whole():
  hidden, head, targets, weights = arrays(2, 512, 8, 1000)
  fused = lambda h, w: logprobs.cross_entropy(h, w, targets, weights)[0]
  both = lambda h, w: sum(x.sum() for x in logprobs.logprobs_and_entropy(h, w, targets))
  for loss in (fused, both):
    text = str(jax.make_jaxpr(jax.grad(loss, (0, 1)))(hidden, head))
    assert '2,128,1000]' in text or '256,1000]' in text
    assert '2,512,1000]' not in text and '1024,1000]' not in text


@pytest.mark.parametrize('loss', (
    lambda *args: logprobs.cross_entropy(*args, jnp.ones((8, 40)), 8)[0],
    lambda *args: sum(x.sum() for x in logprobs.logprobs_and_entropy(*args, 8))))
def test_under_fsdp_the_head_is_gathered_once_not_once_a_chunk(loss):
  mesh = mesh_lib.make(mesh_lib.MeshConfig(fsdp=8))
  hidden, head, targets, _ = arrays(8, 40, 16, 64)
  batch, sharded = mesh_lib.sharding(mesh, 'batch'), mesh_lib.sharding(mesh, 'vocabulary', 'width')
  with mesh_lib.use(mesh):
    step = jax.jit(jax.value_and_grad(loss, (0, 1)), in_shardings=(batch, sharded, batch))
    (value, gradients), text = step(hidden, head, targets), step.lower(
        hidden, head, targets).compile().as_text()
  plain, expected = jax.value_and_grad(loss, (0, 1))(hidden, head, targets)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
               (value, gradients), (plain, expected))
  moved = [line for line in text.splitlines()
           if re.search(r'(all-gather|all-reduce|reduce-scatter)(-start)?\(', line)]
  assert moved and not [line for line in moved if '/while/' in line]


class Out(NamedTuple):
  hidden_BTD: jax.Array
  head_VD: jax.Array


def lookup(params, tokens, positions=None, segment_ids=None, causal=True):
  """A model whose logits depend on the current token alone: log-probabilities by table."""
  return Out(jax.nn.one_hot(tokens, 4), params)


PROBABILITIES = np.array([[.7, .1, .1, .1], [.25, .25, .25, .25], [.1, .2, .3, .4], [.4, .3, .2, .1]])
TABLE = jnp.log(jnp.asarray(PROBABILITIES, jnp.float32)).T  # head [V, D]: column d is token d's row


def test_next_token_by_hand():
  """Two documents and padding: targets stay inside a document; bits count bytes."""
  batch = {'tokens': jnp.array([[0, 2, 3, 1, 2, 0]]), 'segment_ids': jnp.array([[1, 1, 1, 2, 2, 0]]),
           'positions': jnp.array([[0, 1, 2, 0, 1, 0]])}
  byte_lengths = jnp.array([0, 1, 2, 3])  # token 0 is special
  terms = language.next_token(lookup, byte_lengths)(TABLE, batch)
  p = PROBABILITIES
  expected = -np.log([p[0, 2], p[2, 3], p[1, 2]])  # 0->2, 2->3, 1->2; not 3->1, not 2->0
  np.testing.assert_allclose(terms.loss, expected.sum(), rtol=1e-6)
  assert terms.weight == 3
  bits, count = terms.metrics['bits_per_byte']
  np.testing.assert_allclose(bits, expected.sum() / np.log(2), rtol=1e-6)
  assert count == 2 + 3 + 2
  batch['loss_mask'] = jnp.array([[1, 1, 0, 1, 1, 1]])
  assert language.next_token(lookup, byte_lengths)(TABLE, batch).weight == 2


def test_special_targets_count_in_the_loss_but_not_in_bits_per_byte():
  batch = {'tokens': jnp.array([[1, 2, 0]]), 'segment_ids': jnp.ones((1, 3), jnp.int32),
           'positions': jnp.arange(3)[None]}
  terms = language.next_token(lookup, jnp.array([0, 1, 1, 1]))(TABLE, batch)
  np.testing.assert_allclose(terms.loss, -np.log([.25, .1]).sum(), rtol=1e-6)
  np.testing.assert_allclose(terms.metrics['bits_per_byte'][0], -np.log2(.25), rtol=1e-6)


def test_masked_token_follows_the_80_10_10_rule_and_sees_both_sides():
  seen = {}

  def apply(params, tokens, positions, segment_ids, causal=True):
    seen.update(tokens=tokens, causal=causal)
    return Out(jnp.zeros((*tokens.shape, 4)), jnp.zeros((50, 4)))

  tokens = jnp.full((8, 4096), 7)
  batch = {'tokens': tokens, 'positions': tokens,
           'segment_ids': jnp.ones_like(tokens).at[:, -96:].set(0)}
  terms = language.masked_token(apply, mask_id=49, vocabulary=49)({}, batch, jax.random.key(0))
  real = seen['tokens'][:, :-96]
  assert not seen['causal'] and np.all(seen['tokens'][:, -96:] == 7)
  share = float(terms.weight) / real.size
  assert abs(share - 0.15) < 0.01
  assert abs(float(jnp.mean(real == 49)) / share - 0.8) < 0.02
  assert abs(float(jnp.mean((real != 49) & (real != 7))) / share - 0.1) < 0.02
  np.testing.assert_allclose(terms.loss / terms.weight, np.log(50), rtol=1e-5)


def test_corrupted_spans_restore_the_text():
  row, sentinels = np.arange(100, 164), [1, 2, 3, 4]
  corrupt = jax.jit(functools.partial(language.corrupt_spans, rate=0.2))
  starts = set()
  for seed in range(20):
    out, predicted = corrupt(jnp.asarray(row), jnp.ones(64, bool), jax.random.key(seed),
                             jnp.asarray(sentinels))
    out, predicted = list(map(int, out)), np.asarray(predicted)
    assert len(out) == 64 and np.all(np.diff(predicted.astype(int)) >= 0)  # one prefix, one rest
    prefix, rest = out[:int((~predicted).sum())], out[int((~predicted).sum()):]
    assert [token for token in rest if token < 10] == sentinels
    spans, current = {}, None
    for token in rest:
      current = token if token < 10 else current
      spans.setdefault(current, []).extend([token] if token >= 10 else [])
    restored = [piece for token in prefix for piece in (spans[token] if token < 10 else [token])]
    assert restored == list(row[:64 - 8])
    assert all(len(span) == 3 for span in spans.values())  # 0.2 x 14 tokens a stretch
    starts.add(spans[1][0])
  assert len(starts) > 3


def test_span_corruption_learns_from_the_second_part_only():
  apply = lambda params, tokens, positions, segment_ids: Out(
      jnp.zeros((*tokens.shape, 4)), jnp.zeros((50, 4)))
  batch = {'tokens': jnp.full((2, 64), 7), 'segment_ids': jnp.ones((2, 64), jnp.int32)}
  objective = language.span_corruption(apply, jnp.array([1, 2, 3, 4]))
  terms = objective({}, batch, jax.random.key(0))
  assert terms.weight == 2 * 4 * (1 + 2)  # two rows, four sentinels, two tokens of each stretch
  np.testing.assert_allclose(terms.loss / terms.weight, np.log(50), rtol=1e-5)
  real_BT = jnp.arange(64) < jnp.array([[28], [0]])  # half of the stretches, and an empty row
  padded = objective({}, batch | {'segment_ids': real_BT.astype(jnp.int32)}, jax.random.key(0))
  assert padded.weight == 2 * (1 + 2)
