"""The engine: slots that hold sequences, filled by prefill, moved on by decode, refilled.

Prompts are padded to buckets (powers of two and three quarters of them), a chunk of decode steps
is one jitted call, and stopping is decided on the device; so a handful of programs serves any mix
of requests. Equal prompts that enter together are prefilled once.

A row is in one of four states. TEXT: its tokens are sampled. CALL: they are, and become the
question to a tool; at the tool's end token the row waits. FORCE: the tool's answer enters, a
token a step, unsampled. DONE: a stop token was sampled or the budget is spent.

Over a mesh, rows lie as those of a batch do. XLA's CPU runs a decode step on one core; so there the
slots are divided into lanes, one a core, each with its own share of the requests in a thread of
its own, all by the same programs. A step there takes the longer the more slots it moves, so the
last rows, which no request follows, move into half of the slots as soon as they fit.
"""

import concurrent.futures
import dataclasses
import functools
import queue
import threading
from typing import Any, Iterator, NamedTuple, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nanollm_jax import InputError, metrics
from nanollm_jax.model import cache as cache_lib
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.model.transformer import Transformer, unstack
from nanollm_jax.sample.choose import choose
from nanollm_jax.text.chat import Call

SMALLEST_BUCKET = 16  # of prompts
SMALLEST_CACHE = 64  # positions; a step reads all of them, so the cache grows when it is full
LONGEST_CALL = 128  # tokens of a question to a tool
LONGEST_FORCED = 256  # tokens of its answer; what is over is cut
MOST_CALLS = 8  # of one row
MOST_PREFILLED = 2**15  # positions of prompts at one time, whose scores are all in memory
NARROWEST_LANE = 8  # slots
MOST_STOPS = 8  # ids that may end a row


@dataclasses.dataclass(frozen=True)
class Sampling:
  """How one request is sampled.

  max_tokens: tokens at most; also cut by the context.
  temperature: 1 samples the model's distribution, 0 is greedy.
  top_k: keep the k most probable tokens; 0 keeps all.
  top_p: keep the smallest set of tokens with this probability; 1 keeps all.
  seed: with the prompt it decides the sample, whatever else is in the batch.
  stop: ids that end this request, besides those of the engine.
  """

  max_tokens: int = 64
  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 1.0
  seed: int = 0
  stop: tuple[int, ...] = ()

  def __post_init__(self):
    if any(not 0 <= token < 2**31 for token in self.stop):
      raise InputError(f'--sample.stop={",".join(map(str, self.stop))}: give ids of tokens.')
    if (self.max_tokens < 1 or not 0 <= self.temperature < float('inf')
        or not 0 <= self.top_k < 2**31 or not 0 < self.top_p <= 1):
      raise InputError(f'--sample.max_tokens={self.max_tokens} (at least 1), --sample.temperature='
                       f'{self.temperature} (at least 0), --sample.top_k={self.top_k} (0 to 2^31 - '
                       f'1), --sample.top_p={self.top_p} (above 0, at most 1): one is out of range.')


class Completion(NamedTuple):
  """What was generated for one prompt; `finished` is False where max_tokens cut it off."""
  ids: list[int]  # without the stop token
  logprobs: list[float]  # of the distribution sampled from, the stop token's last if there is one
  sampled: list[bool]  # False: forced in by a tool (its log-probability is 0); as long as ids
  finished: bool


class Slots(NamedTuple):
  """The device's state: B sequences, each at its own position."""
  cache: cache_lib.Cache
  token_B: jax.Array  # the last token of each row, not yet run through the model
  position_B: jax.Array  # its position
  left_B: jax.Array  # tokens that the row may still produce; 0: the slot is free
  made_B: jax.Array  # tokens produced so far: with the seed it makes the key of the next one
  waits_B: jax.Array  # bool: the row has asked a tool
  forced_BF: jax.Array  # tokens to force in, at the end of the row
  forced_B: jax.Array  # how many of them are left
  seed_B: jax.Array
  temperature_B: jax.Array
  top_k_B: jax.Array
  top_p_B: jax.Array
  stop_BE: jax.Array  # ids that end the row; -1 fills up


