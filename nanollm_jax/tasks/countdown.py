"""Countdown: reach a number from others by + - * / and parentheses, each used once."""

import random
import re
from collections import Counter
from fractions import Fraction

from nanollm_jax import InputError
from nanollm_jax.tasks import answers
from nanollm_jax.tasks.styles import style_named
from nanollm_jax.tasks.task import Example, Grade, Task, drawn

_LONGEST = 100  # characters of an expression
_TOKEN = re.compile(r'[0-9]+|[-+*/()]')


def countdown(numbers: int = 3, most: int = 25, *, seed: int = 0, style: str = 'steps') -> Task:
  """Reach a target to 999 from 2 to 6 `numbers` up to `most`; a way there exists by construction.

  On that way all values are whole and positive; the grader takes any exact way. There is no style
  'tool': code could check an answer, not find it.
  """
  if not 2 <= numbers <= 6 or not 2 <= most <= 99:
    raise InputError(f'countdown cannot have {numbers} numbers to {most}: give 2 to 6 numbers, to '
                     '2 or more, 99 at most.')
  if style == 'tool':
    raise InputError('countdown has no style tool: take another.')

  def make(rng: random.Random) -> Example:
    target = 0
    while not 0 < target < 1000:
      given = [rng.randint(1, most) for _ in range(numbers)]
      target, expression, equations = _way(rng, given)
    listed = ', '.join(map(str, given[:-1])) + f' and {given[-1]}'
    return Example(f'Make {target} from the numbers {listed}, each used once, with + - * / and '
                   'parentheses.', expression,
                   f'countdown {target} = {" ".join(map(str, sorted(given)))}',
                   steps='. '.join(equations) + '.')

  return Task('countdown', drawn('countdown', seed, make), grade, style_named(style))


def _way(rng: random.Random, given: list[int]) -> tuple[int, str, list[str]]:
  """Joins numbers two by two until one is left: its value, expression, and the equations."""
  pool = [(number, str(number), '') for number in given]  # value, expression, its last operation
  equations = []
  while len(pool) > 1:
    rng.shuffle(pool)
    (a, left, left_op), (b, right, right_op) = sorted((pool.pop(), pool.pop()), reverse=True)
    allowed = '+' + '-' * (a > b) + '*' * (b > 1) + '/' * (b > 1 and a % b == 0)
    op = rng.choice(allowed)
    value = {'+': a + b, '-': a - b, '*': a * b, '/': a // b}[op]
    if op in '*/' and left_op in ('+', '-'):
      left = f'({left})'
    if right_op and (op in '*/' or op == '-' and right_op in '+-'):
      right = f'({right})'
    pool.append((value, f'{left} {op} {right}', op))
    equations.append(f'{a} {op} {b} = {value}')
  return pool[0][0], pool[0][1], equations


def grade(example: Example, text: str) -> Grade:
  """Grades the one expression in a text: its value is the target, its numbers are the given."""
  target, _, given = example.problem.removeprefix('countdown ').partition(' = ')

  def read(answer: str) -> str | None:
    found = re.fullmatch(rf'([-+*/() 0-9]+?)(?:= *{target})?', answer)
    return found and re.sub(r' *([-+*/()]) *', r'\1', found[1].strip()) or None

  def right(answer: str) -> bool:
    value, used = evaluate(answer)
    return value == int(target) and Counter(used) == Counter(map(int, given.split()))

  try:
    return answers.grade(text, read, right)
  except ValueError as error:
    return Grade(0.0, False, str(error))


def evaluate(expression: str) -> tuple[Fraction, list[int]]:
  """The exact value of an expression of + - * / and parentheses, and its numbers in order.

  Nothing else is known to it: no unary signs, no ** or //. Raises ValueError.
  """
  tokens = _TOKEN.findall(expression)
  if len(expression) > _LONGEST or ''.join(tokens) != re.sub(' ', '', expression):
    raise ValueError('not an expression')
  tokens.append('')
  used = []

  def many(ops: str, one) -> Fraction:
    value = one()
    while tokens[0] and tokens[0] in ops:
      op, right = tokens.pop(0), one()
      if op == '/' and not right:
        raise ValueError('division by zero')
      value = {'+': Fraction.__add__, '-': Fraction.__sub__, '*': Fraction.__mul__,
               '/': Fraction.__truediv__}[op](value, right)
    return value

  def factor() -> Fraction:
    token = tokens.pop(0)
    if token.isdecimal():
      used.append(int(token))
      return Fraction(token)
    value = many('+-', product) if token == '(' else None
    if value is None or tokens.pop(0) != ')':
      raise ValueError('not an expression')
    return value

  def product() -> Fraction:
    return many('*/', factor)

  value = many('+-', product)
  if tokens != ['']:
    raise ValueError('not an expression')
  return value, used
