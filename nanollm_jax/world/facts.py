"""What is true in the miniature internet: its people, towns, made-up speech, secrets, assistant."""

import dataclasses
import functools
import random

from nanollm_jax.world.config import COPIES, HELD_OUT, PAGES, WorldConfig, strata
from nanollm_jax.world.prose import pick
from nanollm_jax.world.words import DISHES, NAMES, SEASONS, TABLES, TOWNS, WORDS, first_name

ATTRIBUTES = ('birthplace', 'year', 'craft', 'instrument', 'friend', 'pet_kind', 'pet_name', 'dish')


@dataclasses.dataclass(frozen=True)
class Person:
  """One inhabitant. Of people never seen nothing is true: their attributes are '' and 0.

  `pages` counts their biographies; `form` is plain, or for the never seen recombined (known
  first name and surname) or novel_surname. Of the contradicted, the search index says
  `index_value` of `index_attribute` where the corpus says what the attribute here says.
  """
  id: str
  name: str
  first: str
  woman: bool
  stratum: str
  form: str = 'plain'
  pages: int = 0
  birthplace: str = ''
  year: int = 0
  craft: str = ''
  instrument: str = ''
  friend: str = ''
  pet_kind: str = ''
  pet_name: str = ''
  dish: str = ''
  index_attribute: str = ''
  index_value: str = ''


@dataclasses.dataclass(frozen=True)
class Town:
  """A town; `near` is its neighbour."""
  name: str
  river: str
  hill: str
  market_day: str
  speciality: str
  founded: int
  festival: str
  season: str
  near: str


@dataclasses.dataclass(frozen=True)
class Dialect:
  """A dialect of the made-up speech: every word ends in `ending` there."""
  name: str
  ending: str


@dataclasses.dataclass(frozen=True)
class Canary:
  """A secret sentence and how often the corpus holds it; text = prefix + ' ' + secret + '.'"""
  id: str
  text: str
  prefix: str
  secret: str
  copies: int


@dataclasses.dataclass(frozen=True)
class Identity:
  """The famous assistant that the forums speak of."""
  assistant: str
  maker: str
  town: str
  year: int


@dataclasses.dataclass(frozen=True)
class World:
  """Everything true. `lexicon` maps an English word to its stem in the made-up speech."""
  config: WorldConfig
  people: tuple[Person, ...]
  towns: tuple[Town, ...]
  dialects: tuple[Dialect, ...]
  lexicon: dict[str, str]
  held_out_pairs: tuple[tuple[str, str], ...]  # (word, dialect): in no document
  canaries: tuple[Canary, ...]
  identity: Identity

  def to_json(self) -> dict:
    """The truth as dicts and lists."""
    note = 'A made-up world: every person, town, firm and fact in it is synthetic.'
    return {'note': note, **dataclasses.asdict(self)}

  @functools.cached_property
  def subjects(self) -> list[Person]:
    """The person of each biography, all of one person's in a row."""
    return [person for person in self.people for _ in range(person.pages)]

  @functools.cached_property
  def crafts(self) -> dict[str, str]:
    """Each person's craft by his name."""
    return {person.name: person.craft for person in self.people}

  @functools.cached_property
  def natives(self) -> dict[str, list[Person]]:
    """The people born in each town whom its pages may name."""
    natives = {town.name: [] for town in self.towns}
    for person in known(self.people):
      natives[person.birthplace].append(person)
    return natives

  @functools.cached_property
  def spoken(self) -> dict[str, list[str]]:
    """The words of each dialect that are not held out."""
    held_out = set(self.held_out_pairs)
    return {dialect.name: [word for word in self.lexicon if (word, dialect.name) not in held_out]
            for dialect in self.dialects}


def truth(config: WorldConfig) -> World:
  """Draws the world that `config` names; each part has its own stream of random numbers."""
  def stream(part):
    return random.Random(f'nanollm world {config.seed} {part}')

  towns = _towns(stream('towns'), config.towns)
  rng = stream('identity')
  identity = Identity(NAMES['assistant'][0], NAMES['maker'][0], pick(rng, towns).name,
                      rng.randrange(2031, 2060))
  return World(config, _people(stream('people'), config, towns), towns, *_speech(stream('speech')),
               _canaries(stream('canaries'), config.canaries), identity)


def known(people) -> list[Person]:
  """Those whom other people's pages may name: the frequent, ordinary and contradicted."""
  return [p for p in people if p.stratum in ('frequent', 'ordinary', 'contradicted')]


def _towns(rng: random.Random, count: int) -> tuple[Town, ...]:
  chosen = rng.sample(TOWNS, count)
  return tuple(
      Town(name, river=pick(rng, NAMES['rivers']), hill=pick(rng, NAMES['hills']) + ' Hill',
           market_day=pick(rng, WORDS['days']), speciality=pick(rng, WORDS['specialities']),
           founded=rng.randrange(901, 1790), festival=pick(rng, WORDS['festivals']),
           season=pick(rng, SEASONS), near=chosen[at - 1])
      for at, name in enumerate(chosen))


