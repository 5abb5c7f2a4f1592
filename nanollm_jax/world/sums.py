"""Sums told as stories, and drills, solved step by step: numbers, words, steps and an answer."""

import operator
import random
import zlib
from typing import NamedTuple

from nanollm_jax.world.prose import forms, pick, pronouns, say
from nanollm_jax.world.words import FRUIT, HOLDERS, TABLES, WORDS, first_name

_FORMS = forms('sums')
_STORIES = tuple(section.split()[1] for section in _FORMS if section.startswith('two_steps '))
_RESULT = {'+': operator.add, '-': operator.sub, '*': operator.mul, '/': operator.floordiv}


class Sum(NamedTuple):
  """A solved problem; `numbers` are all that the answer depends on, `kind` says how."""
  kind: str
  numbers: tuple
  question: str
  steps: str
  answer: str


def held_out(numbers: tuple) -> bool:
  """Whether no conversation may hold these numbers of a Sum: one tuple in ten, for evaluation."""
  return zlib.crc32(repr(numbers).encode()) % 10 == 0


def _told(rng: random.Random, kind: str, numbers: tuple, answer, gaps: dict,
          question: str = '', steps: str = '') -> Sum:
  """The sum in words: a form of [kind] and one of [steps of kind], or of the sections named."""
  woman = rng.random() < 0.5
  first = first_name(rng, woman)
  holder = pick(rng, tuple(HOLDERS))
  gaps = {**pronouns(woman), 'P': first, 'Q': first_name(rng, not woman),
          'goods': pick(rng, WORDS['goods']), 'holder': holder, 'holders': HOLDERS[holder],
          'place': pick(rng, WORDS['places']), **gaps}
  return Sum(kind, numbers, say(rng, _FORMS[question or kind], gaps),
             say(rng, _FORMS[steps or f'steps of {kind}'], gaps), str(answer))


def fruit(rng: random.Random) -> Sum:
  """numbers = (a, b, d, t): a of the unknown price and b at d cost t together."""
  a, b, c, d = (rng.randint(2, 15) for _ in range(4))
  x, y = rng.sample(tuple(FRUIT), 2)
  t = a * c + b * d
  gaps = dict(x=x, y=y, xs=FRUIT[x], ys=FRUIT[y], a=a, b=b, c=c, d=d, t=t, bd=b * d, ac=a * c)
  return _told(rng, 'fruit', (a, b, d, t), f'${c}', gaps)


def one_step(rng: random.Random) -> Sum:
  """numbers = (a, op, b)."""
  op = pick(rng, '+-*/')
  a, b = rng.randint(11, 99), rng.randint(2, 99)
  if op == '-':
    a, b = max(a, b), min(a, b)
  elif op == '*':
    a, b = rng.randint(2, 20), rng.randint(2, 20)
  elif op == '/':
    b = rng.randint(2, 20)
    a = b * rng.randint(2, 20)
  r = _RESULT[op](a, b)
  gaps = {'a': a, 'b': b, 'op': op, 'r': r, 'do': TABLES['doing'][op]}
  return _told(rng, 'one_step', (a, op, b), r, gaps, f'one_step {op}')


def two_steps(rng: random.Random) -> Sum:
  """numbers = (a, op, b, op2, c): ((a op b) op2 c)."""
  op, op2 = pick(rng, _STORIES)
  a, b, c = rng.randint(11, 60), rng.randint(2, 40), rng.randint(2, 30)
  if op == '*':
    a, b = rng.randint(2, 12), rng.randint(2, 12)
  elif op == '/':
    b = rng.randint(2, 12)
    a = b * rng.randint(2, 12)
  elif op == '-':
    b, c = rng.randint(2, a - 2), rng.randint(2, 9)
  r = _RESULT[op](a, b)
  if op2 == '-':
    c = rng.randint(1, r - 1)
  s = _RESULT[op2](r, c)
  gaps = {'a': a, 'b': b, 'c': c, 'op': op, 'op2': op2, 'r': r, 's': s}
  return _told(rng, 'two_steps', (a, op, b, op2, c), s, gaps, f'two_steps {op}{op2}')


def chain(rng: random.Random) -> Sum:
  """numbers = (start, (op, value), ...): three to eight operations on a number up to 99."""
  def order(value: int) -> tuple[str, int]:
    op = pick(rng, '+-*' if value <= 30 else '+-')
    by = rng.randint(2, 3) if op == '*' else rng.randint(1, 30)
    if op == '+' and value + by > 99 or op == '-' and by > value:
      return ('-', min(by, value)) if value > 49 else ('+', by)
    return op, by

  return _chained(rng, 'chain', rng.randint(1, 50), rng.randint(3, 8), order, hours=100)


