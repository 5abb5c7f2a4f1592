"""The lecture: models do not see letters, so spelling tasks are hard; spelled out, they are easy.

Two words written as one, as in raspberrylantern, which a tokenizer cuts into a few pieces. Two tiny
models practise the same problems, every third letter and how often there is a letter: one answers
at once, the other spells the word first.
python -m experiments.lecture.spelling
"""

import dataclasses
import random

from experiments.lecture import arm, claim
from nanollm_jax import flags, tasks
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.tasks.letters import WORDS


@dataclasses.dataclass(frozen=True)
class Config:
  """Accuracy on held-out words, at once and spelled first.

  workdir: where the arms and the picture go.
  vocabulary: tokens; the more, the longer the pieces.
  recipe: its batch is of words spelled; with half as many rows there are as many at once.
  """
  workdir: str = 'runs/spelling'
  vocabulary: int = 512
  recipe: arm.Recipe = arm.Recipe(
      steps=2600, batch_size=16, trials=500, tokens=60,
      model=ModelConfig(depth=2, width=64, heads=2, context=112))


def main(config: Config) -> None:
  recipe, words = config.recipe, joined(config.recipe.conversations)
  arms = {'at once': letters(words, 'direct'), 'spelled first': letters(words, 'steps')}
  tokenizer = arm.vocabulary(config.workdir, [
      one for task in arms.values() for one in arm.taught(task, 2000)], config.vocabulary)
  found = {}
  for (name, task), rows_each in zip(arms.items(), (recipe.batch_size // 2, recipe.batch_size)):
    found |= arm.compare(config.workdir, {name: task},
                         dataclasses.replace(recipe, batch_size=rows_each), tokenizer)
  rows, series = [], {}
  for at, what in enumerate(('every third letter', 'count')):
    for how, made in found.items():
      hits = [row['score'] == 1 for row in made if counts(row['question']) == at]
      right, error = claim.share(hits)
      series.setdefault(how, []).append((at, right, error))
      rows.append({'task': what, 'how': how, 'right': right, 'standard error': error,
                   'trials': len(hits)})
  third, third_spelled, count, count_spelled = (row['right'] for row in rows)
  claim.conclude(
      config.workdir, 'spelling',
      claim='a model sees pieces of words, not letters: spelled first, it answers right',
      rows=rows,
      number=f'every third letter {third:.0%} at once, {third_spelled:.0%} spelled first; letters '
      f'counted {count:.0%} at once, {count_spelled:.0%} spelled first',
      expected='both over 90% spelled first, and over 25 points less at once',
      holds=min(third_spelled, count_spelled) > 0.9
      and min(third_spelled - third, count_spelled - count) > 0.25,
      otherwise='where spelling fails more --recipe.steps, as each piece must be spelled often; '
      'where it succeeds at once fewer, as in the end each piece is known from each of its letters',
      picture=dict(title='Letters of held-out words', series=series, ylabel='share right',
                   xlabel='every third letter, a letter counted'))


def letters(words: list[str], style: str) -> tasks.Task:
  """Every third letter of a word and the count of one of its letters, in turn."""
  kinds = [make(words=words, longest=max(map(len, words)), style=style)
           for make in (tasks.spelling, tasks.letter_count)]
  return tasks.Task(
      'letters', lambda index, split: kinds[index % 2].example(index // 2, split),
      lambda example, text: kinds[counts(example.question)].grade(example, text),
      lambda example: kinds[counts(example.question)].solve(example))


def counts(question: str) -> bool:
  """Whether a question of `letters` asks for a count."""
  return question.startswith('How many')


def joined(count: int) -> list[str]:
  """Pairs of words of up to eight letters, each pair written as one word."""
  rng, short = random.Random(0), [word for word in WORDS if len(word) <= 8]
  return [rng.choice(short) + rng.choice(short) for _ in range(count)]


if __name__ == '__main__':
  flags.run(main, Config)
