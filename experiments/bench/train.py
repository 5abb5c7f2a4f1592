"""How fast a training step is: ours, and a PyTorch twin beside it, in alternating rounds.

python -m experiments.bench.train --bench.torch
python -m experiments.bench.train --bench.sizes=gpt2-124M,gpt2-350M,gpt2-774M,gpt2-1558M
"""

import contextlib
import dataclasses
import functools
import importlib.util
import itertools
import json
import pathlib
import statistics
import subprocess
import sys
import time
from typing import Any, Callable, Iterator, Literal

import jax
import jax.numpy as jnp
import numpy as np

from experiments import pretrain, training
from nanollm_jax import InputError, flags, mesh as mesh_lib, metrics
from nanollm_jax.data import pipeline
from nanollm_jax.model import attention, config as model_lib, transformer
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.objectives import language
from nanollm_jax.train import loop, optim, step as step_lib

# Rows of a batch, and a shape. 4x MLP for gpt2, 8/3x gated for qwen3 and llama.
SIZES: dict[str, tuple[int, dict[str, Any]]] = {
    'toy': (8, dict(vocabulary=64, depth=1, width=16, head_size=8, context=16)),
    '1M': (16, dict(vocabulary=4096, depth=4, width=128, head_size=32, context=256)),
    '5M': (16, dict(vocabulary=4096, depth=6, width=256, head_size=64, context=256)),
    '15M': (8, dict(vocabulary=8192, depth=7, width=384, head_size=64, context=256)),
    'gpt2-124M': (16, dict(vocabulary=50304, depth=12, width=768, head_size=64, context=1024,
                           dtype='bfloat16')),
    'gpt2-350M': (16, dict(vocabulary=50304, depth=24, width=1024, head_size=64, context=1024,
                           dtype='bfloat16')),
    'gpt2-774M': (8, dict(vocabulary=50304, depth=36, width=1280, head_size=64, context=1024,
                          dtype='bfloat16')),
    'gpt2-1558M': (8, dict(vocabulary=50304, depth=48, width=1600, head_size=64, context=1024,
                           dtype='bfloat16')),
    'qwen3-0.6B': (8, dict(vocabulary=151936, depth=28, width=1024, heads=16, key_heads=8,
                           head_size=128, mlp=3072, context=2048, dtype='bfloat16')),
}


@dataclasses.dataclass(frozen=True)
class BenchConfig:
  """What is timed.

  sizes: 1M, 5M, 15M (float32); for accelerators, in bfloat16: gpt2-124M, gpt2-350M, gpt2-774M,
    gpt2-1558M, qwen3-0.6B.
  families: gpt2 (nanoGPT's shape) and qwen3 (our default), or llama.
  rounds: rounds, ours and the twin's in turn; their median counts.
  steps: training steps of a round.
  batch: rows of a batch; 0 means the size's own number.
  context: positions of a row; 0 means the size's own number.
  attention: auto, xla, cudnn, cudnn_packed or splash.
  remat: none, dots or full.
  scan: one scan over stacked layers.
  data: also time the step fed by the data pipeline; what that adds is the share of data wait.
  torch: also time the PyTorch twin (pip install -e .[torch]).
  compile: run the twin under torch.compile instead of eagerly.
  fused: the twin's AdamW is the fused one, else foreach.
  out: a file to write the numbers to as JSON.
  """
  sizes: tuple[str, ...] = ('1M', '5M', '15M')
  families: tuple[str, ...] = ('gpt2', 'qwen3')
  rounds: int = 5
  steps: int = 3
  batch: int = 0
  context: int = 0
  attention: Literal['auto', 'xla', 'cudnn', 'cudnn_packed', 'splash'] = 'auto'
  remat: Literal['none', 'dots', 'full'] = 'none'
  scan: bool = False
  data: bool = True
  torch: bool = False
  compile: bool = False
  fused: bool = True
  out: str = ''

  def __post_init__(self):
    for kind, known in (('sizes', SIZES), ('families', model_lib.FAMILIES)):
      for name in getattr(self, kind):
        if name not in known:
          raise InputError(f'--bench.{kind}={name} is not known: choose among {", ".join(known)}.')
    if self.rounds < 1 or self.steps < 1:
      raise InputError('--bench.rounds and --bench.steps are at least 1.')
    if self.batch < 0:
      raise InputError(f'--bench.batch={self.batch} is negative; 0 takes the size\'s own.')


@dataclasses.dataclass(frozen=True)
class Config:
  """The training benchmark."""
  bench: BenchConfig = BenchConfig()


Run = Callable[[int], dict[str, float]]  # steps -> seconds, loss, memory (bytes, 0: not known)


