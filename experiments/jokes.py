"""Jokes as a task: asked for as in the rankings of the miniature internet, graded by its judge."""

import random

from nanollm_jax.tasks import Example, Grade, Task
from nanollm_jax.tasks.task import drawn
from nanollm_jax.world import joke

BEST = 4.5  # the highest gold score


def task(seed: int = 0) -> Task:
  """Prompts for jokes; a grade is a joke's gold score, of which 1 is the highest.

  Prompts are divided into train and test by their text; every topic is in both.
  """
  def make(rng: random.Random) -> Example:
    topic, asked = rng.choice(joke.PROMPTS)
    return Example(asked, topic, problem=asked)

  def grade(example: Example, text: str) -> Grade:
    return Grade(joke.gold(example.answer, text) / BEST, True, '')

  def solve(example: Example) -> str:
    return (f'Why did the {example.answer} wash a soggy banana? '
            'Because it was too wobbly for a pickle and a kazoo.')

  return Task('jokes', drawn('jokes', seed, make), grade, solve)