@dataclasses.dataclass
class _Row:
  """The host's view of a slot in use."""
  index: int
  prompt: int  # tokens of it
  most: int  # tokens that may be produced
  stop: tuple[int, ...]
  made: int = 0
  call: Call | None = None  # the tool whose question is being written
  question: list[int] = dataclasses.field(default_factory=list)
  asked: bool = False  # the question is whole
  calls: int = 0

  def reach(self, steps: int) -> int:
    """Positions that it has written after so many steps of decoding."""
    return self.prompt + min(self.made + steps - 1, self.most)

  def read(self, token: int, calls: dict[int, Call]) -> None:
    """Follows a sampled token from TEXT to CALL and through it."""
    if self.call is None:
      self.call = calls.get(token)
    elif token == self.call.end:
      self.asked = True
    else:
      self.question.append(token)

  def answer(self) -> list[int]:
    """What is forced in where the row waits: nothing if it waits without having asked."""
    call, question, asked = self.call, self.question, self.asked
    too_long = len(question) > LONGEST_CALL
    if not (asked or too_long):
      return []
    self.call, self.question, self.asked, self.calls = None, [], False, self.calls + 1
    if too_long or self.calls > MOST_CALLS:
      return call.error if asked else [call.end, *call.error]
    return call.run(question)


