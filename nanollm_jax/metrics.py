"""What a run writes and shows while it goes: numbers, texts, speed, a progress line."""

import collections
import contextlib
import importlib.metadata
import json
import os
import pathlib
import sys
import time
from typing import Any, Iterator, TextIO

import jax
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

# By the kind of a device, the first that is in its name: dense bf16 FLOP/s, bytes/s of its memory
# (vendors' data sheets).
PEAKS = {
    'H200': (989e12, 4.8e12), 'H100 PCIe': (756e12, 2.0e12), 'H100 NVL': (835e12, 3.9e12),
    'H100': (989e12, 3.35e12), 'A100-SXM4-40GB': (312e12, 1.555e12),
    'A100-PCIE-40GB': (312e12, 1.555e12), 'A100': (312e12, 2.04e12),
    'L40S': (362e12, 8.64e11), 'L40': (181e12, 8.64e11), 'L4': (121e12, 3.0e11),
    'RTX 4090': (165e12, 1.01e12), 'TPU v4': (275e12, 1.23e12),
    'TPU v5 lite': (197e12, 8.2e11), 'TPU v5e': (197e12, 8.2e11), 'TPU v5': (459e12, 2.77e12),
    'TPU v6 lite': (918e12, 1.64e12), 'TPU v6e': (918e12, 1.64e12),
}
SHORT = {'loss': 'loss', 'bits_per_byte': 'bits/byte', 'tokens_per_second': 'tok/s', 'mfu': 'MFU',
         'streak': 'not finite in a row'}  # what the terminal says of a step


def peak_flops() -> float | None:
  """Peak bf16 FLOP/s of one device, or None where it is not known (a CPU, say)."""
  return _peaks()[0]


def peak_bandwidth() -> float | None:
  """Peak bytes/s of one device's memory, or None where it is not known."""
  return _peaks()[1]


def _peaks() -> tuple[float | None, float | None]:
  kind = jax.devices()[0].device_kind
  return next((peaks for name, peaks in PEAKS.items() if name in kind), (None, None))


