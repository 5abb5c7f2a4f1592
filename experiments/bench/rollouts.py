"""How fast a policy practises: a draw of rollouts, and one prompt after the other, in turn.

python -m experiments.bench.rollouts

The draw and the update are those of experiments.rl: all samples of all prompts go through the
engine together and are graded while others are decoded. Beside it stands generation in a plain
loop, as nanochat does it: a call for every prompt and every `--bench.rows` of its samples, a
jitted step with a cache for every token. Nothing ends before `--bench.new` tokens in either.
"""

import contextlib
import dataclasses
import functools
import io
import statistics
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp

from experiments import rl, rollouts, training
from experiments.bench import decode, train
from nanollm_jax import InputError, flags, mesh, metrics, tasks, world
from nanollm_jax.model import transformer
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.objectives import policy
from nanollm_jax.sample.engine import Engine
from nanollm_jax.text import bpe
from nanollm_jax.text.chat import Chat
from nanollm_jax.text.tokenizer import Tokenizer
from nanollm_jax.train import loop, optim, step as step_lib

VOCABULARY = 4096  # trained on a small world in a second; of all sizes
PROMPT = 64  # tokens of a question with its headers, at most
PARTS = ('rollout', 'grading', 'reference', 'update')  # of the seconds of one step


@dataclasses.dataclass(frozen=True)
class BenchConfig:
  """What is timed.

  size: 1M, 5M (float32), 124M (bfloat16, for accelerators), toy; family qwen3; 1M-gqa has two
    key heads for its four.
  prompts: problems of a draw.
  group: samples of each.
  new: tokens of each sample.
  slots: samples that the engine decodes at one time; 0: all of them.
  chunk: decode steps of the engine in one call.
  rows: samples that the loop makes in one call.
  microbatches: parts of an update that are run one after another, to fit memory.
  rounds: rounds of both in turn; their median counts.
  out: a file to write the numbers to as JSON.
  """
  size: str = '1M'
  prompts: int = 16
  group: int = 16
  new: int = 256
  slots: int = 0
  chunk: int = 32
  rows: int = 8
  microbatches: int = 8
  rounds: int = 3
  out: str = ''

  def __post_init__(self):
    if self.size not in decode.SIZES:
      raise InputError(f'--bench.size={self.size} is not known: choose among '
                       f'{", ".join(decode.SIZES)}.')
    for name in ('prompts', 'group', 'new', 'chunk', 'rows', 'microbatches', 'rounds'):
      if getattr(self, name) < 1:
        raise InputError(f'--bench.{name}={getattr(self, name)}: give at least 1.')
    for name in ('rows', 'microbatches'):
      parts = self.group if name == 'rows' else self.samples
      if parts % getattr(self, name):
        raise InputError(f'--bench.{name}={getattr(self, name)} does not divide {parts}, the '
                         f'samples of a {"prompt" if name == "rows" else "draw"}: give a divisor.')

  @property
  def samples(self) -> int:
    """Completions of one draw."""
    return self.prompts * self.group

  @property
  def calls(self) -> int:
    """Calls of the loop for one draw."""
    return self.samples // self.rows


@dataclasses.dataclass(frozen=True)
class Config:
  """The benchmark of rollouts."""
  bench: BenchConfig = BenchConfig()


def ours(config: BenchConfig, model: ModelConfig, params: Any, tokenizer: Tokenizer,
         folder: str) -> train.Run:
  """A draw of experiments.rl with its grades, reference and update, each timed."""
  stage = rl.Config(
      workdir=folder, init_from='', model=model,
      rl=rollouts.RlConfig(prompts=config.prompts, group=config.group, max_tokens=config.new,
                           slots=config.slots or config.samples),
      optim=optim.OptimConfig(learning_rate=1e-4, schedule='constant'),
      fit=loop.FitConfig(steps=10_000, batch_size=config.samples))
  task, graded = tasks.apples(), []

  def grade(example: tasks.Example, text: str) -> tasks.Grade:
    start = time.thread_time()
    found = task.grade(example, text)
    graded.append(time.thread_time() - start)
    return found

  run = training.Run('Rollouts', stage, tokenizer)
  engine = Engine(model, [], slots=stage.rl.slots, chunk=config.chunk)
  batches = rollouts.Rollouts(stage, task._replace(grade=grade), None, Chat(tokenizer), engine, (),
                              run, params)
  with contextlib.redirect_stdout(io.StringIO()):  # what it says is about a whole run
    run.start(batches)
  optimizer = optim.make(stage.optim, stage.optim.learning_rate, stage.fit.steps)
  objective = policy.objective(run.apply, stage.policy, stage.rl.temperature, stage.rl.max_tokens)
  step = jax.jit(functools.partial(
      step_lib.train_step, objective=objective, optimizer=optimizer,
      microbatches=config.microbatches), donate_argnums=0)
  state = run.state

  def once(_: int) -> dict[str, float]:
    nonlocal state
    graded.clear()
    with mesh.use(run.mesh):
      batch = batches.draw(state)
      assert batch['loss_mask'].sum() == config.samples * config.new
      state, numbers = step(state, run.put(batch))
      jax.block_until_ready((state, numbers))
    took = batches.numbers(0, state)
    return dict(seconds=took['rollout_draw_seconds'], rollout=took['rollout_draw_seconds'],
                grading=sum(graded), reference=took['rollout_teach_seconds'],
                update=took['rollout_update_seconds'],
                prompt=float((batch['segment_ids'].sum() / config.samples) - config.new))
  return once


