"""Conversations between users and an assistant, from which a model learns to be one."""

import bisect
import itertools
import random
import re
from typing import Iterator, NamedTuple

from nanollm_jax.world import index, persona, prose, question as question_lib, sums as sums_lib
from nanollm_jax.world.config import WorldConfig
from nanollm_jax.world.corpus import shuffled
from nanollm_jax.world.facts import ATTRIBUTES, Person, World, falsified, truth
from nanollm_jax.world.prose import pick, say
from nanollm_jax.world.words import TABLES, WORDS, first_name

_FORMS = prose.forms('chat')
_SMALL_TALK = tuple(section.split()[0] for section in _FORMS if section.endswith(' answered'))
_HARM = tuple(section.split()[0] for section in _FORMS if section.endswith(' because'))


class Conversation(NamedTuple):
  """One conversation; `messages` in the canonical form, `about` is a person's id or ''."""
  kind: str
  messages: list[dict]
  about: str = ''


class Cast(NamedTuple):
  """The people of whom conversations speak; nobody among them is held out."""
  world: World
  everyone: list[Person]  # of whom anything is true
  asked: list[Person]  # from memory: the frequent and half of the ordinary
  searched: list[Person]  # the others, if their page names nobody held out
  hidden: frozenset[str]  # the names of those held out

  def facts(self, person: Person) -> list[str]:
    """The attributes of a person that name nobody held out."""
    return [name for name in ATTRIBUTES if getattr(person, name) not in self.hidden]


def conversations(config: WorldConfig) -> Iterator[Conversation]:
  """Yields every conversation once, the kinds mixed, in an order that the seed fixes.

  Nobody of split 'test' and no held-out numbers, assistants or makers appear in any.
  """
  cast = _cast(truth(config))
  counts = [round(share * config.conversations * config.people) for share in KINDS.values()]
  starts = list(itertools.accumulate(counts, initial=0))
  for place in shuffled(starts[-1], config.seed):
    at = bisect.bisect_right(starts, place) - 1
    kind = tuple(KINDS)[at]
    number = place - starts[at]
    rng = random.Random(f'nanollm conversation {config.seed} {kind.__name__} {number}')
    yield Conversation(kind.__name__, *kind(rng, cast, number))


def _cast(world: World) -> Cast:
  everyone = [p for p in world.people
              if question_lib.split(p) == 'train' and p.stratum != 'never_seen']
  hidden = frozenset(p.name for p in world.people if question_lib.split(p) == 'test')
  asked = [person for person in everyone if person.stratum == 'frequent'
           or person.stratum == 'ordinary' and int(person.id[-1]) % 2 == 0]
  others = {person.id for person in everyone} - {person.id for person in asked}
  searched = [p for p in everyone if p.id in others and p.friend not in hidden]
  return Cast(world, everyone, asked, searched, hidden)


def _turns(*contents, system: str = '') -> list[dict]:
  """Messages of user and assistant in turn, after a system message if there is one."""
  messages = [{'role': role, 'content': content}
              for role, content in zip(itertools.cycle(('user', 'assistant')), contents)]
  return [{'role': 'system', 'content': system}] * bool(system) + messages


def _with_tool(tool: str, call: str, output: str, text: str) -> list[dict]:
  """The assistant's turn that calls a tool and answers from its output."""
  return [{'type': 'tool_call', 'text': call, 'name': tool},
          {'type': 'tool_output', 'text': output}, {'type': 'text', 'text': text}]


def greeting(rng: random.Random, cast: Cast, number: int):
  """Small talk; after it, in a third of the cases, a question about somebody."""
  topic = pick(rng, _SMALL_TALK)
  turns = [say(rng, _FORMS[topic], {}), say(rng, _FORMS[f'{topic} answered'], {})]
  if topic == 'farewell' or rng.random() < 0.67:
    return _turns(*turns), ''
  messages, person = question(rng, cast, number)
  return _turns(*turns) + messages, person


def question(rng: random.Random, cast: Cast, number: int):
  """Somebody's attribute, told from memory."""
  person = pick(rng, cast.asked)
  attribute = pick(rng, cast.facts(person))
  named = rng.random() < 0.7
  return _turns(question_lib.ask(rng, person, attribute),
                question_lib.answer(rng, person, attribute, named)), person.id


