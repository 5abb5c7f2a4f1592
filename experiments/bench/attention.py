"""How fast attention is, forward and backward: every backend that runs here, in turn.

python -m experiments.bench.attention

Each backend is compared with the reference first, on packed rows. FLOPs are counted as
FlashAttention does (arXiv:2205.14135): 4 B T^2 N H forward, 2.5 times that backward, half of it for
causality; work that documents of packed rows save is not taken off.
"""

import dataclasses
import re
import statistics
import time
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import train
from nanollm_jax import InputError, flags, metrics
from nanollm_jax.model import attention as attention_lib, kernels


@dataclasses.dataclass(frozen=True)
class BenchConfig:
  """What is timed.

  shapes: rows x positions x heads x key heads x head size.
  backends: xla, cudnn, cudnn_packed, splash; empty: those that this device runs.
  dtype: bfloat16 or float32; empty: float32 on a CPU, else bfloat16.
  documents: documents of a packed row, of equal lengths.
  rounds: rounds of all in turn; their median counts.
  steps: calls of a round.
  out: a file to write the numbers to as JSON.
  """
  shapes: tuple[str, ...] = ('16x1024x12x12x64', '8x2048x16x16x128', '8x2048x16x8x128')
  backends: tuple[str, ...] = ()
  dtype: Literal['', 'bfloat16', 'float32'] = ''
  documents: int = 8
  rounds: int = 5
  steps: int = 10
  out: str = ''

  def __post_init__(self):
    for shape in self.shapes:
      if not re.fullmatch(r'[1-9]\d*(x[1-9]\d*){4}', shape):
        raise InputError(f'--bench.shapes={shape}: give rows x positions x heads x key heads x '
                         'head size, such as 16x1024x12x12x64.')
      _, _, heads, key_heads, _ = map(int, shape.split('x'))
      if heads % key_heads:
        raise InputError(f'--bench.shapes={shape}: {key_heads} key heads do not divide {heads} '
                         'heads.')
    for name in self.backends:
      if name not in ('xla', *kernels.KERNELS):
        raise InputError(f'--bench.backends={name} is not known: choose among xla, '
                         f'{", ".join(kernels.KERNELS)}.')
    if min(self.documents, self.rounds, self.steps) < 1:
      raise InputError('--bench.documents, --bench.rounds and --bench.steps are at least 1.')


@dataclasses.dataclass(frozen=True)
class Config:
  """The attention benchmark."""
  bench: BenchConfig = BenchConfig()


def run_of(backend: str, shape: tuple[int, ...], dtype: str, documents: int) -> train.Run:
  """Forward and backward of one backend, jitted; `documents` 0: rows are not packed."""
  B, T, N, K, H = shape
  rng = np.random.default_rng(0)
  q, k, v, weight = (jnp.asarray(rng.normal(size=(B, T, heads, H)), dtype)
                     for heads in (N, K, K, N))
  ids_BT = np.broadcast_to(np.arange(T) * documents // T, (B, T)).astype(np.int32)
  segment_ids_BT = jnp.asarray(ids_BT) if documents else None
  def loss(q, k, v):
    out = attention_lib.attention(q, k, v, segment_ids_BT=segment_ids_BT, backend=backend)
    return jnp.sum((out * weight).astype(jnp.float32))
  both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))

  def run(steps: int) -> dict[str, float]:
    start = time.perf_counter()
    for _ in range(steps):
      out = both(q, k, v)
    jax.block_until_ready(out)
    return dict(seconds=(time.perf_counter() - start) / steps)
  return run


def measure(text: str, config: BenchConfig) -> list[dict[str, Any]]:
  """Times one shape with every backend, whole and packed; returns rows of numbers."""
  shape = B, T, N, K, H = tuple(map(int, text.split('x')))
  dtype = config.dtype or ('float32' if jax.default_backend() == 'cpu' else 'bfloat16')
  rows, runs = [], {}
  for backend in config.backends or ('xla', *kernels.KERNELS):
    for kind, documents in (('whole', 0), ('packed', config.documents)):
      row = dict(shape=text, dtype=dtype, backend=backend, rows=kind)
      call = kernels.Call(B, T, N, K, H, dtype, bool(documents))
      reason = '' if backend == 'xla' else kernels.why_not(backend, call)
      if not reason and not config.backends and backend == 'splash' and (
          jax.default_backend() == 'cpu'):
        reason = 'interpreted on a CPU'
      if not reason and backend != 'xla':
        reason = attention_lib.unsound(backend, H, dtype)
      if not reason:
        runs[backend, kind] = run_of(backend, shape, dtype, documents)
      rows.append(row | (dict(why_not=reason) if reason else {}))
  results = train.rounds(runs, config.rounds, config.steps)
  peak = metrics.peak_flops()
  for row in rows:
    if found := results.get((row['backend'], row['rows'])):
      seconds = statistics.median(one['seconds'] for one in found)
      flops = 3.5 * 4 * B * T**2 * N * H / 2 / seconds
      row.update(seconds=seconds, tflops=flops / 1e12, round_seconds=[
          one['seconds'] for one in found], **(dict(share_of_peak=flops / peak) if peak else {}))
  return rows


def table(report: dict[str, Any]) -> str:
  """The report in words and columns."""
  config = report['config']
  lines = [', '.join(f'{name} {value}' for name, value in report['environment'].items()),
           f'forward and backward; median of {config["rounds"]} rounds of {config["steps"]}; '
           f'packed: {config["documents"]} documents a row',
           f'{"shape":22}{"dtype":10}{"backend":14}{"rows":8}{"ms":>9}{"TFLOP/s":>9}{"of peak":>9}']
  for row in report['rows']:
    line = f'{row["shape"]:22}{row["dtype"]:10}{row["backend"]:14}{row["rows"]:8}'
    if 'why_not' in row:
      lines.append(f'{line} not run: {row["why_not"]}')
      continue
    share = f'{row["share_of_peak"]:9.1%}' if 'share_of_peak' in row else f'{"-":>9}'
    lines.append(f'{line}{1e3 * row["seconds"]:9.2f}{row["tflops"]:9.2f}{share}')
  return '\n'.join(lines)


def main(config: Config) -> None:
  config = config.bench
  report = dict(environment=metrics.environment(), config=dataclasses.asdict(config),
                rows=[row for shape in config.shapes for row in measure(shape, config)])
  train.publish(report, table(report), config.out)


if __name__ == '__main__':
  flags.run(main, Config)
