"""Drawn tasks: the oracle is right, problems are divided, dials turn, tools and styles agree."""

import random
import re
import subprocess
import sys

import pytest

from nanollm_jax import InputError, tasks
from nanollm_jax.tasks import letters, styles, sums

DRAWN = [
    tasks.apples(), tasks.apples(99), tasks.chain(), tasks.chain(8, 97), tasks.chain(3, 0),
    tasks.affine(), tasks.affine(8, 3), tasks.multiply(1), tasks.multiply(4), tasks.decimals(),
    tasks.decimals(5), tasks.countdown(), tasks.countdown(4), tasks.countdown(2, most=9),
    tasks.letter_count(), tasks.spelling(), tasks.spelling(1), tasks.spelling(2),
    tasks.spelling(-1), tasks.dots(), tasks.dots(spaced=True)]
MAKERS = [tasks.apples, tasks.chain, tasks.affine, tasks.multiply, tasks.decimals, tasks.countdown,
          tasks.letter_count, tasks.spelling, tasks.dots]
NAMES = [f'{task.name}{at}' for at, task in enumerate(DRAWN)]


def visible(content):
  return content if isinstance(content, str) else ''.join(
      part['text'] for part in content if part['type'] == 'text')


def first(task, n=200, split='train'):
  return [task.example(index, split) for index in range(n)]


@pytest.mark.parametrize('task', DRAWN, ids=NAMES)
def test_the_oracle_is_right_and_no_other_number_is(task):
  for split in ('train', 'test'):
    for example in first(task, split=split):
      assert task.grade(example, visible(task.solve(example))) == (1.0, True, 'right'), example
      assert task.grade(example, 'Answer: 123457.').score == 0, example


@pytest.mark.parametrize('task', DRAWN, ids=NAMES)
def test_a_problem_is_in_one_split_only(task):
  train, test = ({example.problem for example in first(task, 300, split)}
                 for split in ('train', 'test'))
  assert train and test and not train & test
  assert {tasks.split_of(problem) for problem in test} == {'test'}


def test_one_problem_in_five_is_held_out():
  held_out = sum(tasks.split_of(f'problem {n}') == 'test' for n in range(5000))
  assert 900 < held_out < 1150


@pytest.mark.parametrize('maker', MAKERS, ids=lambda maker: maker.__name__)
def test_examples_depend_on_index_and_seed_alone(maker):
  examples = first(maker())
  task = maker()
  assert examples == [task.example(index, 'train') for index in reversed(range(200))][::-1]
  assert len(set(examples)) > 20
  assert examples != first(maker(seed=1))


def test_examples_are_the_same_in_another_process():
  code = 'from nanollm_jax import tasks; print(tasks.countdown().example(3, "test"))'
  told = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert told.stdout.strip() == str(tasks.countdown().example(3, 'test'))


def test_jax_is_not_needed():
  code = 'import sys, nanollm_jax.tasks; print("jax" in sys.modules)'
  told = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert told.stdout.strip() == 'False'


def test_the_lecture_s_apples():
  question = sums.PRICE_OF_ONE[0].format(P='Emily', a=3, b=2, x='apple', y='orange', d=2, t=13)
  assert question == ('Emily buys 3 apples and 2 oranges. Each orange costs $2. The total cost of '
                      'all the fruit is $13. What is the cost of each apple?')


def test_apples_can_be_solved_from_the_question_alone():
  for example in first(tasks.apples(99)):
    counts = {fruit: int(n) for n, fruit in re.findall(r'(\d+) (\w+)s\b', example.question)}
    unknown = re.search(r'(\w+)(?: cost)?\?$', example.question)[1]
    (known,) = set(counts) - {unknown}
    total, price = sorted(map(int, re.findall(r'\$(\d+)', example.question)), reverse=True)
    assert int(example.answer) * counts[unknown] == total - counts[known] * price, example


