"""Countdown's expressions are read exactly, and nothing else is."""

import random
import re
from fractions import Fraction

import pytest

from nanollm_jax.tasks import Example, countdown
from nanollm_jax.tasks.countdown import evaluate, grade

SIXTY = Example('Make 60 from 3, 5 and 25.', '(25 - 5) * 3', 'countdown 60 = 3 5 25')


def grown(rng, depth):
  """A random expression with spare parentheses and spaces, and its numbers."""
  if depth == 0 or rng.random() < 0.2:
    n = rng.randint(0, 12)
    return str(n), [n]
  (left, some), (right, others) = grown(rng, depth - 1), grown(rng, depth - 1)
  gap = ' ' * rng.randint(0, 2)
  text = f'{left}{gap}{rng.choice("+-*/")}{gap}{right}'
  return (f'({gap}{text})' if rng.random() < 0.5 else text), some + others


def test_values_are_those_of_python_s_fractions():
  rng, zero = random.Random(0), 0
  for _ in range(3000):
    text, numbers = grown(rng, 3)
    if len(text) > 100:
      continue
    exact = ''.join(f'Fraction({word})' if word.isdigit() else word
                    for word in re.findall(r'\d+|\D', text))
    try:
      value = eval(exact)
    except ZeroDivisionError:
      zero += 1
      with pytest.raises(ValueError, match='zero'):
        evaluate(text)
    else:
      assert evaluate(text) == (value, numbers), text
  assert zero > 50


@pytest.mark.parametrize('text', [
    '', '2**3', '2 ** 3', '7//2', '-3', '+3', '3 - -2', '3--2', '(3', '3)', '()', '2(3)', '(2)(3)',
    '2 3', '3 +', '* 3', '1.5', '1e3', '3x', 'a', '3 % 2', '2 ^ 3', '~1', '1_0', '３', '3,4',
    '3 = 3', '1' + '+1' * 60, '(' * 60 + '1' + ')' * 60, '((' * 49, '__import__("os")', '3\n+4'])
def test_what_is_no_expression(text):
  with pytest.raises(ValueError):
    evaluate(text)


@pytest.mark.parametrize('text, score, reason', [
    ('Answer: (25 - 5) * 3.', 1, 'right'), ('Answer: 3*(25-5)', 1, 'right'),
    ('(25-5)*3', 1, 'right'), ('The answer is (25 - 5) * 3 = 60.', 1, 'right'),
    (r'\boxed{(25 - 5) * 3}', 1, 'right'), ('Answer: **(25 - 5) * 3**', 1, 'right'),
    ('Answer: ((25) - 5) * (3).', 1, 'right'), ('25 - 5 = 20. Answer: (25 - 5) * 3.', 1, 'right'),
    ('Answer: (25 - 5) * 3. Answer: (25-5)*3.', 1, 'right'),
    ('Answer: (25 - 5) * 3. Answer: 3 * (25 - 5).', 0, 'two answers'),
    ('Answer: (25 - 5) * 3 = 61.', 0, 'two answers'),
    ('Answer: (25 - 5) * 3. The answer is correct.', 1, 'right'),
    ('Answer: (25 - 5) * 3. The answer is 60.', 0, 'two answers'),
    ('Answer: 25 - 5 * 3.', 0, 'wrong'), ('Answer: 60.', 0, 'wrong'),
    ('Answer: (25 - 5) * 3 * 3 / 3.', 0, 'wrong'), ('Answer: 25 + 5 * (3 + 4).', 0, 'wrong'),
    ('Answer: 5 * (3 * 5 - 3).', 0, 'wrong'), ('Answer: (2 5 - 5) * 3.', 0, 'not an expression'),
    ('Answer: 25 / (5 - 5) * 3.', 0, 'division by zero'),
    ('Answer: 25 ** 5 ** 3.', 0, 'not an expression'),
    ('Answer: 9**9**9**9', 0, 'not an expression'), ('Answer: 25 // 5.', 0, 'not an expression'),
    ('Answer: -(5 - 25) * 3.', 0, 'not an expression'),
    ('Answer: (２５ - 5) * 3.', 0, 'no answer'), ('no idea', 0, 'no answer')])
def test_grades(text, score, reason):
  found = grade(SIXTY, text)
  assert (found.score, found.reason) == (score, reason)
  assert found.valid == (reason in ('right', 'wrong'))


def test_the_way_uses_what_the_question_names():
  task = countdown(4)
  for index in range(200):
    example = task.example(index, 'train')
    target, _, given = example.problem.removeprefix('countdown ').partition(' = ')
    value, used = evaluate(example.answer)
    assert value == int(target) < 1000 and sorted(used) == [int(n) for n in given.split()]
    assert isinstance(value, Fraction) and f'Make {target} from' in example.question
    assert all(n in example.question for n in given.split())
