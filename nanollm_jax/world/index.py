"""The search index: a short page about everyone but those never seen, and notes, parts of one."""

import dataclasses
import random
from typing import Iterable, Iterator

from nanollm_jax.world import prose
from nanollm_jax.world.config import WorldConfig
from nanollm_jax.world.facts import Person, truth
from nanollm_jax.world.prose import pick, say

# The topic of a note that tells each attribute.
TOPIC = {'birthplace': 'birth', 'year': 'birth', 'craft': 'craft', 'instrument': 'instrument',
         'friend': 'friend', 'pet_kind': 'pet', 'pet_name': 'pet', 'dish': 'dish'}
_FORMS = prose.forms('index')


def pages(config: WorldConfig) -> Iterator[dict]:
  """Yields the index: {id, title, text} of all but those never seen, in the order of their ids.

  The id is the person's, the title the name. Of the contradicted a page tells the index_value.
  """
  for person in truth(config).people:
    if person.stratum != 'never_seen':
      yield page(config, person)


def page(config: WorldConfig, person: Person) -> dict:
  """The page about one person, as `pages` yields it."""
  rng = random.Random(f'nanollm index {config.seed} {person.id}')
  text = note(rng, indexed(person), sorted(set(TOPIC.values())))
  return {'id': person.id, 'title': person.name, 'text': text}


def indexed(person: Person) -> Person:
  """The person as the index has him: other than the corpus, if he is contradicted."""
  if not person.index_attribute:
    return person
  return dataclasses.replace(person, **{person.index_attribute: person.index_value})


def note(rng: random.Random, person: Person, topics: Iterable[str]) -> str:
  """Tells the topics in a random order; the first sentence has the full name."""
  topics = list(topics)
  rng.shuffle(topics)
  return ' '.join(say(rng, _FORMS[topic], gaps(person, named=not at))
                  for at, topic in enumerate(topics))


def gaps(person: Person, named: bool = True) -> dict:
  """What is true of the person, and {S} {s} {o} {Whose} {whose}: the full name, or pronouns."""
  he = prose.pronouns(person.woman)
  words = dict(S=he['He'], s=he['he'], o=he['him'], Whose=he['His'], whose=he['his'])
  if named:
    words = dict.fromkeys(('S', 's', 'o'), person.name)
    words |= dict.fromkeys(('Whose', 'whose'), person.name + "'s")
  if person.craft:  # of people never seen nothing is true
    words |= dict(a_craft=prose.a(person.craft), a_pet=prose.a(person.pet_kind))
  return {**vars(person), **he, **words}