class Engine:
  """Generates with one model shape; parameters are handed to every call."""

  def __init__(self, config: ModelConfig, stop: Sequence[int], *, slots: int = 16, chunk: int = 16,
               length: int | None = None, lanes: int | None = None):
    """An engine with `slots` rows of `length` positions (default: the context).

    `stop`: ids that end a row. `chunk`: decode steps between two looks by the host. `lanes`:
    threads that share the slots (default: on one CPU device one for each of its cores, as long
    as each has some slots; else one).
    """
    self.config = dataclasses.replace(config, scan=False, remat='none')
    cores = metrics.cores() if jax.default_backend() == 'cpu' and jax.device_count() == 1 else 1
    self._lanes = lanes or max(1, min(cores, slots // NARROWEST_LANE))
    self._wide = -(-slots // self._lanes)  # slots of a lane
    self._narrows = jax.default_backend() == 'cpu'
    self.length = length or config.context
    self._stop, self._chunk = tuple(stop), chunk
    model = Transformer(self.config)
    self._prefill = jax.jit(functools.partial(_prefill, self.config, model.apply),
                            static_argnames='truncate', donate_argnums=1)
    self._decode = jax.jit(functools.partial(_decode, model.apply, chunk),
                           static_argnames='truncate', donate_argnums=1)
    self._force = jax.jit(_force, donate_argnums=0)
    self._take = jax.jit(lambda state, kept: jax.tree.map(lambda leaf: leaf[kept], state))
    self._resize = jax.jit(cache_lib.resize, static_argnames='length')
    self._empty = jax.jit(functools.partial(_empty, self.config, self._wide),
                          static_argnames='length')

  def generate(self, params: Any, prompts: Sequence[Sequence[int]],
               sampling: Sampling | Sequence[Sampling] = Sampling(),
               calls: Sequence[Call] = ()) -> list[Completion]:
    """Completes every prompt; results are in the order of the prompts.

    Several samples of a prompt are the prompt several times over, each with its own seed.
    """
    done = dict(self.completed(params, prompts, sampling, calls))
    return [done[index] for index in range(len(prompts))]

  def check(self, prompts: Sequence[Sequence[int]]) -> None:
    """Raises InputError for a prompt that leaves no room for an answer."""
    for index, prompt in enumerate(prompts):
      self._request(index, prompt, Sampling())

  def completed(self, params: Any, prompts: Sequence[Sequence[int]],
                sampling: Sampling | Sequence[Sampling] = Sampling(),
                calls: Sequence[Call] = ()) -> Iterator[tuple[int, Completion]]:
    """Yields (index of the prompt, its completion) as each is done, the others going on."""
    made: dict[int, tuple[list, list, list]] = {}
    for index, *parts, finished in self._run(params, prompts, sampling, calls):
      row = made.setdefault(index, ([], [], []))
      for whole, part in zip(row, parts):
        whole.extend(part)
      if finished is not None:
        yield index, Completion(*made.pop(index), finished)

  def stream(self, params: Any, prompt: Sequence[int], sampling: Sampling,
             calls: Sequence[Call] = ()) -> Iterator[list[int]]:
    """Yields the new ids of one prompt as they come, a few at a time."""
    for _, ids, *_ in self._run(params, [prompt], sampling, calls):
      if ids:
        yield ids

  def _run(self, params, prompts, sampling, calls):
    """Yields (index, new ids, log-probs, sampled, None or finished) until all prompts are done."""
    each = [sampling] * len(prompts) if isinstance(sampling, Sampling) else list(sampling)
    requests = [self._request(i, prompt, one) for i, (prompt, one) in enumerate(zip(prompts, each))]
    truncate = any(one.top_k or one.top_p < 1 for one in each)
    longest = max((len(prompt) + min(left, self._chunk) for _, prompt, left, _ in requests),
                  default=1)
    lanes = max(1, min(self._lanes, -(-len(requests) // self._wide)))
    # The division is fixed, so that what is in a batch never depends on which thread was first.
    shares = [requests[len(requests) * i // lanes:len(requests) * (i + 1) // lanes]
              for i in range(lanes)]
    params = self._cast(unstack(params))
    runs = [self._lane(params, share, self._cache_for(longest), truncate, calls)
            for share in shares]
    yield from runs[0] if lanes == 1 else _together(runs)

  def _lane(self, params, requests, positions, truncate, calls):
    """As `_run`, of a share of the requests in slots of its own."""
    state = self._empty(length=positions)
    starts = {call.start: call for call in calls}
    ends = np.asarray([call.end for call in calls], np.int32)
    waiting, rows = requests[::-1], {}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
      while waiting or rows:
        if not waiting:
          state, rows = self._narrowed(state, rows)
        free = [slot for slot in range(state.left_B.size) if slot not in rows]
        group = _next(waiting, len(free))
        if group:
          rows |= {slot: _Row(index, len(prompt), left, self._stop + sampling.stop)
                   for slot, (index, prompt, left, sampling) in zip(free, group)}
          state, *made = self._fill(params, state, dict(zip(free, group)), ends, truncate)
        else:
          state = self._grown(state, max(row.reach(self._chunk) for row in rows.values()))
          state, *made = self._decode(params, state, ends, truncate=truncate)
        made = jax.device_get(made)
        asking = []
        for slot in sorted(free[:len(group)] if group else rows):
          yield self._event(rows[slot], starts, *(part[slot] for part in made[:-1]))
          if made[-2][slot] == 0:
            del rows[slot]
          elif made[-1][slot] or len(rows[slot].question) > LONGEST_CALL:
            asking.append(slot)
        if asking:
          answers = list(pool.map(lambda slot: rows[slot].answer(), asking))
          state = self._tell(state, asking, answers)

  def _event(self, row: _Row, starts, token_C, logprob_C, sampled_C, alive_C, left):
    count = int(alive_C.sum())
    row.made += count
    ids, sampled = token_C[:count].tolist(), sampled_C[:count].tolist()
    for token, was_sampled in zip(ids, sampled):
      if was_sampled:
        row.read(token, starts)
    stopped = bool(ids) and sampled[-1] and ids[-1] in row.stop
    kept = count - stopped
    return (row.index, ids[:kept], logprob_C[:count].tolist(), sampled[:kept],
            stopped if left == 0 else None)

  def _narrowed(self, state: Slots, rows: dict[int, _Row]) -> tuple[Slots, dict[int, _Row]]:
    """Halves the slots as often as the rows allow, on one CPU device."""
    wide = state.left_B.size
    while wide % 2 == 0 and wide > NARROWEST_LANE and len(rows) <= wide // 2:
      wide //= 2
    if wide == state.left_B.size or not self._narrows or len(state.left_B.devices()) > 1:
      return state, rows
    free = [slot for slot in range(state.left_B.size) if slot not in rows]
    kept = sorted([*rows, *free[:wide - len(rows)]])
    return (self._take(state, np.asarray(kept)),
            {new: rows[old] for new, old in enumerate(kept) if old in rows})

  def _tell(self, state: Slots, slots: list[int], answers: list[list[int]]) -> Slots:
    """Hands the tools' answers to the rows that asked."""
    forced_BF = np.zeros(state.forced_BF.shape, np.int32)
    forced_B = np.full(state.forced_B.shape, -1, np.int32)
    for slot, ids in zip(slots, answers):
      ids = ids[:LONGEST_FORCED - 1] + ids[-1:] if len(ids) > LONGEST_FORCED else ids
      forced_BF[slot, LONGEST_FORCED - len(ids):], forced_B[slot] = ids, len(ids)
    return self._force(state, forced_BF, forced_B)

  def _request(self, index: int, prompt: Sequence[int], sampling: Sampling):
    if not 0 < len(prompt) < self.length:
      raise InputError(f'prompt {index} has {len(prompt)} tokens, but the context holds 1 to '
                       f'{self.length - 1} before the first new one: shorten it, or train with a '
                       'larger --model.context.')
    if len(self._stop + sampling.stop) > MOST_STOPS:
      raise InputError(f'prompt {index} has {len(self._stop + sampling.stop)} ids that end it, of '
                       f'which at most {MOST_STOPS} are looked at: give fewer in --sample.stop.')
    return index, tuple(prompt), min(sampling.max_tokens, self.length - len(prompt)), sampling

  def _cast(self, params: Any) -> Any:
    """Matrices in the compute dtype: every step would read and cast them anew."""
    cast = lambda leaf: leaf.astype(self.config.dtype) if leaf.ndim > 1 else leaf
    return jax.tree.map(cast, params)

  def _cache_for(self, positions: int) -> int:
    return min(max(SMALLEST_CACHE, _bucket(positions)), self.length)

  def _grown(self, state: Slots, positions: int) -> Slots:
    length = self._cache_for(positions)
    if length <= cache_lib.length(state.cache):
      return state
    return state._replace(cache=self._resize(state.cache, length=length))

  def _fill(self, params, state: Slots, group: dict[int, tuple], ends, truncate: bool):
    """Prefills requests into their slots; pads their number to a power of two, prompts to a bucket."""
    prompts = list(dict.fromkeys(prompt for _, prompt, _, _ in group.values()))
    count = min(_power(len(prompts)), self._wide)
    bucket = min(max(SMALLEST_BUCKET, _bucket(max(map(len, prompts)))), self.length)
    tokens_RP, length_R = np.zeros((count, bucket), np.int32), np.ones(count, np.int32)
    for row, prompt in enumerate(prompts):
      tokens_RP[row, :len(prompt)], length_R[row] = prompt, len(prompt)
    fields = {name: np.zeros(self._wide, dtype) for name, dtype in dict(
        left=np.int32, seed=np.uint32, temperature=np.float32, top_k=np.int32,
        top_p=np.float32).items()}
    fields['stop'] = np.full((self._wide, MOST_STOPS), -1, np.int32)
    source_B = np.full(self._wide, -1, np.int32)
    for slot, (_, prompt, left, sampling) in group.items():
      source_B[slot] = prompts.index(prompt)
      values = dict(left=left, seed=sampling.seed & 0xFFFFFFFF, top_k=sampling.top_k,
                    temperature=sampling.temperature, top_p=sampling.top_p)
      for name, value in values.items():
        fields[name][slot] = value
      stop = self._stop + sampling.stop
      fields['stop'][slot, :len(stop)] = stop
    return self._prefill(params, state, tokens_RP, length_R, source_B, fields, ends,
                         truncate=truncate)


def _next(waiting: list[tuple], room: int) -> list[tuple]:
  """Takes from the end of the requests those that are prefilled together, `room` at most."""
  group, prompts, longest = [], set(), 0
  while waiting and len(group) < room:
    prompt = waiting[-1][1]
    prompts.add(prompt)
    longest = max(longest, len(prompt))
    if group and len(prompts) * longest > MOST_PREFILLED:
      break
    group.append(waiting.pop())
  return group


def _together(runs: Sequence[Iterator]) -> Iterator:
  """Yields what all iterators yield, each of them read in a thread of its own."""
  found, stopped = queue.SimpleQueue(), threading.Event()

  def read(run: Iterator) -> None:
    for event in run:
      found.put(event)
      if stopped.is_set():
        break

  with concurrent.futures.ThreadPoolExecutor(len(runs)) as pool:
    try:
      for run in runs:
        pool.submit(read, run).add_done_callback(found.put)
      going = len(runs)
      while going:
        event = found.get()
        if isinstance(event, concurrent.futures.Future):
          event.result()  # raises what has ended the thread
          going -= 1
        else:
          yield event
    finally:
      stopped.set()


def _empty(config: ModelConfig, slots: int, length: int) -> Slots:
  """Free slots, born where they will lie on the current mesh."""
  zeros = lambda dtype, *shape: jnp.zeros((slots, *shape), dtype)
  state = Slots(cache_lib.empty(config, slots, length), zeros(jnp.int32), zeros(jnp.int32),
                zeros(jnp.int32), zeros(jnp.int32), zeros(bool), zeros(jnp.int32, LONGEST_FORCED),
                zeros(jnp.int32), zeros(jnp.uint32), zeros(jnp.float32), zeros(jnp.int32),
                zeros(jnp.float32), zeros(jnp.int32, MOST_STOPS))
  axes = {1: ('batch',), 2: ('batch', None), 4: ('batch', 'heads', None, None)}
  return jax.tree.map(lambda leaf: nn.with_logical_constraint(leaf, axes[leaf.ndim]), state)


def _told(*arrays: jax.Array) -> tuple[jax.Array, ...]:
  """For the host: whole on every device, so on every process too."""
  return tuple(nn.with_logical_constraint(array, (None,) * array.ndim) for array in arrays)


def _prefill(config, apply, params, state: Slots, tokens_RP, length_R, source_B, fields, ends, *,
             truncate: bool):
  """Runs R right-padded prompts, copies each to its slots, draws the slots' first tokens.

  Slot b takes prompt source_B[b]; -1 leaves it as it is. Returns as `_decode` does, chunk 1.
  """
  out = apply({'params': params}, tokens_RP, cache=cache_lib.empty(config, *tokens_RP.shape))
  hidden_RD = jnp.take_along_axis(out.hidden_BTD, (length_R - 1)[:, None, None], axis=1)[:, 0]
  logits_RV = jnp.einsum('RD,VD->RV', hidden_RD, out.head_VD, preferred_element_type=jnp.float32)
  zero_B = jnp.zeros_like(source_B)
  token_B, logprob_B = choose(
      logits_RV[source_B], fields['temperature'], fields['top_k'], fields['top_p'],
      _keys(fields['seed'], zero_B), truncate)
  new_B = source_B >= 0
  def insert(old, new):
    return jnp.where(new_B.reshape(-1, *[1] * (old.ndim - 1)), new, old)
  cache = cache_lib.insert(state.cache, out.cache, source_B)
  left_B = jnp.where(_is_in(token_B, fields['stop']), 0, fields['left'] - 1)
  made = dict(token=token_B, position=length_R[source_B], left=left_B, made=zero_B + 1,
              waits=_is_in(token_B, ends), forced=zero_B,
              **{name: fields[name] for name in ('seed', 'temperature', 'top_k', 'top_p')})
  state = state._replace(cache=cache, stop_BE=insert(state.stop_BE, fields['stop']), **{
      f'{name}_B': insert(getattr(state, f'{name}_B'), value) for name, value in made.items()})
  return state, *_told(token_B[:, None], logprob_B[:, None], new_B[:, None], new_B[:, None],
                       state.left_B, state.waits_B)


def _decode(apply, chunk: int, params, state: Slots, ends, *, truncate: bool):
  """Moves every row on by up to `chunk` tokens; ends early when all rows have stopped or wait.

  Returns the state; tokens, log-probs, where a token was sampled, not forced, and where a row
  was alive, all [B, chunk]; the state's left_B and waits_B.
  """
  B = state.token_B.shape[0]
  length = cache_lib.length(state.cache)
  alive = lambda state: (state.left_B > 0) & ~state.waits_B

  def one(carry):
    step, state, outputs = carry
    alive_B = alive(state)
    position_B = jnp.where(alive_B, state.position_B, length)  # a free row writes nowhere
    out = apply({'params': params}, state.token_B[:, None], position_B[:, None], cache=state.cache)
    drawn_B, logprob_B = choose(
        out.logits()[:, 0], state.temperature_B, state.top_k_B, state.top_p_B,
        _keys(state.seed_B, state.made_B), truncate)
    sampled_B = state.forced_B == 0
    token_B = jnp.where(sampled_B, drawn_B, state.forced_BF[jnp.arange(B), -state.forced_B])
    logprob_B = jnp.where(sampled_B, logprob_B, 0.0)
    left_B = jnp.where(sampled_B & _is_in(token_B, state.stop_BE), 0, state.left_B - 1)
    state = state._replace(
        cache=out.cache, token_B=jnp.where(alive_B, token_B, state.token_B),
        position_B=state.position_B + alive_B, left_B=jnp.where(alive_B, left_B, state.left_B),
        made_B=state.made_B + alive_B,
        waits_B=jnp.where(alive_B, sampled_B & _is_in(token_B, ends), state.waits_B),
        forced_B=state.forced_B - (alive_B & ~sampled_B))
    outputs = tuple(old.at[:, step].set(new) for old, new in
                    zip(outputs, (token_B, logprob_B, sampled_B, alive_B)))
    return step + 1, state, outputs

  outputs = tuple(jnp.zeros((B, chunk), dtype) for dtype in (jnp.int32, jnp.float32, bool, bool))
  going = lambda carry: (carry[0] < chunk) & jnp.any(alive(carry[1]))
  _, state, outputs = jax.lax.while_loop(going, one, (0, state, outputs))
  return state, *_told(*outputs, state.left_B, state.waits_B)


def _force(state: Slots, forced_BF, forced_B) -> Slots:
  """Sets what is forced in next; rows with forced_B -1 stay as they are."""
  told_B = forced_B >= 0
  return state._replace(
      forced_BF=jnp.where(told_B[:, None], forced_BF, state.forced_BF),
      forced_B=jnp.where(told_B, forced_B, state.forced_B), waits_B=state.waits_B & ~told_B)


def _keys(seed_B, count_B) -> jax.Array:
  """A key from a row's seed and its number of tokens, so that neighbours do not matter."""
  return jax.vmap(lambda seed, count: jax.random.fold_in(jax.random.key(seed), count))(
      seed_B, count_B)


def _is_in(token_B, ids) -> jax.Array:
  """bool [B]: whether a row's token is one of `ids`, [E] of all rows or [B, E] of each."""
  return jnp.any(token_B[:, None] == ids, axis=1)


def _power(n: int) -> int:
  return 1 << (n - 1).bit_length()


def _bucket(n: int) -> int:
  """The least power of two, or three quarters of one, that holds n: at most a third is padding."""
  power = _power(n)
  return power * 3 // 4 if power >= 32 and n <= power * 3 // 4 else power
