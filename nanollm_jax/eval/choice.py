"""Log-likelihoods of continuations in batches: multiple choice, and texts of any length.

What continuations share, such as the examples before a question's choices, is run once: its keys
and values are kept, and only the continuations meet the output head.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from nanollm_jax import InputError
from nanollm_jax.eval.measure import Measure, ratio
from nanollm_jax.model import cache as cache_lib
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.model.transformer import Transformer, unstack

SMALLEST_PREFIX, SMALLEST_SUFFIX = 16, 4  # lengths are padded to powers of two from here
POSITIONS = 16  # of a row, whose logits exist at one time
Request = tuple[Sequence[int], Sequence[int]]  # context, of at least one token; continuation


class Score(NamedTuple):
  """What the model gives one continuation; greedy: each token is the most probable one."""
  logprobs: np.ndarray  # float32, in nats, one a token
  greedy: bool

  @property
  def total(self) -> float:
    return float(self.logprobs.sum(dtype=np.float64))

  @property
  def mean(self) -> float:
    return self.total / len(self.logprobs)


class Window(NamedTuple):
  """The targets are tokens `first ..` of a request's continuation, the inputs one token before."""
  request: int
  first: int
  inputs: tuple[int, ...]
  targets: tuple[int, ...]


class Scorer:
  """Scores with one model shape; parameters are handed to every call."""

  def __init__(self, config: ModelConfig, tokens: int | None = None):
    """A scorer that runs about `tokens` tokens at a time; 1 means row by row.

    None means 1,024 on a CPU (what its cache holds), 16,384 elsewhere.
    """
    tokens = tokens or (1024 if jax.default_backend() == 'cpu' else 16_384)
    self.config = dataclasses.replace(config, scan=False, remat='none')
    self.context, self._tokens = config.context, tokens
    apply = Transformer(self.config).apply
    self._prefill = jax.jit(functools.partial(_prefill, apply, self.config))
    self._continue = jax.jit(functools.partial(_continue, apply, self.context))

  def score(self, params: Any, requests: Sequence[Request]) -> list[Score]:
    """Scores every continuation; results are in the order of the requests.

    A context is cut at the left to what the continuation leaves of the model's context. A
    continuation longer than that is scored in windows: every token once, the last window with
    as much before it as fits (`loglikelihood_rolling` of EleutherAI's lm-eval).
    """
    params = unstack(params)
    logprobs = [np.zeros(len(continuation), np.float32) for _, continuation in requests]
    greedy = [np.ones(len(continuation), bool) for _, continuation in requests]
    windows = windows_of(requests, self.context)
    waiting = sorted(windows, key=len)
    while waiting:
      bucket = self._bucket(len(waiting[-1]), SMALLEST_PREFIX)
      rows = max(1, self._tokens // bucket)
      group, waiting = waiting[-rows:], waiting[:-rows]
      cache = self._prefill(params, _padded(group, rows, bucket))
      placed = [(window, row, len(prefix)) for row, prefix in enumerate(group)
                for window in windows[prefix]]
      for window, logprob, is_top in self._suffixes(params, cache, placed, bucket):
        span = slice(window.first, window.first + len(window.targets))
        logprobs[window.request][span] = logprob[:len(window.targets)]
        greedy[window.request][span] = is_top[:len(window.targets)]
    return [Score(row, bool(tops.all())) for row, tops in zip(logprobs, greedy)]

  def _suffixes(self, params, cache, placed, prefix_bucket: int):
    """Yields (window, log-probs, greedy) of windows placed at (row, start) of a cache."""
    placed = sorted(placed, key=lambda one: len(one[0].targets))
    while placed:
      bucket = self._bucket(len(placed[-1][0].targets), SMALLEST_SUFFIX)
      rows = max(1, self._tokens // max(bucket, prefix_bucket))
      group, placed = placed[-rows:], placed[:-rows]
      windows, row_C, start_C = zip(*group, *[(None, 0, 0)] * (rows - len(group)))
      out = self._continue(params, cache, np.asarray(row_C), np.asarray(start_C),
                           _padded([window.inputs for window, *_ in group], rows, bucket),
                           _padded([window.targets for window, *_ in group], rows, bucket))
      yield from zip(windows[:len(group)], *jax.device_get(out))

  def _bucket(self, length: int, smallest: int) -> int:
    return min(max(smallest, _power(length)), self.context)


def bits_per_byte(scorer: Scorer, params: Any, tokenizer: Any,
                  texts: Sequence[str]) -> dict[str, Measure]:
  """Bits per byte and nats per token of texts, each alone after the document mark."""
  ids = tokenizer.encode_batch(texts)
  nats = [-score.total for score in
          scorer.score(params, [([tokenizer.end], text_ids) for text_ids in ids])]
  return {'bits_per_byte': ratio([one / math.log(2) for one in nats],
                                 [len(text.encode()) for text in texts]),
          'loss': ratio(nats, [len(text_ids) for text_ids in ids])}


def windows_of(requests: Sequence[Request],
               context: int) -> dict[tuple[int, ...], list[Window]]:
  """What to run: prefix -> windows behind it; both together are at most `context` tokens."""
  windows: dict[tuple[int, ...], list[Window]] = {}
  for index, (before, continuation) in enumerate(requests):
    if not before:
      raise InputError(f'request {index} has an empty context: begin with the document mark.')
    ids, start = (*before, *continuation), len(before)
    for position in range(start, len(ids), context):
      end = min(position + context, len(ids))
      left = max(0, end - context - 1)
      windows.setdefault(ids[left:position - 1], []).append(Window(
          index, position - start, ids[position - 1:end - 1], ids[position:end]))
  return windows


def _prefill(apply, config, params, tokens_RP):
  """Keys and values of R prefixes; padding on the right is overwritten or never seen."""
  return apply({'params': params}, tokens_RP, cache=cache_lib.empty(config, *tokens_RP.shape)).cache


def _continue(apply, context: int, params, cache, row_C, start_C, inputs_CS, targets_CS):
  """Log-probs of the targets and whether each is most probable [C, S], after prefixes row_C."""
  S = inputs_CS.shape[1]
  slots = min(cache_lib.length(cache) + S, context)  # what would come after is padding, dropped
  cache = cache_lib.resize(jax.tree.map(lambda leaf: leaf[row_C], cache), slots)
  out = apply({'params': params}, inputs_CS, start_C[:, None] + jnp.arange(S), cache=cache)

  def one_position(hidden_CD, target_C):
    logits_CV = jnp.einsum('CD,VD->CV', hidden_CD, out.head_VD, preferred_element_type=jnp.float32)
    picked_C = jnp.take_along_axis(logits_CV, target_C[:, None], axis=1)[:, 0]
    return (picked_C - jax.nn.logsumexp(logits_CV, axis=-1), jnp.argmax(logits_CV, -1) == target_C)

  logprob_SC, is_top_SC = jax.lax.map(
      lambda xs: one_position(*xs), (jnp.moveaxis(out.hidden_BTD, 1, 0), targets_CS.T),
      batch_size=min(S, POSITIONS))
  return logprob_SC.T, is_top_SC.T


def _padded(rows: Sequence[Sequence[int]], count: int, length: int) -> np.ndarray:
  """Rows of ids as int32 [count, length], zeros on the right and below."""
  out = np.zeros((count, length), np.int32)
  for row, ids in zip(out, rows):
    row[:len(ids)] = ids
  return out


def _power(n: int) -> int:
  return 1 << max(0, n - 1).bit_length()

