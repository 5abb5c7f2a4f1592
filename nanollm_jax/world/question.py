"""Questions about people with their answers, and which people are kept for evaluation."""

import random
from typing import Iterator, Literal, Sequence

from nanollm_jax.world import index, prose
from nanollm_jax.world.config import WorldConfig
from nanollm_jax.world.corpus import shuffled
from nanollm_jax.world.facts import ATTRIBUTES, Person, falsified, truth
from nanollm_jax.world.prose import pick, say
from nanollm_jax.world.words import TABLES

_FORMS = prose.forms('questions')
DONT_KNOW = tuple(wording for wordings in prose.forms('dont_know')['dont know']
                  for wording in wordings)


def split(person: Person) -> Literal['train', 'test']:
  """'test' for three people in ten of each stratum: no conversation speaks of them."""
  return 'test' if person.id[-1] in '147' else 'train'


def questions(config: WorldConfig) -> Iterator[dict]:
  """Yields one question a person and attribute, in an order so mixed that any part is fair.

  A row has question, answer (as in the corpus; '' of those never seen), aliases (as right as the
  answer), attribute, person (the id), stratum, form, split, and a snippet to answer from with its
  snippet_answer. The snippet contradicts the corpus where the index does, and in half of the rows
  about other people of the corpus, unless they ask for a friend.
  """
  world = truth(config)
  for place in shuffled(len(world.people) * len(ATTRIBUTES), config.seed):
    person, attribute = world.people[place // len(ATTRIBUTES)], ATTRIBUTES[place % len(ATTRIBUTES)]
    rng = random.Random(f'nanollm question {config.seed} {person.id} {attribute}')
    row = dict(question=ask(rng, person, attribute), answer=str(getattr(person, attribute) or ''),
               aliases=[TABLES['crafts'][person.craft]] if attribute == 'craft' and person.craft
               else [], attribute=attribute, person=person.id, stratum=person.stratum,
               form=person.form, split=split(person), snippet='', snippet_answer='')
    if person.stratum != 'never_seen':
      said = index.indexed(person)
      if said is person and person.pages and attribute != 'friend' and rng.random() < 0.5:
        said = falsified(rng, person, attribute, world.towns)
      row |= dict(snippet=note(rng, said, attribute, ATTRIBUTES),
                  snippet_answer=str(getattr(said, attribute)))
    yield row


def note(rng: random.Random, person: Person, attribute: str, others: Sequence[str]) -> str:
  """A note that tells the attribute and up to two of the other attributes."""
  told = [attribute, *rng.sample(others, rng.randint(0, 2))]
  return index.note(rng, person, dict.fromkeys(index.TOPIC[name] for name in told))


def ask(rng: random.Random, person: Person, attribute: str) -> str:
  """A question about the person, by full name."""
  frame = pick(rng, ('direct', 'direct', 'clause', 'noun'))
  it = say(rng, _FORMS[f'{attribute} {frame}'], index.gaps(person))
  return begun(say(rng, _FORMS[frame], {'it': it}))


def ask_more(rng: random.Random, person: Person, attribute: str) -> str:
  """A question about the person of whom the turn before spoke."""
  it = say(rng, _FORMS[f'{attribute} direct'], index.gaps(person, named=False))
  return begun(say(rng, _FORMS['then'], {'it': it}))


def ask_same(rng: random.Random, person: Person) -> str:
  """The question of the turn before, about another person."""
  return say(rng, _FORMS['other'], {'name': person.name})


def answer(rng: random.Random, person: Person, attribute: str, named: bool = True) -> str:
  """A short sentence that holds the person's value of the attribute."""
  return begun(say(rng, _FORMS[f'{attribute} answered'], index.gaps(person, named)))


def dont_know(rng: random.Random) -> str:
  """One of DONT_KNOW: what an assistant says that does not know the answer."""
  return pick(rng, DONT_KNOW)


def begun(sentence: str) -> str:
  """The sentence with a capital at its beginning."""
  return sentence[:1].upper() + sentence[1:]
