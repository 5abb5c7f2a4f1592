"""The lecture: models count badly, as the dots that they see are a few tokens.

Groups of dots, each of which the tokenizer has merged into one token. Tiny models learn to say how
many dots there are in some rows, and to repeat others. Groups of 3, 5 and 8 dots stand only in rows
to repeat, so that nothing but the token itself could say how many dots are in it. Rows with such
groups are asked about: as they are, with a space between the dots, so that each is a token of its
own, and with a call of Python, which sees characters.

Without such groups there is nothing to show: attention adds up over tokens well what they have
been said to hold.
python -m experiments.lecture.count_dots
"""

import dataclasses
import random
import string

from experiments.lecture import arm, claim
from nanollm_jax import flags, tasks
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.tasks.task import drawn
from nanollm_jax.tools.python import Python

LARGEST = 9  # dots of a group
UNCOUNTED = (3, 5, 8)  # groups that are never counted in training
COUNTED = [size for size in range(1, LARGEST + 1) if size not in UNCOUNTED]
ARMS = {'dots in tokens': ('direct', ''), 'dots apart': ('direct', ' '), 'Python': ('tool', '')}


@dataclasses.dataclass(frozen=True)
class Config:
  """Accuracy of counting on rows of dots, some of which hide behind tokens never counted.

  workdir: where the arms and the picture go.
  groups: of dots in a row at most.
  """
  workdir: str = 'runs/count_dots'
  groups: int = 4
  recipe: arm.Recipe = arm.Recipe(batch_size=16, tokens=80, steps=3000, model=ModelConfig(
      depth=2, width=64, heads=2, context=208))


def main(config: Config) -> None:
  arms = {name: rows_of_dots(config.groups, *how) for name, how in ARMS.items()}
  words = arm.vocabulary(config.workdir, arm.taught(arms['dots in tokens'], 4000),
                         319)  # until each group is one token
  with Python() as python:
    found = arm.compare(config.workdir, arms, config.recipe, words, {'python': python})
  rows, series = [], {}
  for name, made in found.items():
    hits: dict[int, list[bool]] = {}
    for row in made:
      hits.setdefault(int(row['kind']), []).append(row['score'] == 1)
    counted = hits.get(0, [])
    hidden = [hit for kind, of_kind in hits.items() if kind for hit in of_kind]
    right, error = claim.share(hidden)
    rows.append({'dots': name, 'right': right, 'standard error': error, 'trials': len(hidden),
                 'all counted': sum(counted) / max(1, len(counted))})
    series[name] = sorted((kind, *claim.share(one)) for kind, one in hits.items())
  in_tokens, apart, tool = (row['right'] for row in rows)
  claim.conclude(
      config.workdir, 'count_dots',
      claim='a model cannot count what its tokens hide; it can where it sees each, or asks Python',
      rows=rows,
      number=f'{in_tokens:.0%} right in tokens, {apart:.0%} with dots apart, {tool:.0%} with Python',
      expected='under 20% in tokens (over 90% where all were counted), over 95% with dots apart, '
      'over 95% with Python',
      holds=in_tokens < 0.2 and min(apart, tool) > 0.95 and rows[0]['all counted'] > 0.9,
      otherwise='more --recipe.steps where it fails with dots apart, Python or all counted',
      picture=dict(title='Counting dots', series=series, ylabel='share right',
                   xlabel='groups in a row that were never counted'))


def rows_of_dots(groups: int, style: str, between: str) -> tasks.Task:
  """How many dots there are in 2 to `groups` groups of dots with `between` between them.

  Letters stand between the groups, too. Of three rows in training two are only to be repeated; in
  half of the tests some groups, `kind` of them, are never counted in training.
  """
  def make(what: str, rng: random.Random) -> tasks.Example:
    sizes = rng.choices(COUNTED if what == 'counted' else range(1, LARGEST + 1),
                        k=rng.randint(2, groups))
    if what == 'hidden':
      sizes[0] = rng.choice(UNCOUNTED)
    items = [between.join('.' * size) for size in sizes]
    items += rng.sample(string.ascii_uppercase, rng.randint(0, groups))
    rng.shuffle(items)
    row = ''.join(f' {letter} {item}' for letter, item in
                  zip(rng.sample(string.ascii_lowercase, len(items)), items))
    if what == 'repeated':
      return tasks.Example(f'Say this again:{row}', row, f'dots {row}', code=f"'{row}'")
    return tasks.Example(f'How many dots are here?{row}', str(sum(sizes)), f'dots {row}',
                         code=f"'{row}'.count('.')",
                         kind=str(sum(size in UNCOUNTED for size in sizes)))

  def example(index: int, split: str) -> tasks.Example:
    kinds = ['counted', 'hidden'] if split == 'test' else ['counted', 'repeated', 'repeated']
    what = kinds[index % len(kinds)]
    return drawn('rows of dots', 0, lambda rng: make(what, rng))(index, split)

  return tasks.dots()._replace(example=example, solve=tasks.STYLES[style])


if __name__ == '__main__':
  flags.run(main, Config)
