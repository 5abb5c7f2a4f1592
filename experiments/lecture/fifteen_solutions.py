"""The lecture: of fifteen solutions four are right; train on those, and repeat.

A tiny model that mostly guesses samples 15 solutions to each of 32 problems. What is right is
kept: a random one of them, all, the shortest, or that of the highest reward; it is learned as in
finetuning; and so on.
python -m experiments.lecture.fifteen_solutions
"""

import dataclasses
import pathlib

from experiments.lecture import claim, drill
from experiments.rollouts import RlConfig
from nanollm_jax import flags


@dataclasses.dataclass(frozen=True)
class Config:
  """Expert iteration, by what is kept of the right solutions.

  workdir: where the arms and the picture go.
  choices: what is kept: random, shortest, best, all.
  prompts: problems of an iteration.
  learning_rate: of the four updates of an iteration.
  seeds: runs of each choice, from one start.
  """
  workdir: str = 'runs/fifteen_solutions'
  choices: tuple[str, ...] = ('random', 'shortest', 'best', 'all')
  prompts: int = 32
  learning_rate: float = 5e-4
  seeds: int = 1
  practice: drill.Practice = drill.Practice(updates=20, examples=100)


def main(config: Config) -> None:
  start, rows, series = drill.start(config.practice), [], {}
  for choose in config.choices:
    for seed in range(config.seeds):
      name = f'{choose}, seed {seed}' if seed else choose
      found = drill.practise(
          pathlib.Path(config.workdir) / name.replace(', ', '_').replace(' ', '_'), start,
          config.practice, RlConfig(
              method='expert', prompts=config.prompts, group=15, choose=choose, epochs=4,
              max_tokens=24, slots=256), config.learning_rate, seed)
      right, tokens = found['test/accuracy'], found['test/length']
      series[name] = [(at, value, error) for (at, value), (_, error) in
                      zip(right, found['test/accuracy_stderr'])]
      rows.append({'kept': name, 'right before': right[0][1], 'right after': right[-1][1],
                   'standard error': series[name][-1][2],
                   'pass@16 before': found['test/pass@16'][0][1], 'tokens before': tokens[0][1],
                   'tokens after': tokens[-1][1]})
  worst = min(rows, key=lambda row: row['right after'])
  claim.conclude(
      config.workdir, 'fifteen_solutions',
      claim='a model that repeats what was right of its own solutions becomes right',
      rows=rows,
      number=f'of 15 solutions {15 * worst["right before"]:.1f} are right before, '
      f'{15 * worst["right after"]:.1f} after {config.practice.updates} iterations '
      f'(kept: {worst["kept"]}, the worst)',
      expected='from 10-30% right to more than 90%, whatever is kept',
      holds=worst['right before'] <= 0.3 and worst['right after'] > 0.9,
      otherwise='more --practice.updates; before it, solutions told step by step must be more '
      'often right than guesses (--practice.teach.steps)',
      picture=dict(title='Learning from one\'s own right solutions', series=series,
                   ylabel='share right', xlabel='iterations'))


if __name__ == '__main__':
  flags.run(main, Config)
