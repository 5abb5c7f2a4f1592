"""Which XLA flags this jaxlib takes: each is tried in a process of its own.

python -m experiments.bench.xla_flags

XLA ends a process that gives it a flag it does not know, and names change from release to release:
copy into XLA_FLAGS only what is accepted here. What is worth it, experiments.bench.train says.
"""

import concurrent.futures
import dataclasses
import os
import subprocess
import sys

from experiments.bench import train
from nanollm_jax import InputError, flags, metrics

# Accepted by jaxlib 0.10.2; on one GPU the first two matter, the others are for several.
ALLOWED = (
    '--xla_gpu_enable_triton_gemm=false', '--xla_gpu_enable_command_buffer=FUSION,CUBLAS,CUDNN',
    '--xla_gpu_enable_latency_hiding_scheduler=true',
    '--xla_gpu_enable_while_loop_double_buffering=true',
    '--xla_gpu_enable_pipelined_all_gather=true', '--xla_gpu_enable_pipelined_reduce_scatter=true',
    '--xla_gpu_all_reduce_combine_threshold_bytes=134217728',
    '--xla_gpu_all_gather_combine_threshold_bytes=134217728',
    '--xla_gpu_reduce_scatter_combine_threshold_bytes=134217728',
    '--xla_gpu_enable_highest_priority_async_stream=true')


@dataclasses.dataclass(frozen=True)
class BenchConfig:
  """What is tried.

  flags: XLA flags, each --name=value.
  out: a file to write the answers to as JSON.
  """
  flags: tuple[str, ...] = ALLOWED
  out: str = ''

  def __post_init__(self):
    for flag in self.flags:
      if not flag.startswith('--xla_'):
        raise InputError(f'--bench.flags={flag}: give flags of XLA, --xla_name=value.')


@dataclasses.dataclass(frozen=True)
class Config:
  """The trial of XLA flags."""
  bench: BenchConfig = BenchConfig()


def accepted(flag: str) -> bool:
  """Whether a fresh process computes something under this flag."""
  return subprocess.run(
      [sys.executable, '-c', 'import jax; jax.jit(lambda x: x + 1)(1).block_until_ready()'],
      env=os.environ | dict(XLA_FLAGS=flag), capture_output=True, check=False).returncode == 0


def main(config: Config) -> None:
  config = config.bench
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    answers = dict(zip(config.flags, pool.map(accepted, config.flags)))
  report = dict(environment=metrics.environment(), accepted=answers)
  words = '\n'.join(f'{"accepted" if yes else "REFUSED":10}{flag}' for flag, yes in answers.items())
  train.publish(report, words, config.out)


if __name__ == '__main__':
  flags.run(main, Config)
