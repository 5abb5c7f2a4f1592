"""How fast answers are generated: the engine, a Python loop and Hugging Face, in turn.

python -m experiments.bench.decode --bench.hf

All three sample the same prompts with the same weights at temperature 1. The loop is the plain
way: for all rows at once, a jitted step with a cache for every token, sampled on the host. One
`row by row` is that loop over one row after the other, as scripts without batches do.
"""

import contextlib
import dataclasses
import pathlib
import statistics
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import train
from nanollm_jax import InputError, flags, metrics
from nanollm_jax.model import cache as cache_lib, transformer
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.sample.engine import Engine, Sampling

SIZES: dict[str, dict[str, Any]] = {
    '1M': train.SIZES['1M'][1], '5M': train.SIZES['5M'][1],
    '124M': train.SIZES['gpt2-124M'][1]}
SIZES['1M-gqa'] = SIZES['1M'] | dict(key_heads=2)
SIZES['toy'] = dict(vocabulary=64, depth=1, width=16, head_size=8, context=32)
PROMPT = 64  # tokens of the longest prompt, the shortest has a quarter; or half of the context


@dataclasses.dataclass(frozen=True)
class BenchConfig:
  """What is timed.

  sizes: 1M, 5M (float32), 124M (bfloat16, for accelerators), toy; family qwen3; 1M-gqa has two
    key heads for its four.
  rows: prompts that are answered at a time.
  new: tokens of each answer.
  chunk: decode steps of the engine in one call.
  rounds: rounds of all in turn; their median counts.
  row_by_row: also time the loop one row after the other (slow).
  hf: also time Hugging Face generate (pip install -e .[hf]).
  out: a file to write the numbers to as JSON.
  """
  sizes: tuple[str, ...] = ('1M', '5M')
  rows: tuple[str, ...] = ('1', '16', '64')
  new: int = 128
  chunk: int = 32
  rounds: int = 5
  row_by_row: bool = False
  hf: bool = False
  out: str = ''

  def __post_init__(self):
    for size in self.sizes:
      if size not in SIZES:
        raise InputError(f'--bench.sizes={size} is not known: choose among {", ".join(SIZES)}.')
      context = SIZES[size]['context']
      if not 0 < self.new <= context - min(PROMPT, context // 2):
        raise InputError(f'--bench.new={self.new} does not fit the context of {size}, {context}.')
    if not all(row.isdecimal() and int(row) for row in self.rows):
      raise InputError(f'--bench.rows={",".join(self.rows)}: give positive numbers.')


@dataclasses.dataclass(frozen=True)
class Config:
  """The decoding benchmark."""
  bench: BenchConfig = BenchConfig()


def with_engine(model: ModelConfig, params: Any, prompts: list[list[int]],
                chunk: int) -> train.Run:
  """Our engine with a slot for each prompt and no token that stops it."""
  engine = Engine(model, [], slots=len(prompts), chunk=chunk)

  def run(steps: int) -> dict[str, float]:
    start = time.perf_counter()
    made = engine.generate(params, prompts, [Sampling(max_tokens=steps, seed=seed)
                                             for seed in range(len(prompts))])
    assert all(len(one.ids) == steps for one in made)
    return dict(seconds=time.perf_counter() - start)
  return run


def with_loop(model: ModelConfig, params: Any, prompts: list[list[int]]) -> train.Run:
  """A plain Python loop: a jitted step with a donated cache a token, sampled by numpy."""
  network = transformer.Transformer(model)
  params = jax.tree.map(lambda leaf: leaf.astype(model.dtype) if leaf.ndim > 1 else leaf, params)
  longest = max(map(len, prompts))
  tokens_BT = np.array([prompt + [0] * (longest - len(prompt)) for prompt in prompts], np.int32)
  length_B = np.array([len(prompt) for prompt in prompts], np.int32)

  def step(params, tokens_BT, positions_BT, last_B, cache):
    out = network.apply({'params': params}, tokens_BT, positions_BT, cache=cache)
    hidden_BD = out.hidden_BTD[jnp.arange(len(prompts)), last_B]
    return jnp.einsum('BD,VD->BV', hidden_BD, out.head_VD,
                      preferred_element_type=jnp.float32), out.cache
  step = jax.jit(step, donate_argnums=4)

  def run(steps: int) -> dict[str, float]:
    rng, start = np.random.default_rng(0), time.perf_counter()
    positions_BT = np.broadcast_to(np.arange(longest, dtype=np.int32), tokens_BT.shape)
    cache = cache_lib.empty(model, len(prompts), model.context)
    logits_BV, cache = step(params, tokens_BT, positions_BT, length_B - 1, cache)
    for position in range(steps):
      logits_BV = np.asarray(logits_BV)
      weight_BV = np.exp(logits_BV - logits_BV.max(axis=1, keepdims=True))
      sum_BV = np.cumsum(weight_BV, axis=1)
      token_B = (sum_BV > rng.random((len(prompts), 1)) * sum_BV[:, -1:]).argmax(axis=1)
      if position < steps - 1:
        logits_BV, cache = step(params, token_B[:, None].astype(np.int32),
                                (length_B + position)[:, None], np.zeros_like(length_B), cache)
    return dict(seconds=time.perf_counter() - start)
  return run


def with_loop_row_by_row(model: ModelConfig, params: Any, prompts: list[list[int]]) -> train.Run:
  """The Python loop over one row after the other, all padded alike so that it compiles once."""
  longest = max(prompts, key=len)
  one = with_loop(model, params, [longest])
  return lambda steps: dict(seconds=sum(one(steps)['seconds'] for _ in prompts))


def measure(size: str, rows: int, config: BenchConfig) -> dict[str, Any]:
  """Times one model at one number of rows; returns its row of numbers."""
  model = ModelConfig(**SIZES[size]).resolve()
  params = transformer.init(model, jax.random.key(0))
  rng, longest = np.random.default_rng(0), min(PROMPT, model.context // 2)
  prompts = [rng.integers(model.vocabulary, size=length).tolist()
             for length in rng.integers(longest // 4, longest + 1, rows)]
  runs = {'engine': with_engine(model, params, prompts, config.chunk),
          'loop': with_loop(model, params, prompts)}
  row: dict[str, Any] = dict(size=size, rows=rows, parameters=transformer.count(model))
  if config.row_by_row:
    runs['row by row'] = with_loop_row_by_row(model, params, prompts)
  with contextlib.ExitStack() as stack:
    if config.hf:
      weights = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory())) / 'weights.npz'
      np.savez(weights, **flat(params))
      runs['hf'], row['twin'] = stack.enter_context(train.process(
          'experiments.bench.hf_twin', config=dataclasses.asdict(model), weights=str(weights),
          prompts=prompts, threads=metrics.cores()))
    results = train.rounds(runs, config.rounds, config.new, warm=config.new)
  for name, result in results.items():
    seconds = [one['seconds'] for one in result]
    row[name] = dict(tokens_per_second=rows * config.new / statistics.median(seconds),
                     milliseconds_per_step=1e3 * statistics.median(seconds) / config.new,
                     round_seconds=seconds)
  mean = sum(map(len, prompts)) / rows + config.new / 2
  row['bytes_per_step'] = bytes_per_step(model, rows, mean)
  if peak := metrics.peak_bandwidth():
    row['share_of_bandwidth'] = (
        row['bytes_per_step'] / (row['engine']['milliseconds_per_step'] / 1e3) / peak)
  return row


def flat(params: Any) -> dict[str, np.ndarray]:
  """Parameters by their paths, 'layer_0/mlp/up/kernel'."""
  return {'/'.join(key.key for key in path): np.asarray(leaf)
          for path, leaf in jax.tree_util.tree_leaves_with_path(params)}


def bytes_per_step(model: ModelConfig, rows: int, positions: float) -> float:
  """Bytes that a step must read: parameters once, keys and values of `positions` a row."""
  size = np.dtype(jnp.dtype(model.dtype)).itemsize
  cache = 2 * model.depth * model.key_heads * model.head_size * rows * positions
  return size * (transformer.count(model) + cache)


def table(report: dict[str, Any]) -> str:
  """The report in words and columns."""
  config = report['config']
  lines = [', '.join(f'{name} {value}' for name, value in report['environment'].items()),
           *{f'Hugging Face: {row["twin"]}' for row in report['rows'] if 'twin' in row},
           f'tokens/s; median of {config["rounds"]} rounds of {config["new"]} new tokens',
           f'{"size":6}{"rows":>5}{"engine":>10}{"ms/step":>9}{"of bandwidth":>14}'
           f'{"loop":>10}{"x":>6}{"row by row":>12}{"x":>6}{"HF":>10}{"x":>6}']
  for row in report['rows']:
    engine = row['engine']['tokens_per_second']
    share = f'{row["share_of_bandwidth"]:14.1%}' if 'share_of_bandwidth' in row else f'{"-":>14}'
    line = (f'{row["size"]:6}{row["rows"]:5}{engine:10,.0f}'
            f'{row["engine"]["milliseconds_per_step"]:9.2f}{share}')
    for name, width in (('loop', 10), ('row by row', 12), ('hf', 10)):
      speed = row.get(name, {}).get('tokens_per_second')
      line += (f'{speed:{width},.0f}{engine / speed:6.1f}' if speed else
               f'{"-":>{width}}{"-":>6}')
    lines.append(line)
  return '\n'.join(lines)


def main(config: Config) -> None:
  config = config.bench
  if config.hf:
    train.need('hf', 'torch', 'transformers')
  report = dict(environment=metrics.environment(), config=dataclasses.asdict(config),
                rows=[measure(size, int(rows), config)
                      for size in config.sizes for rows in config.rows])
  train.publish(report, table(report), config.out)


if __name__ == '__main__':
  flags.run(main, Config)
