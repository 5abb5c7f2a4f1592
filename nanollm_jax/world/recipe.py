"""Recipes: a dish, what goes into it, and what to do, step after step."""

import random

from nanollm_jax.world import words
from nanollm_jax.world.prose import Draft, forms, listed, pick, say

_FORMS = forms('recipe')


def page(rng: random.Random, world, index: int) -> Draft:
  """A dish, out of one pot but in many words."""
  dish, parts = pick(rng, tuple(words.DISHES.items()))
  parts = rng.sample(parts, len(parts))
  gaps = {'dish': dish, 'Dish': dish.capitalize(), 'all': listed(parts),
          'n': pick(rng, ('two', 'four', 'six', 'eight')), 'town': pick(rng, world.towns).name,
          'minutes': 5 * rng.randint(2, 18)}

  def step(section: str, part: str = parts[0]) -> str:
    return say(rng, _FORMS[section], {**gaps, 'one': part})

  steps = [step('needs'), step('first'), *(step('next', part) for part in parts[1:]),
           step('heat'), step('last', pick(rng, parts))]
  return Draft(step('heads') + '\n' + ' '.join(steps), dish)
