"""The lecture: rather than mental arithmetic, let the model use code.

Products of three-digit numbers: tiny models learn to say them, or to write them down for Python.
python -m experiments.lecture.calculator
"""

import dataclasses

from experiments.lecture import arm, claim
from nanollm_jax import flags, tasks
from nanollm_jax.tools.python import Python


@dataclasses.dataclass(frozen=True)
class Config:
  """Accuracy of multiplication, mental and with the tool.

  workdir: where the arms and the picture go.
  digits: of each factor.
  """
  workdir: str = 'runs/calculator'
  digits: int = 3
  recipe: arm.Recipe = arm.Recipe()


def main(config: Config) -> None:
  arms = {'mental': tasks.multiply(config.digits, style='direct'),
          'python': tasks.multiply(config.digits, style='tool')}
  words = arm.vocabulary(config.workdir, arm.taught(arms['python'], 500), 297)
  with Python() as python:
    found = arm.compare(config.workdir, arms, config.recipe, words, {'python': python})
  rows, series = [], {}
  for at, (name, made) in enumerate(found.items()):
    right, error = claim.share([row['score'] == 1 for row in made])
    close = sum(near(row['completion'], row['answer']) for row in made) / len(made)
    series[name] = [(at, right, error)]
    rows.append({'arm': name, 'right': right, 'standard error': error,
                 'right length and first digit': close, 'trials': len(made)})
  mental, tool = (row['right'] for row in rows)
  claim.conclude(
      config.workdir, 'calculator',
      claim='a model cannot multiply in its head, but it can write the product down for Python',
      rows=rows, number=f'{mental:.1%} right in the head, {tool:.1%} with Python',
      expected='under 20% in the head, over 95% with Python', holds=mental < 0.2 and tool > 0.95,
      otherwise='more --recipe.steps, until the model copies every digit',
      picture=dict(title=f'{config.digits}-digit products', series=series, ylabel='share right',
                   xlabel='in the head, with Python'))


def near(text: str, answer: str) -> bool:
  """Whether an answer has as many digits as the right one, and the same first digit."""
  said = text.removeprefix('Answer: ').rstrip('.')
  return len(said) == len(answer) and said[:1] == answer[0]


if __name__ == '__main__':
  flags.run(main, Config)
