"""pass@k, maj@k and the asking of a task, by formula, simulation and a parrot."""

import itertools
import math
import random
from typing import NamedTuple

import pytest

from nanollm_jax import InputError
from nanollm_jax.eval import generative
from nanollm_jax.sample.engine import Sampling
from nanollm_jax.tasks.task import Example, Grade, Task


@pytest.mark.parametrize('n, right', [(5, 0), (5, 1), (5, 3), (5, 5), (1, 1)])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(n, right):
  for k in range(1, n + 1):
    subsets = list(itertools.combinations([1] * right + [0] * (n - right), k))
    assert generative.pass_at_k(n, right, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_is_unbiased_and_the_plug_in_is_not():
  rng, p, n, k, trials = random.Random(0), 0.22, 8, 4, 20_000
  unbiased = plug_in = 0.0
  for _ in range(trials):
    right = sum(rng.random() < p for _ in range(n))
    unbiased += generative.pass_at_k(n, right, k) / trials
    plug_in += (1 - (1 - right / n) ** k) / trials
  true = 1 - (1 - p) ** k
  assert abs(unbiased - true) < 0.01 < abs(plug_in - true)


def test_majority_ties_and_the_unreadable():
  maj = generative.maj_at_k
  assert maj(['4', '4', '5'], [1, 1, 0], 3) == 1
  assert maj(['5', '4', '5'], [0, 1, 0], 3) == 0
  assert maj([None, None, '4'], [0, 0, 1], 3) == 1
  assert maj([None, None], [1, 1], 2) == 0
  tie = [maj(['4', '5'], [1, 0], 2, seed) for seed in range(40)]
  assert 0.45 < sum(tie) / 40 < 0.55 and tie[0] == maj(['4', '5'], [1, 0], 2, 0)
  # One of three at random: 2/3 right.
  assert maj(['4', '4', '5'], [1, 1, 0], 1, draws=4000) == pytest.approx(2 / 3, abs=0.03)


def grade(example, text):
  return Grade(float(text == example.answer), text.isdigit(), '')


def doubling(size=None, lenient=None):
  """2 x index, of even and odd kinds."""
  example = lambda index, split: Example(
      str(index), str(2 * index), f'{split} {index}', kind='even odd'.split()[index % 2])
  return Task('doubling', example, grade, None, lenient, size)


class Chat:
  """Ids are characters."""

  def prompt(self, messages):
    assert [message['role'] for message in messages] == ['user']
    return list(map(ord, messages[0]['content']))

  def visible(self, ids):
    return ''.join(map(chr, ids))


class Completion(NamedTuple):
  ids: list
  finished: bool


class Parrot:
  """Says by its seed one of four things, of which '' is to double the question; cut off at hm.

  The last is done first.
  """

  def __init__(self, says, length=100):
    self.says, self.length = says, length

  def completed(self, params, prompts, sampling, calls):
    assert calls == ('a tool',) and len({one.seed for one in sampling}) == len(prompts)
    texts = [self.says[one.seed % 4] or str(2 * int(bytes(prompt)))
             for prompt, one in zip(prompts, sampling)]
    for index, text in reversed(list(enumerate(texts))):
      yield index, Completion(list(map(ord, text)), text != 'hm')


def ask(task, says=('', '7', '', 'hm'), **options):
  return generative.evaluate(task, Parrot(says), None, Chat(), calls=('a tool',), **options)


def test_a_task_is_asked_and_graded():
  numbers, rows = ask(doubling(), examples=3, samples=4, sampling=Sampling(seed=12))
  assert [row['completion'] for row in rows[4:8]] == ['2', '7', '2', 'hm']
  assert [(row['index'], row['sample'], row['score']) for row in rows[4:8]] == [
      (1, 0, 1.0), (1, 1, 0.0), (1, 2, 1.0), (1, 3, 0.0)]
  assert numbers['accuracy'] == (0.5, 0.0, 3)
  assert numbers['accuracy, even'] == (0.5, 0.0, 2) and numbers['accuracy, odd'].n == 1
  assert numbers['valid'].value == numbers['finished'].value == 0.75
  assert numbers['length'].value == 1.25
  assert numbers['pass@1'].value == 0.5 and numbers['pass@4'].value == 1
  assert numbers['pass@2'].value == pytest.approx(1 - 1 / math.comb(4, 2))
  assert numbers['maj@4'].value == 1 and 0.3 < numbers['maj@1'].value < 0.7


def test_pass_at_k_is_for_answers_that_are_right_or_wrong():
  """It was 0 for every task whose grades lie between."""
  half = lambda example, text: Grade(float(text == example.answer) / 2, True, '')
  numbers, _ = ask(doubling()._replace(grade=half), examples=3, samples=4)
  assert numbers['accuracy'].value == .25 and 'pass@4' not in numbers and 'maj@4' in numbers


def test_what_does_not_fit_or_cannot_be_graded_is_counted():
  def broken(example, text):
    return Grade(math.nan, True, '') if example.answer == '2' else 1 / 0
  numbers, rows = generative.evaluate(
      doubling(), Parrot(['1'] * 4, length=2), None, Chat(), calls=('a tool',), examples=12)
  assert [row['index'] for row in rows] == list(range(10)) and numbers['accuracy'].n == 10
  assert numbers['too_long'].value == pytest.approx(2 / 12)
  numbers, rows = ask(doubling()._replace(grade=broken), examples=3)
  assert numbers['accuracy'].value == numbers['valid'].value == 0
  assert [row['reason'][:22] for row in rows[:2]] == ['the grader failed: Zer', 'the score is not a num']
  for task, length in ((doubling(), 1), (doubling(lambda split: 0), 9)):
    with pytest.raises(InputError, match='the task doubling has no test question in less than'):
      generative.evaluate(task, Parrot([''], length), None, Chat())


def test_one_sample_a_finite_task_and_a_lenient_grade():
  lenient = lambda example, text: Grade(1.0, True, '')
  numbers, rows = ask(doubling(lambda split: 2, lenient), examples=9, says=('7', 'hm', '', ''))
  assert set(numbers) == {
      'accuracy', 'accuracy, even', 'accuracy, odd', 'lenient', 'valid', 'finished', 'length'}
  assert numbers['accuracy'] == (0, 0, 2) and numbers['lenient'].value == 1 == rows[1]['lenient']


def test_what_cannot_be_read_has_no_vote():
  numbers, _ = ask(doubling(), examples=3, samples=4, says=('7', '', 'hm', 'hm'))
  assert 0.3 < numbers['maj@4'].value < 0.7
