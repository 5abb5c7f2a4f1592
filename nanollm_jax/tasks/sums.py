"""Sums: the lecture's apples, chains of operations, long multiplication, decimals."""

import random

from nanollm_jax import InputError
from nanollm_jax.tasks.answers import grade_last_number, grade_letters, grade_number
from nanollm_jax.tasks.styles import style_named
from nanollm_jax.tasks.task import Example, Task, drawn

NAMES = ('Emily Adam Bella Carl Dora Ed Fay Gus Hana Ivan June Karl Lena Max Nora Otto Pia Rosa '
         'Sam Tina').split()
FRUIT = 'apple orange pear plum lemon lime melon banana mango fig quince apricot'.split()
PRICE_OF_ONE = (  # the first is the lecture's
    '{P} buys {a} {x}s and {b} {y}s. Each {y} costs ${d}. The total cost of all the fruit is ${t}. '
    'What is the cost of each {x}?',
    '{a} {x}s and {b} {y}s cost ${t} together. If one {y} costs ${d}, what does one {x} cost?',
    '{P} pays ${t} for {a} {x}s and {b} {y}s. One {y} costs ${d}. How much is one {x}?')

HOURS = 11
OPERATIONS = {  # a letter's map x -> times * x + plus of the hours; no two are alike
    letter: (2 + at % 9, (5 * at + 1) % HOURS) for at, letter in enumerate('abcdefghijklmnop')}
_VALUES = 'ABCDEFGHIJK'
_ORDERS = {'+': 'Add', '-': 'Take away', '*': 'Multiply by'}


def _task(name: str, seed: int, style: str, make, grade=grade_number) -> Task:
  lenient = grade_last_number if grade is grade_number else None
  return Task(name, drawn(name, seed, make), grade, style_named(style), lenient)


def apples(most: int = 15, *, seed: int = 0, style: str = 'steps') -> Task:
  """The price of one fruit from the price of all; numbers and prices go up to `most` (from 2)."""
  if most < 2:
    raise InputError(f'apples cannot have most={most}: give at least 2.')

  def make(rng: random.Random) -> Example:
    a, b, c, d = (rng.randint(2, most) for _ in range(4))
    x, y = rng.sample(FRUIT, 2)
    t = a * c + b * d
    question = rng.choice(PRICE_OF_ONE).format(P=rng.choice(NAMES), a=a, b=b, d=d, t=t, x=x, y=y)
    steps = (f'The {y}s cost {b} * {d} = {b * d}. The {x}s cost {t} - {b * d} = {a * c}. '
             f'Each {x} costs {a * c} / {a} = {c}.')
    return Example(question, str(c), f'apples {a} {b} {d} {t}', steps=steps,
                   code=f'({t} - {b} * {d}) // {a}')

  return _task('apples', seed, style, make)


def chain(operations: int = 4, modulus: int = HOURS, *, seed: int = 0,
          style: str = 'steps') -> Task:
  """Operations one after the other on a clock of `modulus` hours; on plain numbers to 99 if 0."""
  if operations < 1 or modulus < 0 or modulus == 1:
    raise InputError(f'chain cannot have {operations} operations on {modulus} hours: give at least '
                     '1 operation, and 2 hours or more (0: plain numbers).')

  def make(rng: random.Random) -> Example:
    start = value = rng.randrange(modulus or 50)
    orders, equations, code = [], [], str(start)
    for _ in range(operations):
      if modulus:
        op, by = rng.choice('++-*'), rng.randint(2, 9)
      else:
        by = rng.randint(1, 30)
        op = '-' if by <= value and (value + by > 99 or rng.random() < 0.5) else '+'
      plain = {'+': value + by, '-': value - by, '*': value * by}[op]
      orders.append(f'{_ORDERS[op]} {by}.')
      equations.append(f'{value} {op} {by} = {plain}')
      code = f'({code} {op} {by})'
      value = plain % modulus if modulus else plain
      if value != plain:
        equations[-1] += f', on the clock {value}'
    told = (f'A clock has {modulus} hours, 0 to {modulus - 1}. It shows {start}.', 'does it show'
            ) if modulus else (f'Start with {start}.', 'is the result')
    return Example(f'{told[0]} {" ".join(orders)} What {told[1]}?', str(value),
                   f'chain {modulus} {code}', steps='. '.join(equations) + '.',
                   code=f'{code} % {modulus}' if modulus else code)

  return _task('chain' if modulus else 'plain_chain', seed, style, make)


