"""What a run writes and shows while it goes: numbers, texts, speed, a progress line."""

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
from tensorboardX import SummaryWriter

# Dense bf16 FLOP/s of one chip, by device kind (vendors' data sheets).
PEAK_FLOPS = {
    'H200': 989e12, 'H100': 989e12, 'A100': 312e12, 'L4': 121e12, 'RTX 4090': 165e12,
    'TPU v4': 275e12, 'TPU v5 lite': 197e12, 'TPU v5e': 197e12, 'TPU v5p': 459e12,
    'TPU v5': 459e12, 'TPU v6 lite': 918e12, 'TPU v6e': 918e12,
}


# Bytes/s of the memory of one chip, from the same sheets.
PEAK_BANDWIDTH = {
    'H200': 4.8e12, 'H100': 3.35e12, 'A100': 2.04e12, 'L4': 3.0e11, 'RTX 4090': 1.01e12,
    'TPU v4': 1.23e12, 'TPU v5 lite': 8.2e11, 'TPU v5e': 8.2e11, 'TPU v5p': 2.77e12,
    'TPU v5': 2.77e12, 'TPU v6 lite': 1.64e12, 'TPU v6e': 1.64e12,
}


def peak_flops(device: jax.Device | None = None) -> float | None:
  """Peak bf16 FLOP/s of a device, or None where it is not known (a CPU, say)."""
  return _of_device(PEAK_FLOPS, device)


def peak_bandwidth(device: jax.Device | None = None) -> float | None:
  """Peak bytes/s of a device's memory, or None where it is not known."""
  return _of_device(PEAK_BANDWIDTH, device)


def _of_device(peaks: dict[str, float], device: jax.Device | None) -> float | None:
  kind = (device or jax.devices()[0]).device_kind
  return next((peak for name, peak in peaks.items() if name in kind), None)


def environment() -> dict[str, Any]:
  """Versions and devices of this run, for its report."""
  devices = jax.devices()
  versions = {name: importlib.metadata.version(name)
              for name in ('jax', 'flax', 'optax', 'orbax-checkpoint', 'numpy')}
  return dict(
      python=sys.version.split()[0], **versions, platform=devices[0].platform,
      device=devices[0].device_kind, devices=len(devices), processes=jax.process_count(),
      cores=len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count())


def journal(path: pathlib.Path, from_step: int) -> TextIO:
  """Opens a JSONL file of rows with a `step`, cut back to the step that a run goes on from.

  So a killed and resumed run leaves the rows that an uninterrupted one would have left. Every
  line that is written is flushed.
  """
  aside = path.with_suffix('.part')
  aside.write_text(''.join(
      json.dumps(row) + '\n' for row in read_rows(path) if row['step'] <= from_step))
  aside.replace(path)
  return path.open('a', buffering=1)


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

  Only the first process writes. Rates are over the time since the last row, less the time
  spent under `aside` (evaluation, samples, checkpoints).
  """

  def __init__(self, workdir: str | pathlib.Path, *, from_step: int, steps: int,
               tokens_per_step: int, flops_per_step: float):
    self.steps, self.tokens_per_step, self.flops_per_step = steps, tokens_per_step, flops_per_step
    self._writes = jax.process_index() == 0
    self._last = (from_step, time.perf_counter())
    self._aside = 0.0
    peak = peak_flops()
    self._peak = peak * jax.device_count() if peak else None
    if not self._writes:
      return
    workdir = pathlib.Path(workdir)
    self._metrics = journal(workdir / 'metrics.jsonl', from_step)
    self._samples = journal(workdir / 'samples.jsonl', from_step)
    self._board = SummaryWriter(str(workdir / 'tensorboard'), purge_step=from_step + 1)
    self._console = Console(highlight=False)
    self._progress = Progress(
        TextColumn('{task.description}'), BarColumn(bar_width=20),
        TextColumn('{task.completed}/{task.total}'), TimeRemainingColumn(compact=True),
        TextColumn('{task.fields[numbers]}'), console=self._console,
        disable=not self._console.is_terminal)
    self._task = self._progress.add_task('training', total=steps, completed=from_step, numbers='')
    self._progress.start()

  @contextlib.contextmanager
  def aside(self) -> Iterator[None]:
    """A context whose time does not count as training time."""
    since = time.perf_counter()
    yield
    self._aside += time.perf_counter() - since

  def speed(self, step: int) -> dict[str, float]:
    """tokens/s (positions of the batch, padding among them), step time in s, MFU if known."""
    now = time.perf_counter()
    then, since = self._last
    seconds = max(now - since - self._aside, 1e-9) / max(1, step - then)
    self._last, self._aside = (step, now), 0.0
    speed = dict(tokens_per_second=self.tokens_per_step / seconds, step_seconds=seconds)
    if self._peak:
      speed['mfu'] = self.flops_per_step / seconds / self._peak
    return speed

  def numbers(self, step: int, values: dict[str, float]) -> None:
    """Writes one row of numbers everywhere."""
    if not self._writes:
      return
    self._metrics.write(json.dumps({'step': step, **values}) + '\n')
    for name, value in values.items():
      self._board.add_scalar(name, value, step)
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
      self._progress.stop()
      for part in (self._metrics, self._samples, self._board):
        part.close()


SHORT = {'loss': 'loss', 'bits_per_byte': 'bits/byte', 'tokens_per_second': 'tok/s', 'mfu': 'MFU',
         'streak': 'not finite in a row'}