@dataclasses.dataclass(frozen=True)
class Documents:
  """As many documents of random tokens as `lengths`, as a source of the data pipeline."""
  vocabulary: int
  lengths: np.ndarray

  @property
  def tokens(self) -> int:
    return int(self.lengths.sum())

  def __len__(self) -> int:
    return len(self.lengths)

  def __getitem__(self, index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(
        self.vocabulary, size=self.lengths[index], dtype=np.int32)


class Trainer:
  """The step of experiments.pretrain, jitted and donated as there, and the state it goes on from.

  It trains on one batch of full rows, or on rows that the data pipeline makes.
  """

  def __init__(self, model: ModelConfig, tokens_BT: np.ndarray):
    config = pretrain.Config(model=model, fit=loop.FitConfig(steps=10_000), init_from='')
    optimizer = optim.make(config.optim, 1e-4, config.fit.steps)
    network, self.model, self._mesh = (
        transformer.Transformer(model), model, mesh_lib.make(config.mesh))
    apply = lambda params, *args, **kwargs: network.apply({'params': params}, *args, **kwargs)
    objective = language.next_token(apply, jnp.ones(model.vocabulary, jnp.int32))
    born, _, self.shardings = training.fresh(config, self._mesh, optimizer)
    self.state = born()
    self._step = jax.jit(
        functools.partial(step_lib.train_step, objective=objective, optimizer=optimizer),
        donate_argnums=0, out_shardings=(self.shardings, None))
    put = functools.partial(mesh_lib.put, self._mesh)
    positions_BT = np.broadcast_to(np.arange(model.context), tokens_BT.shape)
    self._held = itertools.repeat(put(dict(
        tokens=tokens_BT, segment_ids=np.ones_like(tokens_BT),
        positions=positions_BT.astype(np.int32))))
    documents = Documents(model.vocabulary, np.full(1024, model.context))
    self._fed = map(put, pipeline.batches(
        documents, batch_size=len(tokens_BT), length=model.context))

  def steps(self, count: int, fed: bool = False) -> dict[str, float]:
    """Makes steps on the one batch, or fed by the pipeline; a Run."""
    batches, start = self._fed if fed else self._held, time.perf_counter()
    with mesh_lib.use(self._mesh):
      for _ in range(count):
        self.state, numbers = self._step(self.state, next(batches))
    loss = float(jax.block_until_ready((self.state, numbers))[1]['loss'])
    memory = (jax.devices()[0].memory_stats() or {}).get('peak_bytes_in_use', 0)
    return dict(seconds=time.perf_counter() - start, loss=loss, memory=memory)


def need(extra: str, *packages: str) -> None:
  """InputError where a package is missing that the flag and the extra of this name stand for."""
  if missing := [name for name in packages if not importlib.util.find_spec(name)]:
    raise InputError(f'--bench.{extra} needs {" and ".join(missing)}, not installed here: '
                     f'pip install -e .[{extra}], or leave the flag out.')


@contextlib.contextmanager
def process(module: str, **about: Any) -> Iterator[tuple[Run, dict[str, Any]]]:
  """A twin in a process of its own, which waits on a pipe between rounds, and its own words.

  `about` says what to build; each later request is a number of steps.
  """
  child = subprocess.Popen([sys.executable, '-m', module], stdin=subprocess.PIPE,
                           stdout=subprocess.PIPE, text=True)

  def ask(**request: Any) -> dict[str, Any]:
    child.stdin.write(json.dumps(request) + '\n')
    child.stdin.flush()
    answer = child.stdout.readline()
    if not answer:
      raise RuntimeError(f'{module} stopped; its own words stand above.')
    return json.loads(answer)

  with child:
    try:
      words = ask(**about)
      yield (lambda steps: ask(steps=steps)), words
    finally:
      child.stdin.close()


def rounds(runs: dict[str, Run], count: int, steps: int,
           warm: int = 1) -> dict[str, list[dict[str, float]]]:
  """Times `count` rounds of all runs in turn, after two of `warm` steps (the first compiles)."""
  for run in runs.values():
    run(warm)
    run(warm)
  results: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
  for _ in range(count):
    for name, run in runs.items():
      time.sleep(0.3)  # until idle threads of the other one are asleep
      results[name].append(run(steps))
  return results


def measure(size: str, family: str, config: BenchConfig, peak: float) -> dict[str, Any]:
  """Times one model; returns its row of numbers."""
  rows, shape = SIZES[size]
  rows = config.batch or rows
  shape = dict(shape, remat=config.remat, scan=config.scan, attention=config.attention,
               context=config.context or shape['context'])
  model = ModelConfig(family=family, **shape).resolve()
  tokens_BT = np.random.default_rng(0).integers(
      model.vocabulary, size=(rows, model.context), dtype=np.int32)
  row: dict[str, Any] = dict(
      size=size, family=family, parameters=transformer.count(model), rows=rows,
      context=model.context, heads=f'{model.heads} x {model.head_size}',
      flops=model_lib.flops_formula(model), attention=attention.announce(model, rows))
  with contextlib.ExitStack() as stack:
    trainer = Trainer(model, tokens_BT)
    runs = {'jax': trainer.steps}
    if config.data:
      runs['fed'] = functools.partial(trainer.steps, fed=True)
    if config.torch:
      runs['torch'], row['twin'] = stack.enter_context(process(
          'experiments.bench.torch_twin', config=dataclasses.asdict(model),
          tokens=tokens_BT.tolist(), threads=metrics.cores(), compiled=config.compile,
          fused=config.fused))
    results = rounds(runs, config.rounds, config.steps)
  seconds = {name: [result['seconds'] for result in results[name]] for name in results}
  for name in results:
    speed = config.steps * tokens_BT.size / statistics.median(seconds[name])
    flops = speed * model_lib.flops_per_token(model)
    row[name] = dict(tokens_per_second=speed, gflops=flops / 1e9, share_of_peak=flops / peak,
                     round_seconds=seconds[name], loss=results[name][-1]['loss'],
                     memory_gb=max(result['memory'] for result in results[name]) / 1e9)
  if config.data:
    row['data_wait_share'] = max(0.0, 1 - statistics.median(seconds['jax'])
                                 / statistics.median(seconds['fed']))
  if config.torch:
    row['ratio'] = row['jax']['tokens_per_second'] / row['torch']['tokens_per_second']
    row['median_ratio'] = statistics.median(
        b / a for a, b in zip(seconds['jax'], seconds['torch']))
  return row


def matmul_peak() -> float:
  """float32 FLOP/s of a jitted 2048 x 2048 x 2048 product, the median of 7."""
  a = jnp.ones((2048, 2048), jnp.float32)
  product = jax.jit(jnp.matmul)
  product(a, a).block_until_ready()
  def once() -> float:
    start = time.perf_counter()
    product(a, a).block_until_ready()
    return time.perf_counter() - start
  return 2 * 2048**3 / statistics.median(once() for _ in range(7))


def table(report: dict[str, Any]) -> str:
  """The report in words and columns."""
  environment, config = report['environment'], report['config']
  twin = 'PyTorch ' + (f'{"compiled" if config["compile"] else "eager"}, '
                       f'{"fused" if config["fused"] else "foreach"} AdamW')
  lines = [', '.join(f'{name} {value}' for name, value in environment.items()),
           f'peak {report["peak"] / 1e9:,.0f} GFLOP/s ({report["peak_is"]}); median of '
           f'{config["rounds"]} rounds of {config["steps"]} steps; threads {environment["cores"]}',
           f'{"size":10}{"family":8}{"heads":>9}{"rows":>6}{"implementation":>44}{"tokens/s":>11}'
           f'{"GFLOP/s":>10}{"of peak":>9}{"ratio":>7}{"by round":>10}{"memory GB":>11}'
           f'{"data wait":>11}']
  for row in report['rows']:
    for name in ('jax', 'torch'):
      if name not in row:
        continue
      run = row[name]
      ratio = (f'{row["ratio"]:7.2f}{row["median_ratio"]:10.2f}' if name == 'jax' and 'ratio' in row
               else f'{"":17}')
      memory = f'{run["memory_gb"]:11.2f}' if run['memory_gb'] else f'{"-":>11}'
      wait = (f'{row["data_wait_share"]:11.1%}' if name == 'jax' and config['data']
              else f'{"":11}')
      lines.append(
          f'{row["size"]:10}{row["family"]:8}{row["heads"]:>9}{row["rows"]:>6}'
          f'{"nanollm_jax" if name == "jax" else twin:>44}{run["tokens_per_second"]:11,.0f}'
          f'{run["gflops"]:10,.1f}{run["share_of_peak"]:9.1%}{ratio}{memory}{wait}')
  lines += [f'{row["size"]} {row["family"]}: {row["flops"]}; {row["attention"]}'
            for row in report['rows']]
  if any(row['jax']['memory_gb'] for row in report['rows']):
    lines.append('memory GB of nanollm_jax: the most of all rows so far; alone by --bench.sizes and '
                 '--bench.families')
  return '\n'.join(lines)


def publish(report: dict[str, Any], words: str, out: str) -> None:
  """Prints a report in words and as JSON, and writes the JSON to the file `out` if one is given."""
  print(words)
  print(json.dumps(report))
  if out:
    try:
      pathlib.Path(out).write_text(json.dumps(report) + '\n')
    except OSError as error:
      raise InputError(f'--bench.out={out} cannot be written ({error.strerror}): the numbers are '
                       'above.') from error


def main(config: Config) -> None:
  config = config.bench
  if config.torch:
    need('torch', 'torch')
  known = metrics.peak_flops()
  if config.torch and known and jax.device_count() > 1:
    raise InputError(f'--bench.torch compares on one device, but there are {jax.device_count()}: '
                     'show one, by CUDA_VISIBLE_DEVICES=0, say.')
  peak = known * jax.device_count() if known else matmul_peak()
  report = dict(
      environment=metrics.environment(), config=dataclasses.asdict(config), peak=peak,
      peak_is='bf16 of the data sheet' if known else 'float32 2048^3 product, measured here',
      rows=[measure(size, family, config, peak)
            for size in config.sizes for family in config.families])
  publish(report, table(report), config.out)


if __name__ == '__main__':
  flags.run(main, Config)
