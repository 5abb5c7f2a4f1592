"""The lecture: models count badly, as the dots that they see are a few tokens.

Groups of dots, each of which the tokenizer has merged into one token. Tiny models learn to say how
many dots there are at once, counting along group by group, or with a call of Python. Rows are held
out, not numbers: who has only seen 39 after 38 cannot learn to stop at 38.
python -m experiments.lecture.count_dots
"""

import dataclasses
import itertools
import random

from experiments.lecture import arm, claim
from nanollm_jax import flags, tasks
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.tasks.task import drawn
from nanollm_jax.tools.python import Python

LONGEST = 9  # dots of a group


@dataclasses.dataclass(frozen=True)
class Config:
  """Accuracy of counting on rows of dots that were not trained.

  workdir: where the arms and the picture go.
  groups: of dots in a row at most.
  """
  workdir: str = 'runs/count_dots'
  groups: int = 24
  recipe: arm.Recipe = arm.Recipe(batch_size=16, tokens=160, model=ModelConfig(
      depth=2, width=64, heads=2, context=208))


def main(config: Config) -> None:
  arms = {name: rows_of_dots(config.groups, style) for name, style in (
      ('at once', 'direct'), ('counting along', 'steps'), ('Python', 'tool'))}
  words = arm.vocabulary(config.workdir, [
      one for name in ('at once', 'counting along') for one in arm.taught(arms[name], 2000)],
      319)  # until each group is one token
  with Python() as python:
    found = arm.compare(config.workdir, arms, config.recipe, words, {'python': python})
  rows, series = [], {}
  for name, made in found.items():
    right, error = claim.share([row['score'] == 1 for row in made])
    rows.append({'dots': name, 'right': right, 'standard error': error, 'trials': len(made)})
    by_groups = {}
    for row in made:
      by_groups.setdefault(int(row['kind']), []).append(row['score'] == 1)
    series[name] = sorted((groups, *claim.share(hits)) for groups, hits in by_groups.items())
  at_once, along, tool = (row['right'] for row in rows)
  claim.conclude(
      config.workdir, 'count_dots',
      claim='a model cannot count at once what its tokens hide; it counts along, or asks Python',
      rows=rows,
      number=f'{at_once:.0%} right at once, {along:.0%} counting along, {tool:.0%} with Python',
      expected='under 20% at once, over 95% counting along, over 95% with Python',
      holds=at_once < 0.2 and min(along, tool) > 0.95,
      otherwise='more --groups where it succeeds at once, more --recipe.steps where it fails along',
      picture=dict(title='Counting dots', series=series, ylabel='share right',
                   xlabel='groups of dots'))


def rows_of_dots(groups: int, style: str) -> tasks.Task:
  """How many dots there are in 3 to `groups` groups; steps tell each group and the count so far."""
  def make(rng: random.Random) -> tasks.Example:
    dots = ['.' * rng.randint(1, LONGEST) for _ in range(rng.randint(3, groups))]
    row = ' '.join(dots)
    counts = itertools.accumulate(map(len, dots))  # a full stop behind them would be one dot more
    return tasks.Example(
        f'How many dots are here? {row}', str(row.count('.')), f'dots {row}', kind=str(len(dots)),
        steps=''.join(f' {group} {count}' for group, count in zip(dots, counts)) + ';',
        code=f"' {row}'.count('.')")

  return tasks.dots()._replace(example=drawn('rows of dots', 0, make), solve=tasks.STYLES[style])


if __name__ == '__main__':
  flags.run(main, Config)