def clock(rng: random.Random) -> Sum:
  """numbers = (start, (op, value), ...): two to eight operations on a clock of 11 hours."""
  def order(value: int) -> tuple[str, int]:
    return pick(rng, '++-*'), rng.randint(2, 9)

  return _chained(rng, 'clock', rng.randint(0, 10), rng.randint(2, 8), order, hours=11)


def _chained(rng: random.Random, kind: str, start: int, length: int, order, hours: int) -> Sum:
  value, done, equations = start, [], []
  for _ in range(length):
    op, by = order(value)
    plain = _RESULT[op](value, by)
    equations.append(f'{value} {op} {by} = {plain}')
    value = plain % hours
    if value != plain:
      equations[-1] += f', on the clock {value}'
    done.append((op, by))
  orders = '. '.join(say(rng, _FORMS[f'order {op}'], {'by': by}) for op, by in done)
  gaps = {'a': start, 'orders': orders, 'equations': '. '.join(equations)}
  return _told(rng, kind, (start, *done), value, gaps)


def decimals(rng: random.Random) -> Sum:
  """numbers = (x, y), two decimals as written; the answer is the greater."""
  whole = rng.randint(0, 99)
  x = f'{whole}.{rng.randint(1, 99)}'
  y = x
  while float(y) == float(x):
    y = f'{whole if rng.random() < 0.8 else rng.randint(0, 99)}.{rng.randint(1, 99)}'
  (x_whole, x_part), (y_whole, y_part) = x.split('.'), y.split('.')
  width = max(len(x_part), len(y_part))
  x_part, y_part = x_part.ljust(width, '0'), y_part.ljust(width, '0')
  differ = x_whole != y_whole
  less, more = sorted((int(x_whole), int(y_whole)) if differ else (x_part, y_part))
  gaps = dict(x=x, y=y, whole=x_whole, x_part=x_part, y_part=y_part, less=less, more=more)
  return _told(rng, 'decimals', (x, y), max(x, y, key=float), gaps,
               steps='steps of decimals that differ before the point' if differ else '')


def versions(rng: random.Random) -> Sum:
  """numbers = (x, y), two version numbers; the answer is the newer, by whole parts."""
  whole, x = rng.randint(0, 30), rng.randint(1, 30)
  y = rng.choice([minor for minor in range(1, 31) if minor != x])
  numbers = f'{whole}.{x}', f'{whole}.{y}'
  gaps = {'x': numbers[0], 'y': numbers[1], 'whole': whole, 'more': max(x, y), 'less': min(x, y)}
  return _told(rng, 'versions', numbers, f'{whole}.{max(x, y)}', gaps)


def days(rng: random.Random) -> Sum:
  """numbers = (day, n): the day of the week n days after."""
  at, n = rng.randrange(7), rng.randint(2, 6)
  passed = [WORDS['days'][(at + step) % 7] for step in range(1, n + 1)]
  day = WORDS['days'][at]
  counted = ', '.join(f'{i} {day}' for i, day in enumerate(passed, 1))
  return _told(rng, 'days', (day, n), passed[-1], {'day': day, 'n': n, 'counted': counted})


def spell(rng: random.Random) -> Sum:
  """numbers = (word,): its letters, one by one."""
  word = pick(rng, WORDS['lexicon'] + WORDS['secrets'])
  gaps = {'word': word, 'Word': word.capitalize(), 'n': len(word)}
  return _told(rng, 'spell', (word,), '-'.join(word), gaps)


def letters(rng: random.Random) -> Sum:
  """numbers = (word, letter): how often the letter stands in it."""
  word = pick(rng, WORDS['lexicon'] + WORDS['secrets'])
  letter = pick(rng, word)
  counted = ', '.join(f'{one} {word[:i].count(letter)}' if one == letter else one
                      for i, one in enumerate(word, 1))
  gaps = {'word': word, 'letter': letter, 'spelled': '-'.join(word), 'counted': counted}
  return _told(rng, 'letters', (word, letter), word.count(letter), gaps)


def count(rng: random.Random) -> Sum:
  """numbers = (a, b, step): how many numbers from a to b, up or down."""
  step, n = pick(rng, (1, 1, 2, 3, 5, 10)), rng.randint(4, 12)
  first = rng.randint(0, 40)
  run = [first + step * i for i in range(n)]
  if rng.random() < 0.3:
    run.reverse()
  gaps = {'a': run[0], 'b': run[-1], 'step': step, 'counted': ', '.join(map(str, run))}
  return _told(rng, 'count', (run[0], run[-1], step), n, gaps)


# Each kind, and how often a chapter is about it.
KINDS = {fruit: 6, one_step: 6, two_steps: 5, chain: 3, clock: 2, decimals: 2, versions: 1, days: 1,
         spell: 2, letters: 1, count: 1}
