"""Sums are right, and can be solved from what is written."""

import random
import re

import pytest

from nanollm_jax.world import WorldConfig, documents, sums
from nanollm_jax.world.words import FRUIT, WORDS


def calculate(a, op, b):
  return {'+': a + b, '-': a - b, '*': a * b, '/': a / b if b else None, '>': a > b}[op]


def end_of(start, orders):
  for op, by in orders:
    start = calculate(start, op, by)
  return start


# The answer to a problem of each kind, found from its numbers alone.
WORKED_OUT = {
    'fruit': lambda a, b, d, t: f'${next(c for c in range(100) if a * c + b * d == t)}',
    'one_step': lambda a, op, b: f'{calculate(a, op, b):g}',
    'two_steps': lambda a, op, b, op2, c: f'{calculate(calculate(a, op, b), op2, c):g}',
    'chain': lambda start, *orders: str(end_of(start, orders)),
    'clock': lambda start, *orders: str(end_of(start, orders) % 11),
    'decimals': lambda x, y: max(x, y, key=float),
    'versions': lambda x, y: max(x, y, key=lambda version: [*map(int, version.split('.'))]),
    'days': lambda day, n: WORDS['days'][(WORDS['days'].index(day) + n) % 7],
    'spell': lambda word: '-'.join(word),
    'letters': lambda word, letter: str(word.count(letter)),
    'count': lambda a, b, step: str(abs(a - b) // step + 1),
}


@pytest.mark.parametrize('kind', sums.KINDS)
def test_sums_are_right(kind):
  rng = random.Random(5)
  for _ in range(300):
    problem = kind(rng)
    assert problem.kind == kind.__name__
    assert problem.answer == WORKED_OUT[problem.kind](*problem.numbers), problem
    told = re.findall(r'\d+\.\d+|\w+', problem.question)
    for number in problem.numbers:
      number = number[1] if isinstance(number, tuple) else number
      assert str(number) in told or str(number) in '+-*/', problem


def test_fruit_can_be_solved_from_the_words_alone():
  rng = random.Random(6)
  singular = {many: one for one, many in FRUIT.items()}
  for _ in range(300):
    problem = sums.fruit(rng)
    text = problem.question
    counts = {singular[many]: int(n) for n, many in re.findall(r'(\d+) (\w+)', text)
              if many in singular}
    unknown = re.search(r'(\w+)(?: cost)?[.?]$', text)[1]
    (known,) = set(counts) - {unknown}
    total, price = sorted(map(int, re.findall(r'\$(\d+)', text)), reverse=True)
    answer = (total - counts[known] * price) / counts[unknown]
    assert problem.answer == f'${answer:g}', text


def test_every_written_equation_holds_and_the_answer_comes_last():
  equations = 0
  for document in documents(WorldConfig(people=150, seed=3)):
    for a, op, b, c in re.findall(r'(-?\d+) ([-+*/]) (\d+) = (-?\d+)', document.text):
      assert calculate(int(a), op, int(b)) == int(c), document.text
      equations += 1
    for a, b in re.findall(r'(\d+) > (\d+)', document.text):
      assert int(a) > int(b), document.text
    if document.kind == 'textbook':
      assert re.search(r'([Tt]he answer is \S+\.|Answer: \S+)$', document.text), document.text
  assert equations > 1000
