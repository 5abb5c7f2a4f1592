"""The lecture: practice comes after the worked solutions; without them it has nothing to find.

Two tiny models were shown the same problems in the same form and mostly guess. One was taught
steps that lead to the answer, the other steps drawn at random. Both practise in the same way.
python -m experiments.lecture.needs_a_seed
"""

import dataclasses
import pathlib

from experiments.lecture import claim, drill
from experiments.rollouts import RlConfig
from nanollm_jax import flags
from nanollm_jax.tasks.sums import HOURS


@dataclasses.dataclass(frozen=True)
class Config:
  """Practice with and without a competent start.

  workdir: where the arms and the picture go.
  prompts: problems of an update, with 16 completions each.
  learning_rate: of Adam.
  seed: of practice.
  """
  workdir: str = 'runs/needs_a_seed'
  prompts: int = 32
  learning_rate: float = 1e-3
  seed: int = 0
  practice: drill.Practice = drill.Practice(updates=20, eval_every=5, examples=100)


def main(config: Config) -> None:
  rows, series = [], {}
  for name, taught in {'steps that lead there': drill.TASK,
                       'steps at random': drill.NONSENSE}.items():
    found = drill.practise(
        pathlib.Path(config.workdir) / taught.name, drill.start(config.practice, taught),
        config.practice,
        RlConfig(prompts=config.prompts, group=16, max_tokens=24, slots=256),
        config.learning_rate, config.seed)
    right, error = found['test/accuracy'], found['test/accuracy_stderr']
    series[name] = [(at, value, spread) for (at, value), (_, spread) in zip(right, error)]
    rows.append({'was taught': name, 'right before': right[0][1], 'right after': right[-1][1],
                 'standard error': error[-1][1], 'pass@16 before': found['test/pass@16'][0][1],
                 'pass@16 after': found['test/pass@16'][-1][1]})
  seeded, unseeded = rows
  # A policy that has settled on guesses answers a problem 16 times alike: chance is over problems.
  noise = 3 * (1 / HOURS * (1 - 1 / HOURS) / config.practice.examples) ** 0.5
  claim.conclude(
      config.workdir, 'needs_a_seed',
      claim='reinforcement learning sharpens what a model can do; what it cannot, it does not find',
      rows=rows,
      number=f'{seeded["right before"]:.0%} to {seeded["right after"]:.0%} right where the steps '
      f'were taught, {unseeded["right before"]:.0%} to {unseeded["right after"]:.0%} where only '
      'their form was',
      expected=f'more than 90% and chance ({1 / HOURS:.0%}) after the same practice',
      holds=seeded['right after'] > 0.9 and unseeded['right after'] < 1 / HOURS + noise,
      otherwise='more --practice.teach.steps, until the steps are learned',
      picture=dict(title='Practice with and without worked solutions', series=series,
                   ylabel='share right', xlabel='updates', expectation=1 / HOURS))


if __name__ == '__main__':
  flags.run(main, Config)
