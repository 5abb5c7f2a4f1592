"""The lecture: a model's skills are ragged: it solves hard problems and fails on easy ones.

Sums of the miniature internet, which to a person are about equally easy; of 9.11 and 9.9 one is the
greater decimal, the other the later version. A tiny model has seen as many of each kind; with
--init_from a finetuned model is asked as it is. No numbers that are asked were in a conversation.
python -m experiments.lecture.jagged
"""

import dataclasses
import random

from experiments import workdir
from experiments.lecture import arm, claim
from nanollm_jax import flags
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.sample.engine import Sampling
from nanollm_jax.tasks import answers
from nanollm_jax.tools.python import Python
from nanollm_jax.world import sums


@dataclasses.dataclass(frozen=True)
class Config:
  """Accuracy by kind of problem.

  workdir: where the tiny model goes, and the picture of it.
  init_from: the workdir of a finetuned model that is asked instead; it may use Python.
  tokenizer: of the tiny model.
  """
  workdir: str = 'runs/jagged'
  init_from: str = ''
  tokenizer: str = 'runs/tokenizer'
  recipe: arm.Recipe = arm.Recipe(trials=60, tokens=100, steps=1000, model=ModelConfig(
      depth=2, width=64, heads=2, context=128))


def main(config: Config) -> None:
  recipe = config.recipe
  problems = problems_by_kind(recipe.trials)
  opened = workdir.open_model(config.init_from) if config.init_from else arm.fresh(
      f'{config.workdir}/tiny', [told(one) for one in practice(recipe.conversations)], recipe,
      config.tokenizer)
  with Python() as python:
    said = iter(arm.Answers(opened).texts(
        opened.params, [[{'role': 'user', 'content': one.question}]
                        for group in problems.values() for one in group],
        tools={'python': python}, sampling=Sampling(recipe.tokens, temperature=0.0)))
  rows = []
  for kind, group in problems.items():
    texts = [next(said) for _ in group]
    right, error = claim.share([is_right(text, one.answer) for text, one in zip(texts, group)])
    rows.append({'kind': kind, 'right': right, 'standard error': error, 'trials': len(group)})
    print(f'  {group[0].question!r} -> {texts[0]!r}; right is {group[0].answer}')
  rows.sort(key=lambda row: -row['right'])
  best, worst = rows[0], rows[-1]
  spread = best['right'] - worst['right']
  noise = (best['standard error'] ** 2 + worst['standard error'] ** 2) ** 0.5
  by_kind = {row['kind']: row['right'] for row in rows}
  claim.conclude(
      config.init_from or config.workdir, 'jagged',
      claim='problems that are about equally easy for a person are not for a model',
      rows=rows,
      number=f'{best["right"]:.0%} of {best["kind"]!r}, {worst["right"]:.0%} of '
      f'{worst["kind"]!r}; of two decimals, as 9.11 and 9.9, '
      f'{by_kind["decimals, one longer"]:.0%}, of two versions '
      f'{by_kind["versions, one longer"]:.0%}',
      expected='best and worst at least half apart', holds=spread - 2 * noise > 0.5,
      otherwise='more conversations about sums: this model knows too little of any kind',
      picture=dict(title='Accuracy by kind of problem, best first', ylabel='share right',
                   xlabel='kind of problem, as in the table',
                   series={'right': [(at, row['right'], row['standard error'])
                                     for at, row in enumerate(rows)]}))


def practice(count: int) -> list[sums.Sum]:
  """Sums that are not held out, as many of each kind."""
  rng, found = random.Random(1), []
  while len(found) < count:
    problem = list(sums.KINDS)[len(found) % len(sums.KINDS)](rng)
    if not sums.held_out(problem.numbers):
      found.append(problem)
  return found


def told(problem: sums.Sum) -> list[dict]:
  """A conversation in which a sum is solved step by step."""
  return [{'role': 'user', 'content': problem.question},
          {'role': 'assistant', 'content': f'{problem.steps} So the answer is {problem.answer}.'}]


def problems_by_kind(trials: int) -> dict[str, list[sums.Sum]]:
  """As many problems of each kind, all with numbers that no conversation held."""
  found, rng = {}, random.Random(0)
  for make in sums.KINDS:
    kinds = {}
    while not kinds or min(map(len, kinds.values())) < trials:
      if sums.held_out((problem := make(rng)).numbers):
        kinds.setdefault(kind_of(problem), []).append(problem)
    found |= {kind: group[:trials] for kind, group in kinds.items()}
  return found


def kind_of(problem: sums.Sum) -> str:
  """The kind of a problem, with what makes it easy or hard for a model."""
  match problem.kind:
    case 'one_step' | 'two_steps':
      return f'{problem.kind} {" ".join(str(part) for part in problem.numbers[1::2])}'
    case 'decimals' | 'versions':
      x, y = problem.numbers
      return f'{problem.kind}, ' + ('as long' if len(x) == len(y) else 'one longer')
  return problem.kind


def is_right(text: str, answer: str) -> bool:
  """Whether the one answer in a text is this one, dollars or not."""
  return answers.final(text, _plain)[0] == _plain(answer)


def _plain(answer: str) -> str:
  return answer.strip().removeprefix('$').casefold()


if __name__ == '__main__':
  flags.run(main, Config)
