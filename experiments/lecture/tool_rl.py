"""The lecture: a model can learn by practice when to use a tool, not only how.

A tiny model was shown that products can be said or given to Python, each half of the time,
whatever their size. Of one digit it knows them by heart; of two it does not. A call costs a
little. Nobody tells it which problem is hard: only what it has earned.
python -m experiments.lecture.tool_rl
"""

import dataclasses
import pathlib

from experiments import workdir
from experiments.lecture import arm, claim, drill
from experiments.rollouts import RlConfig
from nanollm_jax import flags, tasks
from nanollm_jax.sample.engine import Sampling
from nanollm_jax.tasks import styles
from nanollm_jax.tools.python import Python

EASY, HARD = tasks.multiply(1), tasks.multiply(2)


@dataclasses.dataclass(frozen=True)
class Config:
  """The share of problems that are given to Python, before and after practice.

  workdir: where the models and the picture go.
  price: of a call, where a right answer earns 1.
  prompts: problems of an update, with 16 completions each.
  learning_rate: of practice, by Adam.
  seed: of practice.
  """
  workdir: str = 'runs/tool_rl'
  price: float = 0.5
  prompts: int = 16
  learning_rate: float = 5e-4
  seed: int = 0
  recipe: arm.Recipe = arm.Recipe(steps=600)
  practice: drill.Practice = drill.Practice(updates=40, eval_every=40, examples=20)


def product(index: int, split: str) -> tasks.Example:
  """By turns one of the small table, which is known by heart, and one of numbers of two digits."""
  if index % 2:
    return HARD.example(index, split)._replace(kind='hard')
  return EASY.example(index, 'train')._replace(kind='easy')


def shown(example: tasks.Example, number: int) -> str | drill.Turn:
  """Said at once or given to Python, each half of the time."""
  return (styles.direct, styles.tool)[number // 2 % 2](example)


TASK = EASY._replace(name='products', example=product)


def main(config: Config) -> None:
  recipe, folder = config.recipe, pathlib.Path(config.workdir)
  examples = [product(number, 'train') for number in range(recipe.conversations)]
  words = arm.vocabulary(config.workdir, arm.taught(tasks.multiply(2, style='tool'), 500), 297)
  start = arm.fresh(folder / 'start', [
      drill.told(one, shown(one, number)) for number, one in enumerate(examples)], recipe, words)
  task, reward = drill.priced(TASK, str(folder / 'start'), lambda right, parts: (
      right - config.price * calls(parts)))
  practised = folder / f'practice_{config.price:g}'
  drill.practise(
      practised, str(folder / 'start'), config.practice,
      RlConfig(prompts=config.prompts, group=16, max_tokens=recipe.tokens, slots=256),
      config.learning_rate, config.seed, task=task, reward=reward, tools=('python',))
  answers, rows = arm.Answers(start, slots=256), []
  with Python() as python:
    for when, params in (('before', start.params),
                         ('after', workdir.open_model(str(practised)).params)):
      made = drill.turns(answers, params, TASK, recipe.trials, Sampling(recipe.tokens),
                         {'python': python})
      rows += [{'practice': when, 'problems': kind, **counted(made, kind)}
               for kind in ('easy', 'hard')]
  called = [row['called Python'] for row in rows]
  claim.conclude(
      config.workdir, 'tool_rl',
      claim='practice teaches when a tool is worth its price: where the model would be wrong',
      rows=rows,
      number=f'Python is called on {called[0]:.0%} of easy and {called[1]:.0%} of hard problems '
      f'before, {called[2]:.0%} and {called[3]:.0%} after {config.practice.updates} updates',
      expected='about half of both before; after it under 10% of easy, over 90% of hard ones',
      holds=max(abs(share - 0.5) for share in called[:2]) < 0.2 and called[2] < 0.1
      and called[3] > 0.9,
      otherwise='more --recipe.steps, until the small table is known; more --practice.updates',
      picture=dict(title='Share of problems given to Python', ylabel='share', xlabel='updates',
                   series={kind: [(0, called[at]), (config.practice.updates, called[at + 2])]
                           for at, kind in enumerate(('easy', 'hard'))}))


def calls(parts: drill.Turn) -> int:
  """Calls of a tool in a turn."""
  return sum(part['type'] == 'tool_call' for part in parts)


def counted(made: list, kind: str) -> dict[str, float]:
  """Of the answers to one kind of problem: how many call, how many are right, and of either way."""
  here = [(score, calls(parts) > 0) for example, score, parts in made if example.kind == kind]
  right = lambda way: [score for score, called in here if called in way]
  share = lambda scores: sum(scores) / max(1, len(scores))
  return {'called Python': share([float(called) for _, called in here]),
          'right': share(right((True, False))), 'right in the head': share(right((False,))),
          'right with Python': share(right((True,)))}


if __name__ == '__main__':
  flags.run(main, Config)
