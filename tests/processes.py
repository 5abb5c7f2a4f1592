"""An experiment as a process of its own, which a test can kill."""

import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

from nanollm_jax import flags, metrics

ROOT = pathlib.Path(__file__).parents[1]


def command(config: Any, stage: str = 'pretrain') -> list[str]:
  """How a user starts a stage with this config."""
  path = pathlib.Path(config.workdir).with_suffix('.flags')
  path.write_text(flags.to_text(config))
  return [sys.executable, '-m', f'experiments.{stage}', f'--flagfile={path}', '--jax_platforms=cpu']


def run(config: Any, stage: str = 'pretrain') -> subprocess.CompletedProcess:
  """Runs a stage to its end."""
  return subprocess.run(command(config, stage), cwd=ROOT, capture_output=True, text=True)


def kill(config: Any, stage: str, after: int) -> None:
  """Starts a stage and kills it (-9) at whatever moment after so many steps; it must not end."""
  process = subprocess.Popen(command(config, stage), cwd=ROOT, stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE)
  deadline = time.time() + 300
  while len(numbers(config.workdir, 'loss')) < after and process.poll() is None:
    assert time.time() < deadline, f'no {after} steps in 300 s'
    time.sleep(0.002)
  process.send_signal(signal.SIGKILL)
  _, said = process.communicate()
  assert process.returncode == -signal.SIGKILL, said.decode()


def rows(folder: str) -> list[dict[str, float]]:
  """What a run has measured, but for times."""
  return [{name: value for name, value in row.items() if 'second' not in name}
          for row in metrics.read_rows(pathlib.Path(folder) / 'metrics.jsonl')]


def numbers(folder: str, name: str) -> list[tuple[int, float]]:
  """(step, value) of one of the numbers."""
  return [(row['step'], row[name]) for row in rows(folder) if name in row]
