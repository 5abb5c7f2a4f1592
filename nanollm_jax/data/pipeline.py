"""Batches: packed rows of documents, resumable at any of them, made ahead in grain's thread."""

import bisect
import dataclasses

import grain
import numpy as np

from nanollm_jax import InputError
from nanollm_jax.data.shards import Shards

_WINDOW = 128  # rows that are packed together: more are filled better, but are made in one go


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Where the text comes from.

  documents: files or globs to train on: .txt, .jsonl, .jsonl.gz, .jsonl.zst, .parquet
  validation: files or globs to validate on, beside or instead of a fraction of the documents
  validation_fraction: part of the documents kept for validation
  text_field: the field or column that holds the text
  workers: threads that tokenise
  """
  documents: tuple[str, ...] = ()
  validation: tuple[str, ...] = ()
  validation_fraction: float = 0.0
  text_field: str = 'text'
  workers: int = 1

  def __post_init__(self):
    if not 0 <= self.validation_fraction < 1:
      raise InputError(f'--data.validation_fraction={self.validation_fraction} must be 0 or more '
                       'and less than 1.')
    if self.workers < 1:
      raise InputError(f'--data.workers={self.workers} must be at least 1.')


class _Batches:
  """The batches themselves: windows of pieces, packed at once. Its state is the row that is next.

  Grain's own packing costs 0.2 ms a piece, which starves a fast model of short documents.
  """

  def __init__(self, shards: Shards, batch_size: int, length: int, seed: int,
               process: tuple[int, int], epochs: int | None, shuffle: bool):
    self._shards, self._batch_size, self._length = shards, batch_size, length
    self._seed, self._process, self._shuffle = seed, process, shuffle
    self._ends = np.cumsum(-(-shards.lengths // length))  # pieces up to and with each document
    self._count = int(self._ends[-1])  # pieces in an epoch
    self._stop = None if epochs is None else epochs * self._count
    self._window_size = -(-_WINDOW * length * self._count // shards.tokens)
    self._epoch, self._order = -1, np.zeros(0, np.int64)
    self.set_state({'window': 0, 'row': 0})

  def get_state(self) -> dict[str, int]:
    return {'window': self._window, 'row': self._row}

  def set_state(self, state: dict[str, int]) -> None:
    self._window, self._row = state['window'], state['row']
    self._packed = self._pack(self._window)

  def __next__(self) -> dict[str, np.ndarray]:
    names = ['tokens', 'segment_ids', 'positions', *['loss_mask'] * hasattr(self._shards, 'mask')]
    batch = {name: np.zeros((self._batch_size, self._length), np.int32) for name in names}
    ours, count = self._process
    for number in range(count * self._batch_size):  # of the global batch, which all walk through
      if self._row == len(self._packed):
        self.set_state({'window': self._window + 1, 'row': 0})
      if not self._packed:
        if not number:
          raise StopIteration
        break
      process, place = divmod(number, self._batch_size)
      if process == ours:
        self._fill({name: rows[place] for name, rows in batch.items()}, self._packed[self._row])
      self._row += 1
    return batch

  def _pack(self, window: int) -> list[list[tuple[int, int, int]]]:
    """The rows of a window, each a list of pieces (document, start, stop); none past the end."""
    first, last = window * self._window_size, (window + 1) * self._window_size
    last = last if self._stop is None else min(last, self._stop)
    pieces = np.array([self._piece(index) for index in range(first, last)], np.int64)
    documents = np.searchsorted(self._ends, pieces, side='right')
    starts = (pieces - np.append(0, self._ends)[documents]) * self._length
    stops = np.minimum(starts + self._length, self._shards.lengths[documents])
    found = list(zip(documents.tolist(), starts.tolist(), stops.tolist()))
    rows = best_fit((stops - starts).tolist(), self._length)
    if self._shuffle:
      np.random.default_rng([self._seed, 1, window]).shuffle(rows)
    return [[found[k] for k in row] for row in rows]

  def _piece(self, index: int) -> int:
    """The piece at a place in the endless sequence of epochs, each of which has its own order."""
    epoch, place = divmod(index, self._count)
    if epoch != self._epoch:
      order = np.arange(self._ends[-1])
      if self._shuffle:
        np.random.default_rng([self._seed, 0, epoch]).shuffle(order)
      self._epoch, self._order = epoch, order
    return self._order[place]

  def _fill(self, row: dict[str, np.ndarray], pieces: list[tuple[int, int, int]]) -> None:
    at = 0
    for segment, (document, start, stop) in enumerate(pieces, 1):
      here = slice(at, at + stop - start)
      row['tokens'][here] = self._shards[document][start:stop]
      row['segment_ids'][here] = segment
      row['positions'][here] = np.arange(stop - start)
      if 'loss_mask' in row:
        row['loss_mask'][here] = self._shards.mask(document)[start:stop]
      at = here.stop


def best_fit(sizes: list[int], length: int) -> list[list[int]]:
  """Packs sizes into rows of `length`, largest first, each where it leaves the least space.

  Returns the indices into sizes of every row, in the order in which they were put there.
  """
  rows: list[list[int]] = []
  spaces: list[tuple[int, int]] = []  # (space left, row), sorted
  for index in sorted(range(len(sizes)), key=lambda k: -sizes[k]):
    at = bisect.bisect_left(spaces, (sizes[index],))
    if at == len(spaces):
      rows.append([])
      spaces.append((length, len(rows) - 1))
    space, row = spaces.pop(at)
    rows[row].append(index)
    bisect.insort(spaces, (space - sizes[index], row))
  return rows


def batches(shards: Shards, *, batch_size: int, length: int, seed: int = 0,
            process_index: int = 0, process_count: int = 1, epochs: int | None = None,
            shuffle: bool = True) -> grain.DatasetIterator:
  """Iterates over batches of packed documents, each epoch in another order.

  Documents are never mixed: a row holds whole pieces, told apart by `segment_ids`. Every token
  of every document comes exactly once an epoch. A last partial batch gets empty rows. Without
  shuffling, the order is that of the documents up to packing. Processes take slices of the same
  global batches, so these, their number and the state do not depend on how many processes there
  are.

  Args:
    shards: the documents; conversations also have `mask(index)`, the tokens that are learned.
    batch_size: B, the rows of this process.
    length: T, the tokens of a row; longer documents are cut into pieces of it.
    seed: decides the order.
    process_index: which of process_count slices of each global batch is ours.
    process_count: the slices.
    epochs: passes over the documents; None goes on for ever.
    shuffle: whether to shuffle documents and rows.

  Returns:
    An iterator with next(), get_state() and set_state() (a JSON-able dict, of the batch that was
    last consumed) and close(), which ends its thread. Batches are dicts of np.int32[B, T]:
    'tokens' (0 in padding), 'segment_ids' (1, 2, ... in a row; 0 is padding), 'positions' (from 0
    in each piece) and, of conversations, 'loss_mask'.

  Raises InputError where there is no document.
  """
  if not len(shards):
    raise InputError('there is no document to make batches of: give some.')
  return grain.experimental.ThreadPrefetchDatasetIterator(
      _Batches(shards, batch_size, length, seed, (process_index, process_count), epochs, shuffle),
      2)
