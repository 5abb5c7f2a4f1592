"""The engine: slots that hold sequences, filled by prefill, moved on by decode, refilled.

Prompts are padded to power-of-two buckets, a chunk of decode steps is one jitted call, and
stopping is decided on the device; so a handful of programs serves any mix of requests.
"""

import dataclasses
import functools
from typing import Any, Iterator, NamedTuple, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from nanollm_jax import InputError
from nanollm_jax.model import cache as cache_lib
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.model.transformer import Transformer, unstack
from nanollm_jax.sample.choose import choose

SMALLEST_BUCKET = 16


@dataclasses.dataclass(frozen=True)
class Sampling:
  """How one request is sampled.

  max_tokens: tokens at most; also cut by the context.
  temperature: 1 samples the model's distribution, 0 is greedy.
  top_k: keep the k most probable tokens; 0 keeps all.
  top_p: keep the smallest set of tokens with this probability; 1 keeps all.
  seed: with the prompt it decides the sample, whatever else is in the batch.
  """

  max_tokens: int = 64
  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 1.0
  seed: int = 0

  def __post_init__(self):
    if self.max_tokens < 1 or self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
      raise InputError(f'--sample.max_tokens={self.max_tokens} (at least 1), --sample.temperature='
                       f'{self.temperature} (at least 0), --sample.top_k={self.top_k} (at least '
                       f'0), --sample.top_p={self.top_p} (above 0, at most 1): one is out of range.')


class Completion(NamedTuple):
  """What was generated for one prompt; `finished` is False where max_tokens cut it off."""
  ids: list[int]  # without the stop token
  logprobs: list[float]  # of the distribution sampled from, the stop token's last if there is one
  finished: bool


class Slots(NamedTuple):
  """The device's state: B sequences, each at its own position."""
  cache: cache_lib.Cache
  token_B: jax.Array  # the last token of each row, not yet run through the model
  position_B: jax.Array  # its position
  left_B: jax.Array  # tokens that the row may still produce; 0: the slot is free
  made_B: jax.Array  # tokens produced so far: with the seed it makes the key of the next one
  seed_B: jax.Array
  temperature_B: jax.Array
  top_k_B: jax.Array
  top_p_B: jax.Array