def affine(operations: int = 8, every: int = 1, *, seed: int = 0, style: str = 'steps') -> Task:
  """Maps x -> a x + b of a clock of 11 hours, one after the other: how many tokens does it take?

  Each map is a letter a to p (OPERATIONS), each of the 11 values a letter A to K, so that both are
  one token behind a space, also in a small vocabulary. The steps tell every `every`-th value
  before the answer: `operations` / `every` values in all with the answer.
  """
  if not 1 <= every <= operations:
    raise InputError(f'affine cannot tell every={every}-th of {operations} values: give a number '
                     'from 1 to operations.')

  def make(rng: random.Random) -> Example:
    value = rng.randrange(HOURS)
    chosen = rng.choices(tuple(OPERATIONS), k=operations)
    question = f'From {_VALUES[value]} by {" ".join(chosen)}'
    reached = []
    for letter in chosen:
      times, plus = OPERATIONS[letter]
      value = (times * value + plus) % HOURS
      reached.append(_VALUES[value])
    told = reached[every - 1:-1:every]
    # A space before the first value too, so that every value has the same token.
    return Example(question, reached[-1], f'affine {question}',
                   steps=''.join(f' {one}' for one in told))

  return _task('affine', seed, style, make, grade_letters)


def multiply(digits: int = 2, *, seed: int = 0, style: str = 'steps') -> Task:
  """The product of two numbers of `digits` digits (2 to 9 if there is one digit only)."""
  if not 1 <= digits <= 9:
    raise InputError(f'multiply cannot have {digits} digits: give 1 to 9.')

  def make(rng: random.Random) -> Example:
    a, b = (rng.randint(max(2, 10**(digits - 1)), 10**digits - 1) for _ in range(2))
    parts = [int(d) * 10**at for at, d in reversed([*enumerate(reversed(str(b)))]) if d != '0']
    equations, total = [f'{a} * {part} = {a * part}' for part in parts], a * parts[0]
    for part in parts[1:]:
      equations.append(f'{total} + {a * part} = {total + a * part}')
      total += a * part
    return Example(f'What is {a} * {b}?', str(total), f'multiply {min(a, b)} {max(a, b)}',
                   steps='. '.join(equations) + '.', code=f'{a} * {b}')

  return _task('multiply', seed, style, make)


def decimals(places: int = 2, *, seed: int = 0, style: str = 'steps') -> Task:
  """The greater of two numbers that differ behind the point, as 9.11 and 9.9; up to `places` there.

  kind: 'shorter' if the greater one has fewer digits (the trap), 'longer', or 'same length'.
  """
  if not 1 <= places <= 9:
    raise InputError(f'decimals cannot have {places} places: give 1 to 9.')

  def part(rng: random.Random) -> str:
    length = rng.randint(1, places)
    return ''.join(rng.choice('0123456789') for _ in range(length - 1)) + rng.choice('123456789')

  def make(rng: random.Random) -> Example:
    whole, one, other = rng.randint(0, 99), part(rng), part(rng)
    while other == one:
      other = part(rng)
    less, more = sorted((one, other))  # as text: 0.11 < 0.9
    length = max(len(one), len(other))
    steps = (f'Both begin with {whole}. After the point, written at the same length, stand '
             f'{one:0<{length}} and {other:0<{length}}: {more:0<{length}} > {less:0<{length}}.')
    kind = ('same length' if len(less) == len(more) else
            'shorter' if len(more) < len(less) else 'longer')
    return Example(f'Which number is greater, {whole}.{one} or {whole}.{other}?',
                   f'{whole}.{more}', f'decimals {whole} {less} {more}', steps=steps,
                   code=f'max({whole}.{one}, {whole}.{other})', kind=kind)

  return _task('decimals', seed, style, make)