def test_every_equation_in_steps_holds():
  equations = 0
  for task in DRAWN:
    for example in first(task, 50):
      for a, op, b, c in re.findall(r'(-?\d+) ([-+*/]) (\d+) = (-?\d+)', example.steps):
        assert eval(f'{a} {op} {b}') == int(c), example
        equations += 1
      for more, less in re.findall(r'(\d+) > (\d+)', example.steps):
        assert int(more) > int(less), example
  assert equations > 1000


def test_affine_follows_its_maps_and_tells_every_kth_value():
  values = 'ABCDEFGHIJK'
  assert len(set(sums.OPERATIONS.values())) == 16
  assert all(times % 11 for times, _ in sums.OPERATIONS.values())  # no map forgets its value
  for example in first(tasks.affine(8, 2), 50):
    start, maps = re.fullmatch(r'From (\w) by (.*)', example.question).groups()
    value, reached = values.index(start), []
    for letter in maps.split():
      times, plus = sums.OPERATIONS[letter]
      value = (times * value + plus) % 11
      reached.append(values[value])
    assert example.steps.split() == reached[1:7:2] and example.answer == reached[7]
  for every, told in ((1, 7), (2, 3), (4, 1), (8, 0)):
    assert len(tasks.affine(8, every).example(0, 'train').steps.split()) == told
  questions = {tuple(e.question for e in first(tasks.affine(8, k), 20)) for k in (1, 2, 4, 8)}
  assert len(questions) == 1  # the arms ask the same


def test_letters_and_dots_are_counted():
  for example in first(tasks.letter_count()):
    letter, word = re.search(r'letter (\w) stand in (\w+)', example.question).groups()
    assert int(example.answer) == word.count(letter)
    assert re.sub(r'[\d .]', '', example.steps) == word
  assert 5 < sum(example.answer == '0' for example in first(tasks.letter_count())) < 40
  for example in first(tasks.dots(spaced=True)):
    assert 1 <= example.question.count('.') == int(example.answer) <= 40
  third = next(e for e in first(tasks.spelling(3)) if 'strawberry' in e.question)
  assert third.answer == 'r-b-r' and third.steps == 's1 t2 r3 a1 w2 b3 e1 r2 r3 y1.'
  back = next(e for e in first(tasks.spelling(-1)) if 'kitchen' in e.question)
  assert back.answer == 'n-e-h-c-t-i-k' and back.steps == 'k1 i2 t3 c4 h5 e6 n7.'


def test_a_product_is_held_out_both_ways_and_adds_no_noughts():
  for example in first(tasks.multiply(3)):
    factors = sorted(map(int, re.findall(r'\d+', example.question)))
    assert example.problem == 'multiply {} {}'.format(*factors)
    assert ' * 0 ' not in example.steps


def test_plain_chains_stay_between_0_and_99():
  values = [int(value) for example in first(tasks.chain(8, 0), 50)
            for value in re.findall(r'= (-?\d+)', example.steps)]
  assert 0 <= min(values) < 10 and 90 < max(values) <= 99


def test_only_tasks_with_a_number_are_graded_leniently():
  for task in DRAWN:
    numeric = task.name not in ('affine', 'countdown', 'spelling')
    assert bool(task.lenient) == numeric
    if numeric:
      example = task.example(0, 'test')
      assert task.lenient(example, f'so {example.answer} it is').score == 1


def test_words_are_plain_and_stand_once():
  assert len(set(letters.WORDS)) == len(letters.WORDS) > 250
  assert all(re.fullmatch('[a-z]+', word) for word in letters.WORDS)


@pytest.mark.parametrize('easy, hard', [
    (tasks.apples(5), tasks.apples(60)), (tasks.chain(2), tasks.chain(6)),
    (tasks.affine(2), tasks.affine(8)), (tasks.multiply(1), tasks.multiply(3)),
    (tasks.decimals(1), tasks.decimals(6)), (tasks.countdown(3), tasks.countdown(5)),
    (tasks.letter_count(5), tasks.letter_count(11)), (tasks.spelling(-1, 5), tasks.spelling(-1)),
    (tasks.dots(8), tasks.dots(60))], ids=lambda task: task.name)
