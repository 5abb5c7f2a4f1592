"""Rankings for preferences: the completions of a prompt, the best first, as tokens in batches."""

import dataclasses
import glob
import json
import os
import pathlib
import random
from typing import Any, NamedTuple, Sequence

import numpy as np

from nanollm_jax import InputError
from nanollm_jax.data import formats, rejected
from nanollm_jax.data.conversations import draw


@dataclasses.dataclass(frozen=True)
class RankingDataConfig:
  """Which rankings are learned.

  rankings: files or globs; .jsonl (also .gz, .zst) or .json with a prompt and its completions, the
    best first, or in the formats of HH-RLHF or oasst1
  validation_fraction: part of the prompts kept for validation, by a hash of their text
  strict: stop at the first line that cannot be used instead of setting it aside
  """
  rankings: tuple[str, ...] = ()
  validation_fraction: float = 0.1
  strict: bool = False

  def __post_init__(self):
    if not 0 <= self.validation_fraction < 1:
      raise InputError(f'--data.validation_fraction={self.validation_fraction} must be 0 or more '
                       'and less than 1.')


class Ranked(NamedTuple):
  """A ranking, and the tokens of each completion after those of the prompt.

  ids: np.int32 ids up to the end of the turn, the best first
  start: how many of them are the prompt's
  ref_logprobs: log-probability of each completion by a reference, where one has spoken
  """
  ranking: formats.Ranking
  ids: list[np.ndarray]
  start: int
  ref_logprobs: np.ndarray | None = None


def prepare(config: RankingDataConfig, chat: Any, context: int,
            workdir: str | os.PathLike) -> dict[str, list[Ranked]]:
  """Renders rankings, prints how many there are, and sets bad lines aside in `rejected.jsonl`.

  A line with a tie, with one completion or the same one twice, or with a completion that does not
  fit the context after its prompt is a bad one. A prompt is in one split only.

  Args:
    config: what to read.
    chat: has render(messages) and prompt(messages); see `text.chat.Chat`.
    context: the most tokens of a prompt and a completion.
    workdir: the folder of the run.

  Returns:
    {'train': rankings} and, if any is for validation, {'validation': rankings}.

  Raises InputError for files that cannot be read or give nothing, and if strict at a bad line.
  """
  def rendered(ranking: formats.Ranking) -> Ranked:
    ids = [np.array(chat.render([*ranking.prompt, {'role': 'assistant', 'content': said}]).ids,
                    np.int32) for said in ranking.completions]
    if (longest := max(map(len, ids))) > context:
      raise InputError(f'its longest completion ends at token {longest}, beyond '
                       f'--model.context={context}.')
    return Ranked(ranking, ids, len(chat.prompt(ranking.prompt)))

  held: dict[str, list[Ranked]] = {'train': [], 'validation': []}
  with rejected.set_aside(workdir, config.strict) as (reject, bad):
    for path in _files(config.rankings):
      for one in formats.rankings(path, reject, rendered):
        text = json.dumps(one.ranking.prompt, sort_keys=True)
        held_out = draw(text, 'split') < config.validation_fraction
        held['validation' if held_out else 'train'].append(one)
  if not held['train']:
    raise InputError('no ranking is left for training: see in rejected.jsonl of the workdir why, '
                     'give more --data.rankings, or lower --data.validation_fraction.')
  for split, some in held.items():
    print(f'{split}: {len(some):,} rankings of {sum(len(one.ids) for one in some):,} completions')
  print(f'{len(bad):,} rejected')
  return {split: some for split, some in held.items() if some}


def _files(patterns: Sequence[str]) -> list[pathlib.Path]:
  if not patterns:
    raise InputError('there are no rankings: give --data.rankings files such as '
                     'runs/world/rankings.jsonl.')
  found = []
  for pattern in patterns:
    names = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
    if not names:
      raise InputError(f'--data.rankings={pattern} matches no file. Check the path.')
    found += map(pathlib.Path, names)
  return found