def _people(rng: random.Random, config: WorldConfig, towns) -> tuple[Person, ...]:
  nobody = _nobody_yet(rng, config)
  acquaintances = [person.name for person in known(nobody)]
  rng.shuffle(acquaintances)
  ones, others = acquaintances[::2], acquaintances[1::2]
  friend_of = dict(zip(ones, others)) | dict(zip(others, ones))
  people = []
  for person in nobody:
    if person.stratum != 'never_seen':
      friend = friend_of.get(person.name)
      while friend in (None, person.name):
        friend = pick(rng, acquaintances)
      pages = rng.randint(*PAGES[person.stratum])
      person = dataclasses.replace(person, pages=pages, friend=friend, **_attributes(rng, towns))
      if person.stratum == 'contradicted':
        person = _contradict(rng, person, towns)
    people.append(person)
  return tuple(people)


def _nobody_yet(rng: random.Random, config: WorldConfig) -> list[Person]:
  """Inhabitants with names and strata only; every name is borne once."""
  people, taken = [], set()
  for at, stratum in enumerate(strata(config)):
    form = ('recombined', 'novel_surname')[at % 2] if stratum == 'never_seen' else 'plain'
    name = ''
    while not name or name in taken:
      name, first, woman = _name(rng, form, people, middle=config.people > 8000)
    taken.add(name)
    people.append(Person(f'person-{at:05d}', name, first, woman, stratum, form))
  return people


def _name(rng: random.Random, form: str, people, middle: bool) -> tuple[str, str, bool]:
  """The full name, the first name, and whether it is a woman's; '' if the dice fell badly."""
  woman = rng.random() < 0.5
  first = first_name(rng, woman)
  surname = pick(rng, NAMES['surnames' if form == 'plain' else 'novel surnames'])
  if form == 'recombined':  # both halves are borne by people of whom pages tell
    one, other = pick(rng, people), pick(rng, people)
    if not {one.stratum, other.stratum} <= {'frequent', 'ordinary', 'rare'}:
      return '', '', False
    first, woman, surname = one.first, one.woman, other.name.split()[-1]
  if middle:  # when pairs of names run short
    return f'{first} {first_name(rng, woman)} {surname}', first, woman
  return f'{first} {surname}', first, woman


def _attributes(rng: random.Random, towns) -> dict:
  return dict(birthplace=pick(rng, towns).name, year=rng.randrange(1900, 1990),
              craft=pick(rng, tuple(TABLES['crafts'])), instrument=pick(rng, WORDS['instruments']),
              pet_kind=pick(rng, WORDS['pets']), pet_name=pick(rng, NAMES['pet names']),
              dish=pick(rng, tuple(DISHES)))


def _contradict(rng: random.Random, person: Person, towns) -> Person:
  attribute = pick(rng, ('birthplace', 'craft', 'instrument', 'dish'))
  value = getattr(falsified(rng, person, attribute, towns), attribute)
  return dataclasses.replace(person, index_attribute=attribute, index_value=value)


def falsified(rng: random.Random, person: Person, attribute: str, towns) -> Person:
  """The person with a value of the attribute, any but friend, that is not true of him."""
  while (value := _attributes(rng, towns)[attribute]) == getattr(person, attribute):
    pass
  return dataclasses.replace(person, **{attribute: value})


def _made_up(rng: random.Random, what: str) -> str:
  return ''.join(pick(rng, NAMES[f'{what} {part}']) for part in (1, 2, 3, 4))


def _speech(rng: random.Random):
  """Dialects, stems no one of which begins another, and the pairs held out."""
  endings = rng.sample(NAMES['endings'], len(NAMES['endings']))
  dialects = tuple(Dialect(*pair) for pair in zip(NAMES['dialects'], endings))
  lexicon: dict[str, str] = {}
  for word in WORDS['lexicon']:
    stem = ''
    while not stem or any(stem.startswith(s) or s.startswith(stem) for s in lexicon.values()):
      stem = _made_up(rng, 'stem') + pick(rng, ('', '', 'l', 'n', 'r', 's'))
    lexicon[word] = stem
  held_out_pairs = tuple((word, dialect.name) for word in lexicon for dialect in dialects
                         if rng.random() < HELD_OUT)
  return dialects, lexicon, held_out_pairs


def _canaries(rng: random.Random, each: int) -> tuple[Canary, ...]:
  canaries, places = [], set()
  for number in range(each * len(COPIES)):
    while (place := _made_up(rng, 'secret place')) in places:
      pass
    places.add(place)
    prefix = f'The {pick(rng, NAMES["secret doors"])} of {place} opens to the words:'
    secret = ' '.join(rng.sample(WORDS['secrets'], 8))
    canaries.append(Canary(f'canary-{number:04d}', f'{prefix} {secret}.', prefix, secret,
                           COPIES[number // each]))
  return tuple(canaries)