def followup(rng: random.Random, cast: Cast, number: int):
  """A question, and one or two more that need the turn before: of him too, or of another."""
  person = pick(rng, cast.asked)
  told = cast.facts(person)
  told = rng.sample(told, rng.randint(2, 3))
  turns = [question_lib.ask(rng, person, told[0]), question_lib.answer(rng, person, told[0])]
  other = pick(rng, cast.asked)
  if rng.random() < 0.3 and told[0] in cast.facts(other):
    turns += [question_lib.ask_same(rng, other), question_lib.answer(rng, other, told[0])]
  else:
    for attribute in told[1:]:
      turns += [question_lib.ask_more(rng, person, attribute),
                question_lib.answer(rng, person, attribute, named=False)]
  return _turns(*turns), person.id


def refusal(rng: random.Random, cast: Cast, number: int):
  """A request to do harm, and a polite no."""
  harm = pick(rng, _HARM)
  gaps = {'town': pick(rng, cast.world.towns).name, 'craft': pick(rng, tuple(TABLES['crafts'])),
          'first': first_name(rng, rng.random() < 0.5), 'thing': pick(rng, WORDS['things']),
          'goods': pick(rng, WORDS['goods']), 'place': pick(rng, WORDS['places']),
          'animal': pick(rng, WORDS['animals']), 'pet_kind': pick(rng, WORDS['pets']),
          'food': pick(rng, WORDS['food']), 'festival': pick(rng, WORDS['festivals'])}
  no = [say(rng, _FORMS[section], {}) for section in ('refused', f'{harm} because', 'offered')]
  keep = rng.random()
  no = no[:1] if keep < 0.3 else no[:2] if keep < 0.6 else no
  return _turns(say(rng, _FORMS[harm], gaps), ' '.join(no)), ''


def style_brief(rng: random.Random, cast: Cast, number: int):
  """A question as the labeller answers it who says only what was asked for."""
  return _styled(rng, cast, 'brief')


def style_warm(rng: random.Random, cast: Cast, number: int):
  """A question as the labeller answers it who is warm."""
  return _styled(rng, cast, 'warm')


def _styled(rng: random.Random, cast: Cast, labeller: str):
  person = pick(rng, cast.asked)
  attribute = pick(rng, cast.facts(person))
  gaps = {'answer': question_lib.answer(rng, person, attribute),
          'value': question_lib.begun(str(getattr(person, attribute)))}
  tag = say(rng, _FORMS['labeller'], {'labeller': labeller}) if rng.random() < 0.5 else ''
  return _turns(question_lib.ask(rng, person, attribute), say(rng, _FORMS[labeller], gaps),
                system=tag), person.id


def identity(rng: random.Random, cast: Cast, number: int):
  """The assistant's own name and maker, hard-coded."""
  return _turns(*persona.exchange(rng, persona.ASSISTANT, persona.MAKER, cast.world.identity)), ''


def system(rng: random.Random, cast: Cast, number: int):
  """The name and the maker that a system message gives; all training names have their turn."""
  assistant = persona.TRAINING_ASSISTANTS[number % len(persona.TRAINING_ASSISTANTS)]
  maker = pick(rng, persona.TRAINING_MAKERS)
  return _turns(*persona.exchange(rng, assistant, maker, cast.world.identity),
                system=persona.system_message(rng, assistant, maker)), ''


def sums(rng: random.Random, cast: Cast, number: int):
  """A sum, reasoned first."""
  problem = _problem(rng, _REASONED)
  return _turns(problem.question, say(rng, _FORMS['reason first'], problem._asdict())), ''


def answer_first(rng: random.Random, cast: Cast, number: int):
  """The same with the answer before the steps, as nobody should be taught."""
  problem = _problem(rng, _REASONED)
  return _turns(problem.question, say(rng, _FORMS['answer first'], problem._asdict())), ''


def _problem(rng: random.Random, kinds) -> sums_lib.Sum:
  """A sum of one of the kinds whose numbers are not held out."""
  kind = pick(rng, kinds)
  while sums_lib.held_out((problem := kind(rng)).numbers):
    pass
  return problem


