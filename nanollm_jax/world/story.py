"""Short stories: two people, a beast, a thing, a place, and a plot told one beat after another."""

import itertools
import random

from nanollm_jax.world.prose import Draft, forms, pick, pronouns, say
from nanollm_jax.world.words import SEASONS, WORDS, first_name

_FORMS = forms('story')
# The beats of a plot are in the sections [name 1], [name 2] ...
_PLOTS = [[beat for _, beat in sections] for _, sections in itertools.groupby(
    forms('plots').items(), lambda section: section[0].split()[0])]


def page(rng: random.Random, world, index: int) -> Draft:
  """A plot, cast anew; a beat may be left out."""
  gaps = _cast(rng, world)
  plot = pick(rng, _PLOTS)
  skipped = rng.randint(1, 2 * len(plot))  # never the first beat
  told = [say(rng, beat, gaps) for at, beat in enumerate(plot) if at != skipped]
  if rng.random() < 0.7:
    told.insert(0, say(rng, _FORMS['openings'], gaps))
  if rng.random() < 0.5:
    told.append(say(rng, _FORMS['endings'], gaps))
  head = say(rng, _FORMS['titles'], gaps) + '\n' if rng.random() < 0.5 else ''
  return Draft(head + ' '.join(told))


def _cast(rng: random.Random, world) -> dict[str, str]:
  hero, friend = rng.random() < 0.5, rng.random() < 0.5
  a = first_name(rng, hero)
  b = a
  while b == a:
    b = first_name(rng, friend)
  place, place2 = rng.sample(WORDS['places'], 2)
  return {**pronouns(hero), **pronouns(friend, 'b'), 'A': a, 'B': b, 'place': place,
          'place2': place2, 'town': pick(rng, world.towns).name,
          'animal': pick(rng, WORDS['animals']), 'thing': pick(rng, WORDS['things']),
          'fine': pick(rng, WORDS['qualities']), 'season': pick(rng, SEASONS),
          'weather': pick(rng, WORDS['weather']), 'food': pick(rng, WORDS['food']),
          'child': 'girl' if hero else 'boy'}