def one_after_another(config: BenchConfig, model: ModelConfig, params: Any) -> train.Run:
  """The plain loop, called for every prompt; prompts are all of one length, to compile once."""
  one = decode.with_loop(model, params, [list(range(PROMPT))] * config.rows)
  return lambda steps: dict(seconds=sum(one(steps)['seconds'] for _ in range(config.calls)))


def bandwidth() -> float:
  """Bytes/s of memory: a jitted x + 1 over 256 MiB, read and written in place; median of 7."""
  x = jnp.ones(2**26, jnp.float32)
  add = jax.jit(lambda x: x + 1, donate_argnums=0)

  def once() -> float:
    nonlocal x
    start = time.perf_counter()
    x = jax.block_until_ready(add(x))
    return time.perf_counter() - start
  once()
  return 2 * x.nbytes / statistics.median(once() for _ in range(7))


def measure(config: BenchConfig) -> dict[str, Any]:
  """Times both; returns the numbers."""
  documents = (document.text for document in world.documents(world.WorldConfig(people=100)))
  tokenizer = bpe.train(documents, bpe.Config(vocabulary=VOCABULARY))
  model = ModelConfig(**decode.SIZES[config.size] | dict(
      vocabulary=tokenizer.size, context=PROMPT + config.new)).resolve()
  params = transformer.init(model, jax.random.key(0))
  with tempfile.TemporaryDirectory() as folder:
    results = train.rounds({'engine': ours(config, model, params, tokenizer, folder),
                            'loop': one_after_another(config, model, params)},
                           config.rounds, config.new, warm=2)
  median = lambda name, key: statistics.median(one[key] for one in results[name])
  found = {
      name: dict(seconds=median(name, 'seconds'), round_seconds=[one['seconds'] for one in rounds],
                 tokens_per_second=config.samples * config.new / median(name, 'seconds'))
      for name, rounds in results.items()}
  positions = median('engine', 'prompt') + config.new / 2
  speed = metrics.peak_bandwidth() or bandwidth()
  read = config.new * decode.bytes_per_step(model, config.samples, positions)
  return found | dict(
      parameters=transformer.count(model), split={part: median('engine', part) for part in PARTS},
      times=statistics.median(slow['seconds'] / fast['seconds'] for fast, slow in
                              zip(results['engine'], results['loop'])),
      bandwidth=speed, bytes=read, share_of_bandwidth=read / speed / found['engine']['seconds'],
      bound=f'{config.new} steps x (parameters + 2 x {model.depth} layers x {model.key_heads} '
      f'heads x {model.head_size} x {config.samples} samples x {positions:.0f} positions) x '
      f'{jnp.dtype(model.dtype).itemsize} bytes')


def table(report: dict[str, Any]) -> str:
  """The report in words and columns."""
  config, split = report['config'], report['split']
  calls = config['prompts'] * config['group'] // config['rows']
  about = {'engine': f'all together, {report["share_of_bandwidth"]:.1%} of the bandwidth',
           'loop': f'{calls} calls of {config["rows"]}; the engine is {report["times"]:.1f} times '
                   'as fast'}
  lines = [', '.join(f'{name} {value}' for name, value in report['environment'].items()),
           f'{config["size"]}, {report["parameters"]:,} parameters; {config["prompts"]} prompts x '
           f'{config["group"]} samples x {config["new"]} tokens; {config["rounds"]} rounds',
           f'{"":8}{"seconds":>9}{"tokens/s":>10}']
  lines += [f'{name:8}{report[name]["seconds"]:9.2f}{report[name]["tokens_per_second"]:10,.0f}'
            f'  {words}' for name, words in about.items()]
  return '\n'.join([
      *lines, f'bound: {report["bound"]} = {report["bytes"] / 1e9:,.1f} GB at '
      f'{report["bandwidth"] / 1e9:,.1f} GB/s = {report["bytes"] / report["bandwidth"]:.2f} s',
      f'a step: rollout {split["rollout"]:.2f} s ({split["grading"]:.2f} s of grading beside it), '
      f'reference and advantages {split["reference"]:.2f} s, update {split["update"]:.2f} s'])


def main(config: Config) -> None:
  config = config.bench
  report = dict(environment=metrics.environment(), config=dataclasses.asdict(config),
                **measure(config))
  train.publish(report, table(report), config.out)


if __name__ == '__main__':
  flags.run(main, Config)
