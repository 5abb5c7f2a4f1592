"""Conversations for finetuning: a mixture of files as tokens with a loss mask, kept in memory."""

import collections
import dataclasses
import glob
import hashlib
import json
import os
import pathlib
import re
from typing import Any, Iterator, Literal

import numpy as np

from nanollm_jax import InputError
from nanollm_jax.data import formats, rejected


@dataclasses.dataclass(frozen=True)
class ChatDataConfig:
  """Which conversations are learned, and what of them.

  conversations: files or globs, each of which may end in *WEIGHT: 2 has each conversation twice
    an epoch, 0.5 has a fixed half of them; .jsonl (also .gz, .zst) or .json with messages, or in
    the formats of oasst1, UltraChat, ShareGPT, Alpaca, HH-RLHF or GSM8K
  validation_fraction: part of the conversations kept for validation, by a hash of their text
  strict: stop at the first line that cannot be used instead of setting it aside
  threads: of an oasst1 tree, its best ranked thread or all of them
  train_on: learn all turns of the assistant or only the last of a conversation
  long: truncate or drop conversations longer than a row
  """
  conversations: tuple[str, ...] = ()
  validation_fraction: float = 0.02
  strict: bool = False
  threads: Literal['best', 'all'] = 'best'
  train_on: Literal['all_assistant', 'last_assistant'] = 'all_assistant'
  long: Literal['truncate', 'drop'] = 'truncate'

  def __post_init__(self):
    if not 0 <= self.validation_fraction < 1:
      raise InputError(f'--data.validation_fraction={self.validation_fraction} must be 0 or more '
                       'and less than 1.')
    for source in self.conversations:
      if not _split_weight(source)[1] > 0:
        raise InputError(f'--data.conversations={source} has a weight of 0: leave it out.')


class Conversations:
  """The conversations of one split: a sequence of np.int32 ids, packed as `shards.Shards` is.

  lengths: np.int64[conversations], tokens of each; one of weight 2 comes twice
  tokens: the sum of lengths
  counts: of different conversations, those 'kept', 'truncated', 'dropped' (too long, or nothing
    to learn in them); 'rejected' lines of all files; of an epoch, tokens by role, and 'supervised',
    the fraction of tokens that are learned
  """

  def __init__(self, held: list[tuple[np.ndarray, np.ndarray, int]], counts: dict[str, Any]):
    rows, masks, copies = zip(*held)
    self._ids, self._masks = np.concatenate(rows), np.concatenate(masks)
    ends = np.cumsum([len(row) for row in rows])
    self._starts = np.repeat(np.append(0, ends[:-1]), copies)
    self._ends = np.repeat(ends, copies)
    self.lengths = (self._ends - self._starts).astype(np.int64)
    self.tokens = int(self.lengths.sum())
    learned = sum(int(mask.sum()) * times for mask, times in zip(masks, copies))
    self.counts = counts | {'supervised': learned / self.tokens}

  def __len__(self) -> int:
    return len(self.lengths)

  def __getitem__(self, index: int) -> np.ndarray:
    return self._ids[self._at(index)]

  def mask(self, index: int) -> np.ndarray:
    """np.uint8, 1 for each token of a conversation that is learned."""
    return self._masks[self._at(index)]

  def _at(self, index: int) -> slice:
    if not 0 <= index < len(self):
      raise IndexError(index)
    return slice(self._starts[index], self._ends[index])


def prepare(config: ChatDataConfig, chat: Any, context: int,
            workdir: str | os.PathLike) -> dict[str, Conversations]:
  """Renders a mixture, prints what is in it, and sets bad lines aside in `rejected.jsonl`.

  The same files, settings and tokenizer give the same conversations in the same order.

  Args:
    config: what to read and learn.
    chat: has render(messages) and start_of_turn; see `text.chat.Chat`.
    context: the most tokens of a conversation.
    workdir: the folder of the run.

  Returns:
    {'train': Conversations} and, if any is for validation, {'validation': Conversations}, where
    no weight above 1 applies.

  Raises InputError for files that cannot be read or give nothing, and if strict at a bad line.
  """
  if not config.conversations:
    raise InputError('there are no conversations: give --data.conversations files such as '
                     'chats.jsonl or oasst1.jsonl.gz*2.')
  held = {'train': [], 'validation': []}
  counts = {split: collections.Counter(kept=0, truncated=0, dropped=0) for split in held}
  with rejected.set_aside(workdir, config.strict) as (reject, bad):
    for messages, weight in _mixture(config, reject):
      text = json.dumps(messages, sort_keys=True)
      held_out = draw(text, 'split') < config.validation_fraction
      split = 'validation' if held_out else 'train'
      if copies := int(weight + draw(text, 'weight')):
        copies = min(copies, 1) if held_out else copies
        held[split] += _rendered(messages, copies, config, chat, context, counts[split])
  if not held['train']:
    raise InputError('no conversation is left for training: lower --data.validation_fraction, or '
                     f'give a context of more than {context} tokens.')
  found = {split: Conversations(rows, dict(counts[split], rejected=len(bad)))
           for split, rows in held.items() if rows}
  for split, source in found.items():
    print(f'{split}: {_described(source)}')
  return found


def _split_weight(source: str) -> tuple[str, float]:
  path, weight = re.fullmatch(r'(.*?)(?:\*(\d+(?:\.\d+)?))?', source).groups()
  return path, float(weight or 1)


def _mixture(config: ChatDataConfig,
             reject: formats.Reject) -> Iterator[tuple[formats.Messages, float]]:
  """Yields (messages, weight) of all files, in the order in which they are named."""
  for source in config.conversations:
    pattern, weight = _split_weight(source)
    names = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
    if not names:
      raise InputError(f'--data.conversations={source}: {pattern} matches no file. Check the path.')
    for name in names:
      messages = None
      for messages in formats.conversations(pathlib.Path(name), config.threads, reject):
        yield messages, weight
      if messages is None:
        raise InputError(f'{name} gives no conversation: leave it out, or see in rejected.jsonl '
                         'of the workdir why.')


def draw(text: str, salt: str) -> float:
  """A number in [0, 1) that follows from the text; one for each use."""
  digest = hashlib.blake2b(text.encode(), digest_size=6, salt=salt.encode()).digest()
  return int.from_bytes(digest, 'big') / 2**48


def _rendered(messages: formats.Messages, copies: int, config: ChatDataConfig, chat: Any,
              context: int, counts: collections.Counter) -> list[tuple]:
  """A conversation as [(ids, mask, copies)], or [] if it is dropped."""
  ids, mask, roles = chat.render(messages)
  long = len(ids) > context
  mask = np.array(mask, np.uint8)
  if config.train_on == 'last_assistant':
    mask[:len(ids) - 1 - ids[::-1].index(chat.start_of_turn)] = 0
  if long and config.long == 'drop' or not mask[:context].any():
    counts['dropped'] += 1
    return []
  counts.update(kept=1, truncated=int(long))
  counts.update({role: n * copies for role, n in collections.Counter(roles[:context]).items()})
  return [(np.array(ids[:context], np.int32), mask[:context], copies)]


def _described(source: Conversations) -> str:
  counts = source.counts
  shares = ', '.join(f'{role} {counts[role] / source.tokens:.0%}'
                     for role in ('system', 'user', 'assistant', 'tool') if counts.get(role))
  return (f'{counts["kept"]:,} conversations ({len(source):,} an epoch; {counts["truncated"]:,} '
          f'truncated, {counts["dropped"]:,} dropped), {source.tokens:,} tokens '
          f'({shares}), {counts["supervised"]:.1%} learned')