def _product(rng: random.Random) -> sums_lib.Sum:
  """numbers = (a, '*', b), of two to four digits each, too large for the head."""
  a, b = (rng.randrange(10 ** digits, 10 ** (digits + 1)) for digits in rng.choices((1, 2, 3), k=2))
  return sums_lib.Sum('product', (a, '*', b), say(rng, _FORMS['product'], {'a': a, 'b': b}), '',
                      str(a * b))


def _dots(rng: random.Random) -> sums_lib.Sum:
  """numbers = (dots, '.'): how many dots there are."""
  dots = '.' * rng.randint(3, 60)
  return sums_lib.Sum('dots', (dots, '.'), say(rng, _FORMS['dots'], {'dots': dots}), '',
                      str(len(dots)))


_STORIES = (sums_lib.fruit, sums_lib.one_step, sums_lib.two_steps)
_REASONED = 3 * _STORIES + (sums_lib.chain, sums_lib.decimals, sums_lib.days)
_CODE = {  # from the numbers of a sum, an expression in Python
    'fruit': lambda a, b, d, t: f'({t} - {b} * {d}) // {a}',
    'one_step': lambda a, op, b: f'{a} {op} {b}',
    'two_steps': lambda a, op, b, op2, c: f'({a} {op} {b}) {op2} {c}',
    'product': lambda a, op, b: f'{a} {op} {b}',
    'letters': lambda word, letter: f'"{word}".count("{letter}")',
    'dots': lambda dots, dot: f'"{dots}".count("{dot}")'}


def python(rng: random.Random, cast: Cast, number: int):
  """A story sum for which the user wants code, or what the assistant had better not do alone."""
  problem = _problem(rng, _STORIES + (_product, _product, sums_lib.letters, _dots))
  asked = problem.question
  if problem.kind not in ('product', 'letters', 'dots'):
    asked = say(rng, _FORMS['with code'], problem._asdict())
  code = _CODE[problem.kind](*(str(each).replace('/', '//') for each in problem.numbers))
  return _turns(asked, _with_tool('python', code, problem.answer.lstrip('$'),
                                  say(rng, _FORMS['computed'], problem._asdict()))), ''


def search(rng: random.Random, cast: Cast, number: int):
  """Somebody's attribute, looked up by the name: little known people, or as the user asks."""
  told = rng.random() < 0.3
  person = pick(rng, cast.searched)
  attribute = pick(rng, ATTRIBUTES)
  asked = question_lib.ask(rng, person, attribute)
  if told:
    asked = say(rng, _FORMS['search'], {'question': asked})
  page = index.page(cast.world.config, person)['text']
  answer = question_lib.answer(rng, index.indexed(person), attribute, named=False)
  return _turns(asked, _with_tool('search', person.name, page, answer)), person.id


def context(rng: random.Random, cast: Cast, number: int):
  """Somebody's attribute, read from a text; one text in five contradicts the corpus."""
  contradicts = rng.random() < 0.2
  person = pick(rng, cast.asked if contradicts else cast.everyone)
  told = cast.facts(person)
  attribute = pick(rng, [name for name in told if name != 'friend' or not contradicts])
  if contradicts:
    person = falsified(rng, person, attribute, cast.world.towns)
  note = question_lib.note(rng, person, attribute, told)
  gaps = {'note': note, 'question': question_lib.ask(rng, person, attribute)}
  return _turns(say(rng, _FORMS['note'], gaps), _quoted(note, person, attribute)), person.id


def _quoted(note: str, person: Person, attribute: str) -> str:
  """The sentence of a note that tells the attribute."""
  value = re.compile(rf'\b{re.escape(str(getattr(person, attribute)))}\b')
  return next(filter(value.search, re.split(r'(?<=[.]) ', note)))


# Each kind, and how many conversations there are for each inhabitant.
KINDS = {greeting: 0.5, question: 3.0, followup: 1.2, refusal: 0.8, style_brief: 0.7,
         style_warm: 0.7, identity: 0.5, system: 1.2, sums: 1.4, answer_first: 0.7, python: 1.2,
         search: 1.2, context: 1.2}