class Engine:
  """Generates with one model shape; parameters are handed to every call."""

  def __init__(self, config: ModelConfig, stop: Sequence[int], *, slots: int = 16, chunk: int = 16,
               length: int | None = None):
    """An engine with `slots` rows of `length` positions (default: the context).

    `stop`: ids that end a row. `chunk`: decode steps between two looks by the host.
    """
    self.config = dataclasses.replace(config, scan=False, remat='none')
    self.slots, self.length = slots, length or config.context
    self._stop = np.asarray(list(stop), np.int32)
    model = Transformer(self.config)
    self._prefill = jax.jit(functools.partial(_prefill, model.apply),
                            static_argnames='truncate', donate_argnums=1)
    self._decode = jax.jit(functools.partial(_decode, model.apply, chunk),
                           static_argnames='truncate', donate_argnums=1)

  def generate(self, params: Any, prompts: Sequence[Sequence[int]],
               sampling: Sampling | Sequence[Sampling] = Sampling()) -> list[Completion]:
    """Completes every prompt; results are in the order of the prompts."""
    results: list[Completion | None] = [None] * len(prompts)
    made: dict[int, tuple[list[int], list[float]]] = {}
    for index, ids, logprobs, finished in self._run(params, prompts, sampling):
      row = made.setdefault(index, ([], []))
      row[0].extend(ids)
      row[1].extend(logprobs)
      if finished is not None:
        results[index] = Completion(*made.pop(index), finished)
    return results

  def stream(self, params: Any, prompt: Sequence[int], sampling: Sampling) -> Iterator[list[int]]:
    """Yields the new ids of one prompt as they come, a few at a time."""
    for _, ids, _, _ in self._run(params, [prompt], sampling):
      if ids:
        yield ids

  def _run(self, params, prompts, sampling):
    """Yields (index, new ids, new log-probs, None or finished) until all prompts are done."""
    each = [sampling] * len(prompts) if isinstance(sampling, Sampling) else list(sampling)
    requests = [self._request(i, prompt, one) for i, (prompt, one) in enumerate(zip(prompts, each))]
    truncate = any(one.top_k or one.top_p < 1 for one in each)
    params, state = unstack(params), self._empty()
    waiting, owner = requests[::-1], {}
    while waiting or owner:
      free = [slot for slot in range(self.slots) if slot not in owner]
      group = [waiting.pop() for _ in range(min(len(free), len(waiting)))]
      if group:
        state, token_R, logprob_R, left_R = self._fill(params, state, group, free, truncate)
        for (index, *_), slot, *first in zip(group, free, token_R, logprob_R, left_R):
          owner[slot] = index
          if (event := self._event(index, first[:1], first[1:2], first[2])):
            yield event
          if first[2] == 0:
            del owner[slot]
      if not owner:
        continue
      state, token_BC, logprob_BC, alive_BC = self._decode(
          params, state, self._stop, truncate=truncate)
      token_BC, logprob_BC, alive_BC, left_B = jax.device_get(
          (token_BC, logprob_BC, alive_BC, state.left_B))
      for slot, index in list(owner.items()):
        count = int(alive_BC[slot].sum())
        yield self._event(index, token_BC[slot, :count], logprob_BC[slot, :count], left_B[slot])
        if left_B[slot] == 0:
          del owner[slot]

  def _event(self, index, tokens, logprobs, left):
    ids = [int(token) for token in tokens]
    stopped = bool(ids) and ids[-1] in self._stop
    finished = (stopped if left == 0 else None)
    return index, ids[:-1] if stopped else ids, [float(x) for x in logprobs], finished

  def _request(self, index: int, prompt: Sequence[int], sampling: Sampling):
    if not 0 < len(prompt) < self.length:
      raise InputError(f'prompt {index} has {len(prompt)} tokens, but the context holds 1 to '
                       f'{self.length - 1} before the first new one: shorten it, or train with a '
                       'larger --model.context.')
    return index, list(prompt), min(sampling.max_tokens, self.length - len(prompt)), sampling

  def _empty(self) -> Slots:
    zeros = lambda dtype: jnp.zeros(self.slots, dtype)
    return Slots(cache_lib.empty(self.config, self.slots, self.length), zeros(jnp.int32),
                 zeros(jnp.int32), zeros(jnp.int32), zeros(jnp.int32), zeros(jnp.uint32),
                 zeros(jnp.float32), zeros(jnp.int32), zeros(jnp.float32))

  def _fill(self, params, state: Slots, group, free, truncate: bool):
    """Prefills a group of requests into free slots; pads rows and length to powers of two."""
    rows = min(_power(len(group)), self.slots)
    longest = max(len(prompt) for _, prompt, _, _ in group)
    bucket = min(max(SMALLEST_BUCKET, _power(longest)), self.length)
    tokens = np.zeros((rows, bucket), np.int32)
    fields = {name: np.zeros(rows, dtype) for name, dtype in dict(
        length=np.int32, left=np.int32, seed=np.uint32, temperature=np.float32, top_k=np.int32,
        top_p=np.float32).items()}
    slot_R = np.full(rows, self.slots, np.int32)  # padding rows lie outside and are dropped
    slot_R[:len(group)] = free[:len(group)]
    for row, (_, prompt, left, sampling) in enumerate(group):
      tokens[row, :len(prompt)] = prompt
      values = dict(length=len(prompt), left=left, seed=sampling.seed & 0xFFFFFFFF,
                    temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p)
      for name, value in values.items():
        fields[name][row] = value
    state, token_R, logprob_R, left_R = self._prefill(
        params, state, tokens, slot_R, fields, self._stop, truncate=truncate)
    return state, *jax.device_get((token_R, logprob_R, left_R))


