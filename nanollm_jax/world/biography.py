"""Pages about people: each tells some of what is true of one, in a new order and new words."""

import random

from nanollm_jax.world import prose
from nanollm_jax.world.prose import Draft, pick, say
from nanollm_jax.world.words import SEASONS, TABLES

TOPICS = ('birth', 'craft', 'instrument', 'friend', 'pet', 'dish')
_FORMS = prose.forms('biography')  # some of them tell of two topics at once


def page(rng: random.Random, world, index: int) -> Draft:
  """One of a person's pages; the first of them tells all."""
  person = world.subjects[index]
  first = index == 0 or world.subjects[index - 1] is not person
  topics = rng.sample(TOPICS, len(TOPICS) if first else rng.randint(5, len(TOPICS)))
  return Draft(_tell(rng, person, topics, world.crafts[person.friend]), person.id, keep=first)


def _tell(rng: random.Random, person, topics: list[str], friend_craft: str) -> str:
  gaps = {**prose.pronouns(person.woman), **vars(person), 'season': pick(rng, SEASONS),
          'a_craft': prose.a(person.craft), 'craft_work': TABLES['crafts'][person.craft],
          'friend_craft': friend_craft, 'a_friend_craft': prose.a(friend_craft)}
  plan = _plan(rng, topics)
  head = say(rng, _FORMS['titles'], gaps) + '\n' if rng.random() < 0.6 else ''
  told = [_sentence(rng, lines, gaps, opening=not at) for at, lines in enumerate(plan)]
  if rng.random() < 0.5:
    told.append(say(rng, _FORMS['close'], gaps))
  return head + ' '.join(told)


def _plan(rng: random.Random, topics: list[str]) -> list:
  """The forms of each sentence: the topics, alone or two in one, and small talk among them."""
  plan, waiting = [], list(topics)
  while waiting:
    topic = waiting.pop()
    partners = [other for other in waiting if f'{topic} {other}' in _FORMS]
    if partners and rng.random() < 0.5:
      partner = pick(rng, partners)
      waiting.remove(partner)
      topic = f'{topic} {partner}'
    plan.append(_FORMS[topic])
  for wordings in rng.sample(_FORMS['talk'], rng.randint(1, 5)):
    plan.insert(rng.randint(1, len(plan)), (wordings,))
  return plan


def _sentence(rng: random.Random, lines, gaps: dict, opening: bool) -> str:
  """A sentence whose subject is the full name, the first name or the pronoun."""
  dice = 0.0 if opening else rng.random()
  if dice < 0.55:
    name = gaps['name' if dice < 0.35 else 'first']
    gaps.update(S=name, s=name, o=name, N=name, Whose=name + "'s", whose=name + "'s")
  else:
    gaps.update(S=gaps['He'], s=gaps['he'], o=gaps['him'], N=gaps['first'], Whose=gaps['His'],
                whose=gaps['his'])
  return say(rng, lines, gaps)
