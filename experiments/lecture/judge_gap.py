"""The lecture: to pick the best of five jokes is much easier than to write one that is as good.

A tiny model tells jokes about held-out prompts. The same model, taught by rankings of five to
judge, picks one of several of its own; taught by the same rankings to write, which is to repeat
those that came first, it tells one joke at once.
python -m experiments.lecture.judge_gap
"""

import dataclasses
import math
import pathlib

import numpy as np

from experiments import reward_model, workdir
from experiments.lecture import arm, claim, comedian
from nanollm_jax import flags
from nanollm_jax.eval.measure import mean
from nanollm_jax.world import joke

CHOICES = 1, 2, 5, 10  # of so many jokes one is picked


@dataclasses.dataclass(frozen=True)
class Config:
  """Choosing against writing.

  workdir: where the models and the picture go.
  prompts: held out, to each of which the most CHOICES are told.
  steps: updates in which the writer repeats jokes that came first.
  start: where the teller goes, which claims on jokes share.
  """
  workdir: str = 'runs/judge_gap'
  prompts: int = 200
  steps: int = 100
  start: str = 'runs/comedian'
  teller: arm.Recipe = comedian.TELLER
  judging: comedian.Judging = comedian.Judging()


def main(config: Config) -> None:
  folder = pathlib.Path(config.workdir)
  start = comedian.teller(config.start, config.teller)
  judge = comedian.judge(folder / 'judge', start, config.judging).workdir
  ranked = [joke.ranking(0, number) for number in range(config.judging.rankings)]
  writer = arm.train(
      folder / 'writer', [[*one['prompt'], {'role': 'assistant', 'content': one['completions'][0]}]
                          for one in ranked], steps=config.steps, init_from=start,
      learning_rate=config.teller.learning_rate / 4, batch_size=config.teller.batch_size)
  audience = comedian.Audience(workdir.open_model(start), reward_model.open_reward(judge))
  heard = audience.hear(workdir.open_model(start).params, config.prompts, max(CHOICES)).rows
  gold, said = (np.reshape([row[name] for row in heard], (config.prompts, -1))
                for name in ('gold', 'judge'))
  written = audience.hear(writer.params, config.prompts).gold
  rows = []
  for n in CHOICES:
    chosen, best = mean(of(n, gold, said)), mean(of(n, gold, gold))
    rows.append({'jokes': n, 'picked by the judge': chosen.value, 'standard error': chosen.stderr,
                 'the best': best.value})
  once, five = rows[0], rows[CHOICES.index(5)]
  gain = mean(of(5, gold, said) - of(1, gold, said))
  share = gain.value / (five['the best'] - once['the best'])
  apart = (five['picked by the judge'] - written.value) / math.hypot(
      five['standard error'], written.stderr)
  claim.conclude(
      config.workdir, 'judge_gap',
      claim='a model that picks the best of five jokes does better than it writes one',
      rows=rows,
      number=f'a joke at once is worth {once["picked by the judge"]:.2f}, the one picked of five '
      f'{five["picked by the judge"]:.2f} ({gain.value:+.2f} +- {gain.stderr:.2f}), {share:.0%} of '
      f'what picking could gain; taught to write by the same rankings {written.value:.2f} +- '
      f'{written.stderr:.2f}, {apart:.1f} standard errors of the difference below',
      expected='picking gains more than 3 standard errors and half of what it could (a model taught '
      'to write by the same rankings may do as well: that is told, and no part of the verdict)',
      holds=bool(gain.value > 3 * gain.stderr and share > 0.5),
      otherwise='more --judging.rankings',
      picture=dict(title='Picking one of several jokes', xlabel='jokes to pick from',
                   ylabel='worth of the one picked, gold score', series={
                       'by the judge': [(row['jokes'], row['picked by the judge'],
                                         row['standard error']) for row in rows],
                       'the best': [(row['jokes'], row['the best']) for row in rows],
                       'taught to write': [(1, written.value, written.stderr)]}))


def of(n: int, gold_PR: np.ndarray, said_PR: np.ndarray) -> np.ndarray:
  """float [P]: the mean gold score of what is said to be the best of n of the R jokes, over all
  ways to draw these n."""
  R = gold_PR.shape[1]
  order_PR = np.argsort(-said_PR, axis=1, kind='stable')
  chance_R = [math.comb(R - 1 - place, n - 1) / math.comb(R, n) for place in range(R)]
  return np.take_along_axis(gold_PR, order_PR, axis=1) @ np.array(chance_R)


if __name__ == '__main__':
  flags.run(main, Config)
