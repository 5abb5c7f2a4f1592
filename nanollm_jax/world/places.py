"""Pages about towns: what lies there, what is made there, who was born there, when to feast."""

import random

from nanollm_jax.world import prose, words
from nanollm_jax.world.prose import Draft, pick, say

FACTS = ('river', 'hill', 'market', 'speciality', 'founded', 'festival', 'near')
_FORMS = prose.forms('places')


def page(rng: random.Random, world, index: int) -> Draft:
  """Towns in turn; a page tells some facts, the seasons or those born there."""
  town = world.towns[index % len(world.towns)]
  return Draft(_tell(rng, town, world.natives[town.name]), town.name)


def _tell(rng: random.Random, town, natives) -> str:
  gaps = {**vars(town), 'town': town.name}
  told = rng.sample(FACTS, rng.randint(3, 7))
  paragraphs = [' '.join(say(rng, _FORMS[fact], gaps) for fact in told)]
  if natives and rng.random() < 0.6:
    born = rng.sample(natives, min(len(natives), rng.randint(1, 3)))
    paragraphs.append(' '.join(
        say(rng, _FORMS['born'], {**vars(person), 'town': town.name,
                                  'a_craft': prose.a(person.craft)}) for person in born))
  if rng.random() < 0.5:
    paragraphs.append(_calendar(rng, town, gaps))
  if rng.random() < 0.3:
    rng.shuffle(paragraphs)
  head = [say(rng, _FORMS['titles'], gaps)] if rng.random() < 0.7 else []
  return '\n'.join(head + paragraphs)


def _calendar(rng: random.Random, town, gaps: dict) -> str:
  """The year in the town, the festival in its season."""
  lines = []
  for season, months in words.MONTHS.items():
    lines.append(say(rng, _FORMS[season], {**gaps, 'month': pick(rng, months)}))
    if season == town.season:
      lines.append(say(rng, _FORMS['festival'], gaps))
  return ' '.join(lines)