def test_the_dial_makes_it_longer(easy, hard):
  def length(task):
    return sum(styles.pieces(task.example(n, 'train').steps) for n in range(100))

  assert length(hard) > 1.2 * length(easy)


def test_decimals_tell_the_trap():
  kinds = {}
  for example in first(tasks.decimals()):
    x, y = re.findall(r'\d+\.\d+', example.question)
    less, more = sorted((x, y), key=float)
    assert example.answer == more and float(x) != float(y)
    expected = ('same length', 'longer', 'shorter')[
        (len(more) > len(less)) - (len(more) < len(less))]
    assert example.kind == expected
    kinds[expected] = kinds.get(expected, 0) + 1
  assert min(kinds[kind] for kind in ('same length', 'longer', 'shorter')) > 20


@pytest.mark.parametrize('maker', MAKERS, ids=lambda maker: maker.__name__)
@pytest.mark.parametrize('style', tasks.STYLES)
def test_styles_ask_the_same_and_grade_right(maker, style):
  if style == 'tool' and maker in (tasks.countdown, tasks.affine):
    return
  task, plain = maker(style=style), maker()
  for index in range(50):
    example = task.example(index, 'test')
    assert example == plain.example(index, 'test')
    assert task.grade(example, visible(task.solve(example))).score == 1, task.solve(example)


def test_what_each_style_says():
  example = tasks.Example('What is 2 * 3?', '6', 'p', steps='2 * 3 = 6.', code='2 * 3')
  told = {name: style(example) for name, style in tasks.STYLES.items()}
  assert told.pop('tool') == [
      {'type': 'tool_call', 'name': 'python', 'text': '2 * 3'},
      {'type': 'tool_output', 'text': '6'}, {'type': 'text', 'text': 'Answer: 6.'}]
  assert told == {'steps': '2 * 3 = 6. Answer: 6.', 'answer_first': 'Answer: 6. 2 * 3 = 6.',
                  'direct': 'Answer: 6.', 'filler': ' . . . . . . Answer: 6.'}
  assert styles.filler(example, count=len) == ' .' * 10 + ' Answer: 6.'


@pytest.mark.parametrize('maker', [maker for maker in MAKERS
                                   if maker not in (tasks.countdown, tasks.affine)],
                         ids=lambda maker: maker.__name__)
def test_the_code_gives_the_answer(maker):
  for example in first(maker(), 100):
    assert str(eval(example.code)) == example.answer, example


@pytest.mark.parametrize('wrong', [
    lambda: tasks.apples(1), lambda: tasks.chain(0), lambda: tasks.chain(3, 1),
    lambda: tasks.affine(4, 5), lambda: tasks.affine(4, 0), lambda: tasks.multiply(0),
    lambda: tasks.decimals(0), lambda: tasks.countdown(1),
    lambda: tasks.countdown(most=100), lambda: tasks.countdown(style='tool'),
    lambda: tasks.letter_count(2), lambda: tasks.letter_count(words=['Öl']),
    lambda: tasks.spelling(0), lambda: tasks.spelling(12), lambda: tasks.dots(0),
    lambda: tasks.apples(style='loud'), lambda: tasks.apples().example(0, 'validation'),
    lambda: tasks.dots(1).example(0, 'test' if tasks.split_of('dots 1') == 'train' else 'train'),
    lambda: (task := tasks.affine(style='tool')).solve(task.example(0, 'train'))])
def test_what_cannot_be_is_refused(wrong):
  with pytest.raises(InputError):
    wrong()


def test_the_numbers_do_not_give_an_apple_away():
  """A guess by the most frequent answer stays poor: the problem must be solved."""
  answers = [example.answer for example in first(tasks.apples(), 1000)]
  assert max(map(answers.count, set(answers))) < 120
  guesses = [random.Random(0).choice(answers) for _ in answers]
  assert sum(map(str.__eq__, guesses, answers)) < 120
