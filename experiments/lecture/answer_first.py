"""The lecture: steps before the answer help; steps behind it come too late.

Three operations on a clock. Tiny models learn to tell the steps and then the answer, the answer and
then the same steps, or the answer alone.
python -m experiments.lecture.answer_first
"""

import dataclasses
import re

from experiments.lecture import arm, claim
from nanollm_jax import flags, tasks
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.tasks.sums import HOURS


@dataclasses.dataclass(frozen=True)
class Config:
  """Accuracy of three styles, and what becomes of wrong answers.

  workdir: where the arms and the picture go.
  operations: on the clock, one after the other.
  """
  workdir: str = 'runs/answer_first'
  operations: int = 3
  recipe: arm.Recipe = arm.Recipe(steps=1000, tokens=90, model=ModelConfig(
      depth=2, width=64, heads=2, context=112))


def main(config: Config) -> None:
  arms = {style: tasks.chain(config.operations, style=style)
          for style in ('steps', 'answer_first', 'direct')}
  words = arm.vocabulary(config.workdir, [
      one for task in arms.values() for one in arm.taught(task, 500)], 351)
  found = arm.compare(config.workdir, arms, config.recipe, words)
  rows, series = [], {}
  for at, (style, made) in enumerate(found.items()):
    right, error = claim.share([row['score'] == 1 for row in made])
    series[style] = [(at, right, error)]
    rows.append({'style': style, 'right': right, 'standard error': error, 'trials': len(made)})
  # The weights are fixed and attention looks back only, so what follows an answer cannot change
  # it; but it can be made to fit.
  wrong = [row['completion'] for row in found['answer_first'] if row['valid'] and not row['score']]
  fits, error = claim.share([justifies(text) for text in wrong] or [False])
  steps, first, direct = (row['right'] for row in rows)
  chance, noise = 1 / HOURS, 3 * max(row['standard error'] for row in rows)
  claim.conclude(
      config.workdir, 'answer_first',
      claim='steps help only where they stand before the answer; behind it they come too late',
      rows=rows,
      number=f'{steps:.0%} right with steps first, {first:.0%} with the answer first, '
      f'{direct:.0%} alone; of {len(wrong)} wrong answers the steps behind justify {fits:.0%} +- '
      f'{error:.0%} and contradict the others',
      expected='steps first at least 90%, the answer first no better than the answer alone (chance '
      f'{chance:.0%})',
      holds=steps >= 0.9 and first < direct + noise and first < steps - noise,
      otherwise='more --recipe.steps, until the steps are learned',
      picture=dict(title='Where the steps stand', series=series, ylabel='share right',
                   xlabel='style', expectation=chance))


def justifies(text: str) -> bool:
  """Whether the steps behind an answer end at it, as in `Answer: 4. 3 + 1 = 4.`"""
  numbers = re.findall(r'\d+', text)
  return len(numbers) > 1 and numbers[0] == numbers[-1]


if __name__ == '__main__':
  flags.run(main, Config)
