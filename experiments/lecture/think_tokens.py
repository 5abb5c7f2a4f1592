"""The lecture: models need tokens to think, as each token has only so much computation.

Eight maps of a clock of 11 hours, one after the other. Tiny models learn to answer after all, some
or none of the values in between, and after as many dots as there are values: as many tokens, but no
steps in them (arXiv:2404.15758).
python -m experiments.lecture.think_tokens
"""

import dataclasses

from experiments.lecture import arm, claim
from nanollm_jax import flags, tasks
from nanollm_jax.tasks.sums import HOURS


@dataclasses.dataclass(frozen=True)
class Config:
  """Accuracy against the tokens before the answer.

  workdir: where the arms and the picture go.
  """
  workdir: str = 'runs/think_tokens'
  recipe: arm.Recipe = arm.Recipe()


def main(config: Config) -> None:
  arms = {f'{8 // every} of 8': tasks.affine(8, every) for every in (1, 2, 4, 8)}
  arms['8 dots'] = tasks.affine(8, style='filler')
  words = arm.vocabulary(config.workdir, [
      one for task in arms.values() for one in arm.taught(task, 500)],
      324)  # enough that each letter is a token
  rows, series = [], {'values told': [], 'dots': []}
  for name, made in arm.compare(config.workdir, arms, config.recipe, words).items():
    right, error = claim.share([row['score'] == 1 for row in made])
    # Of the tokens of an answer the last two are the value itself and the full stop.
    before = sum(row['length'] for row in made) / len(made) - 2
    series['dots' if 'dots' in name else 'values told'].append((before, right, error))
    rows.append({'values told': name, 'tokens before the answer': before, 'right': right,
                 'standard error': error, 'trials': len(made)})
  right = {row['values told']: row['right'] for row in rows}
  chance, noise = 1 / HOURS, 3 * max(row['standard error'] for row in rows)
  claim.conclude(
      config.workdir, 'think_tokens',
      claim='a token has little computation: all steps told the answer is right, at once a guess',
      rows=rows,
      number=f'{right["8 of 8"]:.0%} right with all steps told, {right["1 of 8"]:.0%} with none, '
      f'{right["8 dots"]:.0%} with dots in their place',
      expected=f'at least 90% with all steps, chance ({chance:.0%}) with none and with dots',
      holds=right['8 of 8'] >= 0.9 and max(right['1 of 8'], right['8 dots']) < chance + noise,
      otherwise='more --recipe.steps, until the arm with all steps has learned its maps',
      picture=dict(title='Accuracy against tokens to think', series=series, ylabel='share right',
                   xlabel='tokens before the answer', expectation=chance))


if __name__ == '__main__':
  flags.run(main, Config)
