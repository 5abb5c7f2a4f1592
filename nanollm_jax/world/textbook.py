"""Textbook chapters: exposition, worked example, exercise; the answer always comes last."""

import random

from nanollm_jax.world import sums
from nanollm_jax.world.prose import Draft, forms, pick, say
from nanollm_jax.world.words import TABLES

_DEALT = tuple(kind for kind, weight in sums.KINDS.items() for _ in range(weight))
_FORMS = forms('textbook')


def page(rng: random.Random, world, index: int) -> Draft:
  """A chapter of one topic, with one worked example and up to three exercises."""
  kind = pick(rng, _DEALT)
  title, lessons = TABLES['chapters'][kind.__name__], _FORMS[kind.__name__]
  parts = []
  if rng.random() < 0.8:
    parts.append(say(rng, _FORMS['title'], {'n': rng.randint(1, 40), 'title': title}))
  if rng.random() < 0.8:
    told = rng.sample(lessons, rng.randint(1, 2))
    parts.append(' '.join(pick(rng, wordings) for wordings in told))
  parts += _solved(rng, 'example', kind(rng), '')
  for n in range(rng.randint(0, 3)):
    parts += _solved(rng, 'exercise', kind(rng), f' {n + 1}')
  return Draft('\n'.join(parts), title)


def _solved(rng: random.Random, section: str, problem: sums.Sum, n: str) -> list[str]:
  return [say(rng, _FORMS[section], {'n': n, 'question': problem.question}),
          say(rng, _FORMS['solved'], {'steps': problem.steps, 'answer': problem.answer})]
