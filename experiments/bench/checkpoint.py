"""What a checkpoint costs: seconds that a save holds the step up, and from a restart to a step.

python -m experiments.bench.checkpoint

The restart is a new process: imports, restoring, compiling (from the cache where there is one) and
the first step.
"""

import contextlib
import dataclasses
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import jax
import numpy as np

from experiments import workdir
from experiments.bench import train
from nanollm_jax import InputError, checkpoint, flags, metrics
from nanollm_jax.model import transformer
from nanollm_jax.model.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class BenchConfig:
  """What is timed.

  size: one of those of experiments.bench.train; 124M parameters by default.
  family: gpt2, qwen3 or llama.
  saves: checkpoints that are saved.
  steps: training steps between two saves.
  batch: rows of a batch; 0 means the size's own number.
  folder: where to write, such as the disk that runs are on; empty: the system's temporary one.
  restart: set by the benchmark itself: restore from this workdir and make a step.
  out: a file to write the numbers to as JSON.
  """
  size: str = 'gpt2-124M'
  family: str = 'gpt2'
  saves: int = 5
  steps: int = 5
  batch: int = 0
  folder: str = ''
  restart: str = ''
  out: str = ''

  def __post_init__(self):
    train.BenchConfig(sizes=(self.size,), families=(self.family,), rounds=self.saves,
                      steps=self.steps)


@dataclasses.dataclass(frozen=True)
class Config:
  """The checkpoint benchmark."""
  bench: BenchConfig = BenchConfig()


def trainer(config: BenchConfig) -> train.Trainer:
  """The model of the flags, ready to step on a batch of random tokens."""
  rows, shape = train.SIZES[config.size]
  model = ModelConfig(family=config.family, **shape).resolve()
  tokens_BT = np.random.default_rng(0).integers(
      model.vocabulary, size=(config.batch or rows, model.context), dtype=np.int32)
  return train.Trainer(model, tokens_BT)


def saving(config: BenchConfig, folder: str) -> dict[str, Any]:
  """Saves every few steps, the step going on beside; seconds of each part, by save."""
  run = trainer(config)
  run.steps(2)
  plain = run.steps(config.steps)['seconds'] / config.steps
  blocked, beside, written = [], [], []
  with contextlib.closing(checkpoint.Checkpoints(folder)) as checkpoints:
    for number in range(1, config.saves + 1):
      start = time.perf_counter()
      checkpoints.save(number, run.state)
      blocked.append(time.perf_counter() - start)
      beside.append(run.steps(config.steps)['seconds'] / config.steps)
      checkpoints.wait()
      written.append(time.perf_counter() - start)
  size = sum(path.stat().st_size for path in pathlib.Path(folder).rglob('*') if path.is_file())
  return dict(parameters=transformer.count(run.model),
              state_gb=sum(leaf.nbytes for leaf in jax.tree.leaves(run.state)) / 1e9,
              disk_gb=size / 1e9 / min(config.saves, 2), step_seconds=plain,
              blocked_seconds=blocked, step_seconds_beside=beside, written_seconds=written)


def restart(config: BenchConfig) -> dict[str, float]:
  """Restores and makes a step; the seconds of each."""
  start = time.perf_counter()
  run = trainer(config)
  built = time.perf_counter()
  with contextlib.closing(checkpoint.Checkpoints(config.restart)) as checkpoints:
    run.state, _ = checkpoints.restore(workdir.with_sharding(run.state, run.shardings))
    jax.block_until_ready(run.state)
  restored = time.perf_counter()
  run.steps(1)
  return dict(fresh_state=built - start, restore=restored - built,
              first_step=time.perf_counter() - restored)


def table(report: dict[str, Any]) -> str:
  """The report in words."""
  row, middle = report['saving'], statistics.median
  parts = ', '.join(f'{name.replace("_", " ")} {value:.1f}'
                    for name, value in report['restart'].items() if name != 'seconds')
  return '\n'.join([
      ', '.join(f'{name} {value}' for name, value in report['environment'].items()),
      f'{row["parameters"]:,} parameters, {row["state_gb"]:.2f} GB of state, {row["disk_gb"]:.2f} '
      f'GB on disk; medians of {len(row["blocked_seconds"])} saves',
      f'a save holds the step up for {middle(row["blocked_seconds"]):.3f} s and is on disk after '
      f'{middle(row["written_seconds"]):.2f} s',
      f'a step takes {row["step_seconds"]:.3f} s, beside a save '
      f'{middle(row["step_seconds_beside"]):.3f} s',
      f'from a restart to the end of the first step {report["restart"]["seconds"]:.1f} s ({parts}, '
      'the rest imports)'])


def main(config: Config) -> None:
  config = config.bench
  if config.restart:
    print(json.dumps(restart(config)))
    return
  if config.folder and not pathlib.Path(config.folder).is_dir():
    raise InputError(f'--bench.folder={config.folder} is not a folder: make it, or leave the flag '
                     'out.')
  with tempfile.TemporaryDirectory(dir=config.folder or None) as folder:
    report = dict(environment=metrics.environment(), config=dataclasses.asdict(config),
                  saving=saving(config, folder))
    again = dataclasses.replace(config, restart=folder, out='')
    command = flags.to_text(Config(again)).split()
    start = time.perf_counter()
    done = subprocess.run([sys.executable, '-m', 'experiments.bench.checkpoint', *command],
                          stdout=subprocess.PIPE, text=True, check=True)
    report['restart'] = dict(seconds=time.perf_counter() - start,
                             **json.loads(done.stdout.splitlines()[-1]))
  train.publish(report, table(report), config.out)


if __name__ == '__main__':
  flags.run(main, Config)
