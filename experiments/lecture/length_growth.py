"""The lecture: practice makes answers longer, though nobody asks for length: thinking pays.

Said honestly, it is selection. A tiny model was shown two ways to answer, steps first (one time in
eight) and at once; practice moves it to the way that is right more often. The control shows that
the rest of the machinery does not lengthen answers: there the question is for the first of the
steps' values, at once is as right as steps are, and the demonstrations slip as often in both.
python -m experiments.lecture.length_growth
"""

import dataclasses
import pathlib
import random

from experiments import workdir
from experiments.lecture import arm, claim, drill
from experiments.rollouts import RlConfig
from nanollm_jax import flags, tasks
from nanollm_jax.sample.engine import Sampling

SLIPS = 0.4  # of the control's demonstrations, so that it too has something to learn


@dataclasses.dataclass(frozen=True)
class Config:
  """The length of answers over updates, where steps are needed and where they are not.

  workdir: where the runs and the picture go.
  prompts: problems of an update, with 16 completions each.
  learning_rate: of Adam.
  seeds: runs of each arm, from one start.
  control: updates in which the control is shown its two ways; its slips take time to average out.
  """
  workdir: str = 'runs/length_growth'
  prompts: int = 32
  learning_rate: float = 1e-3
  seeds: int = 1
  control: int = 1500
  practice: drill.Practice = drill.Practice(updates=20, eval_every=5, examples=50)


def slipping(example: tasks.Example, number: int) -> str:
  """What the control is shown: steps as seldom as elsewhere, and slips in both ways to answer."""
  rng = random.Random(number)
  said = rng.choice(drill.VALUES) if rng.random() < SLIPS else example.answer
  return drill.mostly_answers(example._replace(answer=said), number)


ARMS = {'needs steps': (drill.TASK, drill.mostly_answers), 'does not': (drill.FIRST, slipping)}


def main(config: Config) -> None:
  rows, series = [], {}
  for name, (task, show) in ARMS.items():
    shown = config.practice.forget if task is drill.TASK else config.control
    start = drill.start(dataclasses.replace(config.practice, forget=shown), task, show)
    ways = by_way(start, task)
    for seed in range(config.seeds):
      found = drill.practise(
          pathlib.Path(config.workdir) / f'{task.name}_{seed}', start, config.practice,
          RlConfig(prompts=config.prompts, group=16, max_tokens=24, slots=256),
          config.learning_rate, seed, task=task)
      right, tokens = found['test/accuracy'], found['test/length']
      series[f'{name}, seed {seed}' if seed else name] = tokens
      rows.append({'task': name, 'seed': seed, **ways, 'tokens before': tokens[0][1],
                   'tokens after': tokens[-1][1], 'right before': right[0][1],
                   'right after': right[-1][1]})
  grown, control = ([row['tokens after'] / row['tokens before'] for row in rows
                     if row['task'] == name] for name in ARMS)
  unfair = max(abs(row['right with steps'] - row['right at once']) for row in rows
               if row['task'] == 'does not')
  claim.conclude(
      config.workdir, 'length_growth',
      claim='answers grow longer where thinking pays: practice selects among ways that were shown',
      rows=rows,
      number=f'answers become {min(grown):.1f} times as long where steps are needed, '
      f'{max(control):.1f} times where they are not (least and most of {config.seeds} seeds)',
      expected='at least 1.5 times, and at most 1.2 times where both ways are right alike; both '
      'arms learn to be right',
      holds=min(grown) >= 1.5 and max(control) <= 1.2 and unfair < 0.15 and all(
          row['right after'] > row['right before'] + 0.1 for row in rows),
      otherwise='a start whose steps are right more often than its guesses '
      '(--practice.teach.steps), more --practice.updates',
      picture=dict(title='Length of answers under practice', series=series, ylabel='tokens',
                   xlabel='updates'))


def by_way(start: str, task: tasks.Task, trials: int = 1000) -> dict[str, float]:
  """How often the start answers with steps, and how often either way is right."""
  opened = workdir.open_model(start)
  made = drill.turns(arm.Answers(opened, slots=256), opened.params, task, trials, Sampling(24))
  told = [(score, len(drill.said(parts).split()) > 2) for _, score, parts in made]
  right = {way: [score for score, steps in told if steps == way] for way in (True, False)}
  return {'with steps': len(right[True]) / trials, **{
      f'right {said}': sum(right[way]) / max(1, len(right[way]))
      for way, said in ((True, 'with steps'), (False, 'at once'))}}


if __name__ == '__main__':
  flags.run(main, Config)
