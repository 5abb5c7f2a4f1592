"""The claims about tokens to think, tools and letters: what arms learn, and how it is counted."""

import collections
import re

import pytest

from experiments.lecture import answer_first, arm, calculator, count_dots, jagged, spelling
from nanollm_jax import tasks
from nanollm_jax.tasks.letters import WORDS
from nanollm_jax.text import tokenizer as tokenizer_lib
from nanollm_jax.world import sums


def test_an_arm_is_taught_by_the_oracle():
  task = tasks.multiply(3, style='tool')
  for number, (user, assistant) in enumerate(arm.taught(task, 5)):
    example = task.example(number, 'train')
    assert user == {'role': 'user', 'content': example.question}
    assert assistant == {'role': 'assistant', 'content': task.solve(example)}


def test_the_vocabulary_is_of_think_tokens_has_a_token_for_each_letter(tmp_path):
  arms = [tasks.affine(8, every) for every in (1, 2, 4, 8)] + [tasks.affine(8, style='filler')]
  folder = arm.vocabulary(tmp_path, [one for task in arms for one in arm.taught(task, 500)], 324)
  words = tokenizer_lib.load(f'{folder}/tokenizer.json')
  for token in [*(f' {letter}' for letter in 'abcdefghijklmnopABCDEFGHIJK.'), 'assistant', 'user']:
    assert len(words.encode(token)) == 1, token


def test_the_vocabulary_is_learned_from_tool_calls_too(tmp_path):
  told = [{'role': 'assistant',
           'content': [{'type': 'tool_call', 'name': 'python', 'text': 'xyxy'}]}]
  folder = arm.vocabulary(tmp_path, [told] * 3, 280)
  assert len(tokenizer_lib.load(f'{folder}/tokenizer.json').encode('xyxy')) == 2


def test_each_group_of_dots_is_one_token(tmp_path):
  task = count_dots.rows_of_dots(4, 'direct', '')
  folder = arm.vocabulary(tmp_path, arm.taught(task, 4000), 319)
  words = tokenizer_lib.load(f'{folder}/tokenizer.json')
  assert {len(words.encode(' ' + '.' * dots)) for dots in range(1, 10)} == {1}
  assert len(words.encode(' . . .')) == 3


@pytest.mark.parametrize('style, between', [('direct', ''), ('direct', ' '), ('tool', '')])
def test_rows_of_dots_are_counted_right(style, between):
  task, kinds = count_dots.rows_of_dots(4, style, between), set()
  for index in range(60):
    example = task.example(index, 'test')
    content = task.solve(example)
    groups = [len(one.replace(' ', '')) for one in re.findall('[.](?:[. ]*[.])?', example.question)]
    assert sum(groups) == eval(example.code) == int(example.answer)
    assert int(example.kind) == sum(one in count_dots.UNCOUNTED for one in groups)
    assert (example.kind == '0') == (index % 2 == 0) and 2 <= len(groups) <= 4
    kinds.add(example.kind)
    text = content if isinstance(content, str) else content[-1]['text']
    assert task.grade(example, text).score == 1
  assert {'0', '1', '2'} <= kinds


def test_what_is_asked_was_only_repeated_in_training():
  task = count_dots.rows_of_dots(4, 'direct', '')
  counted, repeated = set(), set()
  for index in range(400):
    example = task.example(index, 'train')
    question, row = example.question.split(':' if index % 3 else '?')
    assert question == ('Say this again' if index % 3 else 'How many dots are here')
    (repeated if index % 3 else counted).update(map(len, re.findall('[.]+', row)))
    if index % 3:
      assert task.solve(example) == f'Answer: {row}.' and eval(example.code) == row
  assert repeated == set(range(1, 10)) and counted == repeated - set(count_dots.UNCOUNTED)


def test_words_are_joined_from_two():
  words = spelling.joined(500)
  assert len(set(words)) > 450 and max(map(len, words)) <= 16
  assert all(any(word[:at] in WORDS and word[at:] in WORDS for at in range(3, 9)) for word in words)


@pytest.mark.parametrize('style', ['direct', 'steps'])
def test_letters_are_written_and_counted_in_turn_and_held_out_word_by_word(style):
  task = spelling.letters(spelling.joined(300), style)
  words = {}
  for split in ('train', 'test'):
    examples = [task.example(index, split) for index in range(200)]
    assert [spelling.counts(one.question) for one in examples] == [False, True] * 100
    assert all(task.grade(one, task.solve(one)).score == 1 for one in examples)
    words[split] = {one.problem for one in examples}
  assert not words['train'] & words['test']


@pytest.mark.parametrize('text, fits', [
    ('Answer: 4. 5 + 10 = 15, on the clock 4.', True),
    ('Answer: 4. 5 + 11 = 16, on the clock 5.', False),
    ('Answer: 4.', False)])
def test_steps_justify_an_answer_where_they_end_at_it(text, fits):
  assert answer_first.justifies(text) == fits


def test_the_oracle_always_justifies():
  task = tasks.chain(3, style='answer_first')
  assert all(answer_first.justifies(task.solve(task.example(index, 'test'))) for index in range(50))


@pytest.mark.parametrize('text, close', [
    ('Answer: 200000.', True), ('Answer: 208800.', True), ('Answer: 300000.', False),
    ('Answer: 20000.', False), ('Answer: .', False), ('', False)])
def test_an_estimate_is_near(text, close):
  assert calculator.near(text, '208800') == close


def test_jagged_asks_as_many_of_each_kind_and_only_held_out_numbers():
  problems = jagged.problems_by_kind(8)
  assert {len(group) for group in problems.values()} == {8}
  assert all(sums.held_out(one.numbers) for group in problems.values() for one in group)
  assert {'one_step *', 'two_steps * -', 'decimals, one longer', 'versions, one longer', 'days'
          } <= set(problems)
  for one in problems['decimals, one longer'] + problems['versions, one longer']:
    assert len(one.numbers[0]) != len(one.numbers[1])


def test_jagged_practises_each_kind_alike_and_nothing_held_out():
  problems = jagged.practice(22 * len(sums.KINDS))
  assert not any(sums.held_out(one.numbers) for one in problems)
  assert set(collections.Counter(one.kind for one in problems).values()) == {22}


@pytest.mark.parametrize('text, answer, right', [
    ('8 * 2 = 16. So the answer is $16.', '$16', True), ('So the answer is 16.', '$16', True),
    ('So the answer is 9.9.', '9.9', True), ('So the answer is 9.90.', '9.9', False),
    ('We count on: 1 Monday. So the answer is Monday.', 'Monday', True),
    ('So the answer is b-o-a-t.', 'b-o-a-t', True), ('No idea', '4', False)])
def test_jagged_takes_the_answer_that_a_text_ends_at(text, answer, right):
  assert jagged.is_right(text, answer) == right


def test_jagged_takes_the_steps_of_every_kind():
  for problem in jagged.practice(len(sums.KINDS)):
    assert jagged.is_right(jagged.told(problem)[1]['content'], problem.answer), problem
