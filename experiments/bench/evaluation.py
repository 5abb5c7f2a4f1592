"""How fast a chat model is evaluated: all questions together, and one at a time, in turn.

python -m experiments.bench.evaluation --init_from=runs/sft
python -m experiments.bench.evaluation --init_from=runs/sft --bench.core=FOLDER/*.jsonl
"""

import dataclasses
import functools
import statistics
import time
from typing import Any, Callable, Iterator

from experiments import evaluate, workdir
from experiments.bench import train
from nanollm_jax import InputError, flags, metrics
from nanollm_jax.eval import choice, core, generative
from nanollm_jax.sample.engine import Engine, Sampling
from nanollm_jax.text.chat import Chat

Rows = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class BenchConfig:
  """What is timed.

  tasks: generative tasks, as --tasks of experiments.evaluate.
  core: files or globs of CORE items, as its --core.
  examples: questions of each.
  slots: answers that are generated together.
  rounds: rounds of both in turn; their median counts.
  out: a file to write the numbers to as JSON.
  """
  tasks: tuple[str, ...] = ('multiply:2', 'apples')
  core: tuple[str, ...] = ()
  examples: int = 400
  slots: int = 256
  rounds: int = 3
  out: str = ''

  def __post_init__(self):
    for name in ('examples', 'slots', 'rounds'):
      if getattr(self, name) < 1:
        raise InputError(f'--bench.{name}={getattr(self, name)}: give at least 1.')


@dataclasses.dataclass(frozen=True)
class Config:
  """The benchmark of evaluation.

  init_from: the workdir of a chat model.
  """
  init_from: str = 'runs/sft'
  sample: Sampling = Sampling(max_tokens=256, temperature=0.0)
  bench: BenchConfig = BenchConfig()


def of_tasks(config: Config, opened: workdir.Opened) -> Iterator[tuple[str, Callable, Callable]]:
  """For each generative task its name, and what answers it together and one at a time."""
  if not config.bench.tasks:
    return
  chat = Chat(opened.tokenizer)
  engines = [Engine(opened.model, [chat.end_of_turn, opened.tokenizer.end], slots=slots)
             for slots in (config.bench.slots, 1)]
  for name in config.bench.tasks:
    task = evaluate.task_of(name)
    ask = lambda engine, task=task: generative.evaluate(
        task, engine, opened.params, chat, examples=config.bench.examples,
        sampling=config.sample)[1]
    yield name, *(functools.partial(ask, engine) for engine in engines)


def of_core(config: Config, opened: workdir.Opened) -> Iterator[tuple[str, Callable, Callable]]:
  """The same for CORE's tasks, where one at a time is a whole forward for each candidate."""
  scorers = choice.Scorer(opened.model), evaluate.OneByOne(opened.model)
  for task in evaluate.core_tasks(config.bench.core):
    ask = lambda scorer, task=task: core.evaluate(
        task, scorer, opened.params, opened.tokenizer, config.bench.examples)[1]
    yield task.name, *(functools.partial(ask, scorer) for scorer in scorers)


def measure(config: BenchConfig, name: str, together: Callable[[], Rows],
            one_at_a_time: Callable[[], Rows]) -> dict[str, Any]:
  """Times both and compares what they say; returns the numbers of one task."""
  said: dict[str, Rows] = {}

  def timed(kind: str, ask: Callable[[], Rows], _: int) -> dict[str, float]:
    start = time.perf_counter()
    rows = ask()
    seconds = time.perf_counter() - start
    said[kind] = [{key: value for key, value in row.items() if key != 'logprobs'} for row in rows]
    return dict(seconds=seconds)

  results = train.rounds({'together': functools.partial(timed, 'together', together),
                          'one': functools.partial(timed, 'one', one_at_a_time)},
                         config.rounds, config.examples)
  seconds = {kind: [one['seconds'] for one in rounds] for kind, rounds in results.items()}
  return dict(
      task=name, questions=len(said['one']), round_seconds=seconds,
      same=sum(a == b for a, b in zip(said['together'], said['one'])),
      times=statistics.median(b / a for a, b in zip(seconds['together'], seconds['one'])))


def table(report: dict[str, Any]) -> str:
  """The report in words and columns."""
  config = report['config']
  lines = [', '.join(f'{name} {value}' for name, value in report['environment'].items()),
           f'{config["slots"]} slots; medians of {config["rounds"]} rounds',
           f'{"task":32}{"questions":>10}{"together s":>12}{"one by one s":>14}{"times":>7}'
           f'{"the same":>10}']
  for row in report['rows']:
    together, one = (statistics.median(row['round_seconds'][kind]) for kind in ('together', 'one'))
    lines.append(f'{row["task"]:32}{row["questions"]:10}{together:12.2f}{one:14.2f}'
                 f'{row["times"]:7.1f}{row["same"]:10}')
  return '\n'.join(lines)


def main(config: Config) -> None:
  opened = workdir.open_model(config.init_from)
  asked = [*of_tasks(config, opened), *of_core(config, opened)]
  if not asked:
    raise InputError('nothing to ask: give --bench.tasks or --bench.core.')
  report = dict(environment=metrics.environment(), config=dataclasses.asdict(config.bench),
                rows=[measure(config.bench, *one) for one in asked])
  train.publish(report, table(report), config.bench.out)


if __name__ == '__main__':
  flags.run(main, Config)