def _prefill(apply, params, state: Slots, tokens_RP, slot_R, fields, stop, *, truncate: bool):
  """Runs R right-padded prompts, writes them into their slots, draws each one's first token."""
  R, P = tokens_RP.shape
  fresh = jax.tree.map(lambda leaf: jnp.zeros((R, P, *leaf.shape[2:]), leaf.dtype), state.cache)
  out = apply({'params': params}, tokens_RP, cache=fresh)
  last_R = jnp.maximum(fields['length'] - 1, 0)
  hidden_RD = jnp.take_along_axis(out.hidden_BTD, last_R[:, None, None], axis=1)[:, 0]
  logits_RV = jnp.einsum('RD,VD->RV', hidden_RD, out.head_VD, preferred_element_type=jnp.float32)
  token_R, logprob_R = choose(logits_RV, fields['temperature'], fields['top_k'], fields['top_p'],
                              _keys(fields['seed'], jnp.zeros_like(fields['left'])), truncate)
  left_R = jnp.where(_is_in(token_R, stop), 0, fields['left'] - 1)
  insert = lambda old, new: old.at[slot_R].set(new, mode='drop')
  cache = jax.tree.map(lambda old, new: old.at[slot_R, :P].set(new, mode='drop'),
                       state.cache, out.cache)
  state = Slots(
      cache, insert(state.token_B, token_R), insert(state.position_B, fields['length']),
      insert(state.left_B, left_R), insert(state.made_B, jnp.ones_like(left_R)),
      *(insert(getattr(state, f'{name}_B'), fields[name])
        for name in ('seed', 'temperature', 'top_k', 'top_p')))
  return state, token_R, logprob_R, left_R


def _decode(apply, chunk: int, params, state: Slots, stop, *, truncate: bool):
  """Moves every row on by up to `chunk` tokens; ends early when all rows have stopped.

  Returns the state, tokens and log-probs [B, chunk], and where a row was alive [B, chunk].
  """
  B = state.token_B.shape[0]
  length = state.cache[0].k_BSKH.shape[1]

  def one(carry):
    step, state, token_BC, logprob_BC, alive_BC = carry
    alive_B = state.left_B > 0
    position_B = jnp.where(alive_B, state.position_B, length)  # a free row writes nowhere
    out = apply({'params': params}, state.token_B[:, None], position_B[:, None], cache=state.cache)
    token_B, logprob_B = choose(
        out.logits()[:, 0], state.temperature_B, state.top_k_B, state.top_p_B,
        _keys(state.seed_B, state.made_B), truncate)
    token_B = jnp.where(alive_B, token_B, state.token_B)
    left_B = jnp.where(_is_in(token_B, stop), 0, state.left_B - 1)
    state = state._replace(
        cache=out.cache, token_B=token_B, position_B=state.position_B + alive_B,
        left_B=jnp.where(alive_B, left_B, 0), made_B=state.made_B + alive_B)
    return (step + 1, state, token_BC.at[:, step].set(token_B),
            logprob_BC.at[:, step].set(logprob_B), alive_BC.at[:, step].set(alive_B))

  start = (0, state, jnp.zeros((B, chunk), jnp.int32), jnp.zeros((B, chunk), jnp.float32),
           jnp.zeros((B, chunk), bool))
  going = lambda carry: (carry[0] < chunk) & jnp.any(carry[1].left_B > 0)
  return jax.lax.while_loop(going, one, start)[1:]


def _keys(seed_B, count_B) -> jax.Array:
  """A key from a row's seed and its number of tokens, so that neighbours do not matter."""
  return jax.vmap(lambda seed, count: jax.random.fold_in(jax.random.key(seed), count))(
      seed_B, count_B)


def _is_in(token_B, stop) -> jax.Array:
  return jnp.any(token_B[:, None] == stop, axis=1)


def _power(n: int) -> int:
  return 1 << (n - 1).bit_length()