def size(held: Sequence[Ranked], context: int) -> tuple[int, int]:
  """(K, T) of batches: the most completions, and the longest one up to a multiple of 16."""
  longest = max(len(ids) for one in held for ids in one.ids)
  return max(len(one.ids) for one in held), min(context, -(-longest // 16) * 16)


def gold(held: Sequence[Ranked]) -> list[list[float]] | None:
  """The true scores of all rankings, or None where some have none."""
  scores = [one.ranking.gold for one in held]
  return scores if all(scores) else None


def probes(chat: Any, held: Sequence[Ranked], context: int) -> dict[str, list[list[int]]]:
  """Completions such as none was ranked: what a reward model says of them nobody has taught it."""
  rng, found = random.Random(0), {}
  for prompt, (best, *_), _ in (one.ranking for one in held):
    said = best if isinstance(best, str) else ''.join(part['text'] for part in best)
    words = said.split() or ['the']
    texts = {'best': said, 'empty': '', 'shuffled': ' '.join(rng.sample(words, len(words))),
             'repeated': ' '.join([max(words, key=len)] * len(words)),
             'prompt again': str(prompt[-1]['content'])}
    for name, text in texts.items():
      row = chat.render([*prompt, {'role': 'assistant', 'content': text}]).ids
      if len(row) <= context:
        found.setdefault(name, []).append(row)
  return found


def batch_of(some: Sequence[Ranked], batch_size: int, completions: int,
             length: int) -> dict[str, np.ndarray]:
  """At most B rankings as one batch of arrays: B x K completions of T tokens.

  Returns a dict of np.int32: 'tokens' [B, K, T], padded with 0 behind; 'lengths' [B, K], 0 where
  there is no completion; 'starts' [B], the tokens of the prompt; and np.float32 'ref_logprobs'
  [B, K] if a reference has spoken.
  """
  batch = {'tokens': np.zeros((batch_size, completions, length), np.int32),
           'lengths': np.zeros((batch_size, completions), np.int32),
           'starts': np.zeros(batch_size, np.int32)}
  for row, one in enumerate(some):
    batch['starts'][row] = one.start
    for place, ids in enumerate(one.ids):
      batch['tokens'][row, place, :len(ids)] = ids
      batch['lengths'][row, place] = len(ids)
    if one.ref_logprobs is not None:
      ref_BK = batch.setdefault('ref_logprobs', np.zeros((batch_size, completions), np.float32))
      ref_BK[row, :len(one.ids)] = one.ref_logprobs
  return batch


class Batches:
  """Iterates for ever over batches of rankings, each epoch in another order; see `batch_of`.

  Args:
    held: the rankings; each comes once an epoch, a batch may hold the end of one and the next.
    batch_size: B, the rankings of this process.
    completions: K, at least as many as any ranking has.
    length: T, at least as long as any completion with its prompt.
    seed: decides the order.
    process_index: which of process_count slices of each global batch is ours.
    process_count: the slices.
  """

  def __init__(self, held: Sequence[Ranked], *, batch_size: int, completions: int, length: int,
               seed: int = 0, process_index: int = 0, process_count: int = 1):
    self._held, self._shape, self._seed = held, (batch_size, completions, length), seed
    self._process = process_index, process_count
    self._next, self._epoch, self._order = 0, -1, np.zeros(0, np.int64)

  def get_state(self) -> dict[str, int]:
    return {'next': self._next}

  def set_state(self, state: dict[str, int]) -> None:
    self._next = state['next']

  def close(self) -> None:
    """There is nothing to end: batches are made when they are asked for."""

  def __next__(self) -> dict[str, np.ndarray]:
    (index, count), size = self._process, self._shape[0]
    first = self._next + index * size
    self._next += count * size
    return batch_of([self._held[self._at(first + row)] for row in range(size)], *self._shape)

  def _at(self, number: int) -> int:
    """Which ranking stands at a place in the endless sequence of epochs."""
    epoch, place = divmod(number, len(self._held))
    if epoch != self._epoch:
      self._epoch = epoch
      self._order = np.random.default_rng([self._seed, epoch]).permutation(len(self._held))
    return self._order[place]