def cores() -> int:
  """CPU cores that this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def environment() -> dict[str, Any]:
  """Versions and devices of this run, for its report."""
  devices = jax.devices()
  versions = {name: importlib.metadata.version(name)
              for name in ('jax', 'flax', 'optax', 'orbax-checkpoint', 'numpy')}
  return dict(
      python=sys.version.split()[0], **versions, platform=devices[0].platform,
      device=devices[0].device_kind, devices=len(devices), processes=jax.process_count(),
      cores=cores())


def journal(path: pathlib.Path, from_step: int) -> TextIO:
  """Opens a JSONL file of rows with a `step`, cut back to the step that a run goes on from (0:
  empty, as what is measured before the first step is measured again).

  So a killed and resumed run leaves the rows that an uninterrupted one would have left. Every
  line that is written is flushed.
  """
  aside = path.with_suffix('.part')
  aside.write_text(''.join(
      json.dumps(row) + '\n' for row in read_rows(path) if row['step'] <= from_step > 0))
  aside.replace(path)
  return path.open('a', buffering=1)


def _history(workdir: pathlib.Path, from_step: int) -> tuple[float, int, float]:
  """Notes this start in starts.jsonl; returns when the first was, how many there were, and how
  many seconds went into the steps that are still there."""
  with (workdir / 'starts.jsonl').open('a') as file:
    file.write(json.dumps(dict(step=from_step, time=time.time())) + '\n')
  starts, useful, before = read_rows(workdir / 'starts.jsonl'), 0.0, 0
  for row in read_rows(workdir / 'metrics.jsonl'):
    if 'step_seconds' in row:
      useful += row['step_seconds'] * (row['step'] - before)
      before = row['step']
  return starts[0]['time'], len(starts), useful


def read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
  """The rows of a JSONL file that have a step; a line that a kill cut short is left out."""
  rows = []
  for line in path.read_bytes().splitlines() if path.exists() else []:
    try:
      row = json.loads(line)
      if type(row['step']) is int:
        rows.append(row)
    except (ValueError, TypeError, LookupError, RecursionError):
      continue
  return rows


def show(value: Any) -> str:
  """A number for people: four digits, or all of a whole one, thousands parted."""
  if isinstance(value, float):
    return f'{value:,.0f}' if 1000 <= abs(value) < 1e15 else f'{value:.4g}'
  return '–' if value is None else f'{value:,}' if type(value) is int else str(value)


class Log:
  """A run's voice: metrics.jsonl, samples.jsonl, TensorBoard files, and the terminal.

  Only the first process writes. Rates are over the time since the last row, less what was spent
  on other things than steps: see `spending`.
  """

  def __init__(self, workdir: str | pathlib.Path, *, from_step: int, steps: int,
               tokens_per_step: int, flops_per_step: float):
    self.steps, self.tokens_per_step, self.flops_per_step = steps, tokens_per_step, flops_per_step
    self._writes = jax.process_index() == 0
    self._last = (from_step, time.perf_counter())
    self._spent: collections.Counter[str] = collections.Counter()
    self.workdir = workdir = pathlib.Path(workdir)
    self._began, self._starts, self._useful = time.time(), 1, 0.0
    if not self._writes:
      return
    self._open = contextlib.ExitStack()
    self._metrics, self._samples = (
        self._open.enter_context(journal(workdir / f'{name}.jsonl', from_step))
        for name in ('metrics', 'samples'))
    self._began, self._starts, self._useful = _history(workdir, from_step)
    (workdir / 'tensorboard').mkdir(exist_ok=True)
    # Not a SummaryWriter: its thread dies of a full disk, and then its queue blocks the run.
    self._board = EventsWriter(str(workdir / 'tensorboard' / 'events'))
    self._open.callback(self._board.close)
    self._board.write_event(  # TensorBoard forgets what a killed run has written after this step
        Event(step=from_step + 1, session_log=SessionLog(status=SessionLog.START)))
    self._console = Console(highlight=False)
    self._progress = Progress(
        TextColumn('{task.description}'), BarColumn(bar_width=20),
        TextColumn('{task.completed}/{task.total}'), TimeRemainingColumn(compact=True),
        TextColumn('{task.fields[numbers]}'), console=self._console,
        disable=not self._console.is_terminal)
    self._task = self._progress.add_task('training', total=steps, completed=from_step, numbers='')
    self._open.enter_context(self._progress)

  @contextlib.contextmanager
  def spending(self, what: str) -> Iterator[None]:
    """A context whose time stands in the next row as `what`_seconds.

    It is not time of the steps either, but for 'data': waiting for a batch slows a step.
    """
    since = time.perf_counter()
    yield
    self._spent[what] += time.perf_counter() - since

  def resize(self, tokens: int, flops: float) -> None:
    """From now on a step has so many tokens and FLOPs."""
    self.tokens_per_step, self.flops_per_step = tokens, flops

  def speed(self, step: int) -> dict[str, float]:
    """tokens/s (positions of the batch, padding among them), MFU if known, and where time went.

    step_seconds and, part of it, data_seconds are of one step; compile_seconds, eval_seconds and
    checkpoint_seconds are all that was spent since the last row, wall_seconds since the first
    start of the run, whoever killed it in between.
    """
    now = time.perf_counter()
    then, since = self._last
    steps, data = max(1, step - then), self._spent.pop('data', 0.0)
    seconds = max(now - since - self._spent.total(), 1e-9) / steps
    speed = dict(tokens_per_second=self.tokens_per_step / seconds, step_seconds=seconds,
                 data_seconds=data / steps)
    speed |= {f'{what}_seconds': spent for what, spent in self._spent.items()}
    speed['wall_seconds'] = time.time() - self._began
    self._useful += seconds * steps
    self._last = (step, now)
    self._spent.clear()
    if peak := peak_flops():
      speed['mfu'] = self.flops_per_step / seconds / peak / jax.device_count()
    return speed

  def goodput(self) -> str:
    """Which share of the time since the first start went into steps that were not lost."""
    wall = time.time() - self._began
    return (f'goodput {self._useful / wall:.0%}: {self._useful:.1f} of {wall:.1f} s went into '
            f'steps that count, in {self._starts} start{"s" * (self._starts > 1)}')

  def numbers(self, step: int, values: dict[str, float]) -> None:
    """Writes one row of numbers everywhere."""
    if not self._writes:
      return
    self._metrics.write(json.dumps({'step': step, **values}) + '\n')
    self._board.write_event(Event(wall_time=time.time(), step=step, summary=Summary(
        value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])))
    self._board.flush()
    line = '  '.join(f'{SHORT.get(name, name)} {show(value)}' for name, value in values.items()
                     if name in SHORT or '/' in name)
    self._progress.update(self._task, completed=step, numbers=line)
    if not self._console.is_terminal or any('/' in name for name in values):
      self.say(f'step {step:>{len(str(self.steps))}}/{self.steps}  {line}')

  def text(self, step: int, name: str, prompt: str, text: str) -> None:
    """Writes one sample, and prints it."""
    if not self._writes:
      return
    self._samples.write(json.dumps(dict(step=step, name=name, prompt=prompt, text=text)) + '\n')
    self._console.print(f'  [dim]{escape(prompt)}[/dim]{escape(text)}', soft_wrap=True)

  def say(self, line: str) -> None:
    """Prints a line above the progress line."""
    if self._writes:
      self._console.print(line, markup=False, soft_wrap=True)

  def close(self) -> None:
    """Closes files and the progress line."""
    if self._writes:
      self._open.close()
