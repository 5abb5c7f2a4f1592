"""Answers in other clothes are taken; hedges, tricks and floods are not."""

import time
from fractions import Fraction

import pytest

from nanollm_jax.tasks import Example, answers

TWELVE = Example('What is 3 * 4?', '12', 'p')
GENERAL = Example('What?', '1234.5', 'p')

REFORMATTED = [
    'Answer: {}.', 'Answer: {}', 'answer:{}', 'ANSWER:  {} .', 'Answer:\n{}', 'The answer is {}',
    'The answer is {}.', 'The answer is: {}.', 'So the final answer is {}!', 'Answer = {}',
    'The correct answer is **{}**.', '**Answer:** {}', '**Answer**: {}', '**Answer: {}**',
    'Answer: *{}*.', 'Answer: `{}`', 'Answer: "{}".', 'Answer: ({})', 'Answer: [{}].', '#### {}',
    'Steps.\n#### {}\n', r'\boxed{{{}}}', r'$\boxed{{{}}}$', r'The answer is $\boxed{{{}}}$.',
    r'The answer is \(\boxed{{{}}}\).', r'Answer: \({}\)', r'\[ \boxed{{ {} }} \]', 'Answer: ${}$.',
    r'Answer: \text{{{}}}.', '{}', ' {} \n', '{}.', '**{}**', '__{}__', '= {}', 'It is {}.',
    "So it's {}.", 'Thus, {}.', 'x = {}', 'Answer: x = {}.', 'Answer: {} apples.', '{} apples',
    'Answer: {} red apples', 'There are {} apples.', 'Answer: {}. Answer: {}.',
    'Answer: {}. The oranges cost 2 * 2 = 4, and 4 > 3.', '3 * 4 = {}. Answer: {}.',
    '3 points/answer = 3 points. Answer: {}.',
    'First we look for the answer: we multiply. The answer is {}.', ' . . . . Answer: {}.']


@pytest.mark.parametrize('form', REFORMATTED)
def test_a_right_answer_in_other_words_is_right(form):
  for written in ('12', '12.0', '12.00', '$12', '$12.00', '+12', '012'):
    assert answers.grade_number(TWELVE, form.replace('{}', written).replace('{{', '{')
                                .replace('}}', '}')).score == 1, (form, written)
  for written in ('1234.5', '1,234.5', '$1,234.50'):
    assert answers.grade_number(GENERAL, form.replace('{}', written).replace('{{', '{')
                                .replace('}}', '}')).score == 1, (form, written)
  assert answers.grade_number(TWELVE, form.replace('{}', '13')).score == 0


@pytest.mark.parametrize('text, reason', [
    ('', 'no answer'), ('   \n', 'no answer'), ('Answer:', 'no answer'), ('Answer: .', 'no answer'),
    ('I think so.', 'no answer'),
    ('We get 3 * 4 = 12 in the end, I think.', 'no answer'),
    ('Answer: 12. Answer: 13.', 'two answers'), ('Answer: 13. Answer: 12.', 'two answers'),
    ('The answer is 12. #### 11', 'two answers'), (r'\boxed{12} \boxed{13}', 'two answers'),
    (r'\boxed{12} or 13', 'two answers'), ('Answer: 12 or 13.', 'two answers'),
    ('Answer: 12, 13, 14', 'two answers'), ('12 13', 'two answers'), ('12 or 13', 'two answers'),
    ('Answer: 12 or 13. Answer: 12.', 'two answers'),
    ('Answer: 12' + ' ' * 300 + 'or 13.', 'unclear answer'),
    ('12\n13', 'two answers'), ('Answer: 12, the answer is 13', 'two answers'),
    ('Answer: 1e999', 'no answer'), ('Answer: 12e0', 'no answer'), ('Answer: inf', 'no answer'),
    ('Answer: nan', 'no answer'), ('Answer: -inf', 'no answer'), ('Answer: 12/1', 'no answer'),
    ('Answer: 24/2', 'no answer'), ('Answer: 3*4', 'no answer'), ('Answer: 2**3', 'no answer'),
    ('Answer: 9**9**9**9', 'no answer'), ('Answer: 3 + 9', 'two answers'),
    ('Answer: 12 + 0', 'two answers'), ('Answer: (12) * 1', 'two answers'),
    ('Answer: 0xc', 'no answer'), ('Answer: 0b1100', 'no answer'), ('Answer: 1_2', 'no answer'),
    ('Answer: １２', 'no answer'), ('Answer: ١٢', 'no answer'), ('Answer: ¹²', 'no answer'),
    ('Answer: ⑫', 'no answer'), ('Answer: XII', 'no answer'), ('Answer: twelve', 'no answer'),
    ('Answer: 12%', 'no answer'), ('Answer: 12 million', 'unclear answer'),
    ('Answer: 12 dozen', 'unclear answer'), ('Answer: 12 point five', 'unclear answer'), ('Answer: 12 is wrong', 'unclear answer'),
    ('Answer: not 12', 'no answer'), ('The answer is not 12.', 'no answer'),
    ('Answer: 1,2', 'no answer'), ('Answer: 1,23,4', 'no answer'), ('Answer: --12', 'no answer'),
    ('Answer: +-12', 'no answer'), ('Answer: 1 2', 'two answers'), ('Answer: 12.0.0', 'no answer'),
    ('Answer: 12' + '0' * 50, 'no answer'), ('Answer: ' + '9' * 5000, 'no answer'),
    ('Answer: 12.' + 'x' * 30_000, 'too long'), ('__import__("os")', 'no answer'),
    ('Answer: <think>12</think>', 'no answer'), ('answers: 12', 'no answer'),
    ('Answer: 12\u200b', 'no answer'), ('Answer: ' + '(' * 100 + '12', 'right'),
    ('Answer: 11.999999999999999999999', 'wrong'), ('Answer: -12', 'wrong'), ('Answer: 0', 'wrong'),
    ('Answer: \u221212', 'wrong'), ('Answer: 1212', 'wrong')])
def test_attacks(text, reason):
  grade = answers.grade_number(TWELVE, text)
  assert grade == (float(reason == 'right'), reason in ('right', 'wrong'), reason)


def test_numbers_are_exact_and_signed():
  assert answers.number('-0.1') == Fraction(-1, 10) == answers.number('\u2212.1')
  assert answers.number('-$5') == answers.number('$-5') == -5
  assert answers.number('12345678901234567891') != answers.number('12345678901234567890')
  assert answers.number('7.0') == 7 and answers.number('7/1') is None


@pytest.mark.parametrize('text, right', [
    ('so we get 4 and 12 in the end', True), ('12 is my answer, not 13', False), ('', False),
    ('it costs $12.', True), ('3*4=12', True), ('no number', False), ('1e12', False),
    ('Answer: 13. Or 12?', True), ('10-12', True), ('5-17=-12', False),
    ('x' * 30_000 + ' 12', True),
    ('9' * 9000, False), ('１２', False)])
def test_the_lenient_score_takes_the_last_number(text, right):
  assert answers.grade_last_number(TWELVE, text).score == right


@pytest.mark.parametrize('text, right', [
    ('Answer: r-b-r.', True), ('Answer: rbr', True), ('R B R', True),
    ('The answer is "r, b, r".', True), ('Answer: r-b-y.', False),
    ('Answer: r-b-r or r-b-y', False), ('Answer: r1b2r3', False),
    ('Answer: rbr. Answer: rby.', False), ('Answer: 3.', False),
    ('Answer: rbр', False), ('', False)])
def test_letters(text, right):
  assert answers.grade_letters(Example('?', 'r-b-r', 'p'), text).score == right


@pytest.mark.parametrize('piece', [
    'Answer: ', '\\boxed{', '$', '*', '12 ', '(', 'answer ', '#', '\\text{', 'so ', '1,', '. ',
    'a=', '<', '-', 'it is ', '\n', '####', '12.', 'Answer: 12 or ', 'the answer is so ',
    'Answer: 12' + ' ' * 190])
def test_a_flood_is_graded_quickly(piece):
  start = time.perf_counter()
  answers.grade_number(TWELVE, (piece * 20_000)[:answers.LONGEST])
  answers.grade_letters(TWELVE, (piece * 20_000)[:answers.LONGEST])
  answers.grade_last_number(TWELVE, piece * 20_000)
  assert time.perf_counter() - start < 1


@pytest.mark.parametrize('text, reason', [
    ('Answer: 12. I hope this answer is helpful.', 'right'),
    ('The answer is 12. I hope this answer is helpful.', 'right'),
    ('Answer: 12. Because the answer is a whole number, I think.', 'right'),
    ('Answer: 13. I hope this answer is helpful.', 'wrong'),
    ('Answer: 12. The answer is 13.', 'two answers'),
    ('The answer is 13. Answer: 12. This answer is final.', 'two answers'),
    ('Answer: 12. The answer is 12 or 13.', 'two answers'),
    ('Answer: 12. The answer is not 12.', 'no answer'),
    ('Answer: 12. The answer is １３.', 'no answer'),
    ('Answer: 12. Answer: banana. This answer is final.', 'no answer'),
    ('Answer: 12. #### banana', 'no answer'), (r'Answer: 12. \boxed{}', 'no answer'),
    ('Answer: banana. This answer is final.', 'no answer'),
    ('This answer is final.', 'no answer')])
def test_prose_behind_an_answer_is_none(text, reason):
  assert answers.grade_number(TWELVE, text).reason == reason


@pytest.mark.parametrize('text, reason', [
    ('Answer: r-b-r. This answer is final.', 'right'),
    ('Answer: r-b-r. The answer is a word and I am sure.', 'right'),
    (r'The answer is \boxed{rbr}.', 'right'),
    ('The answer is rbr.', 'right'), ('The answer is r-b-r', 'right'),
    ('Answer: r-b-y. The answer is rbr.', 'wrong'),
    ('Answer: r-b-r. The answer is r-b-y.', 'two answers'),
    ('The answer is r-b-r. The answer is rby.', 'two answers'),
    ('Answer: r-b-r. Answer: rby.', 'two answers')])
def test_letters_in_prose_count_only_without_an_explicit_mark(text, reason):
  assert answers.grade_letters(Example('?', 'r-b-r', 'p'), text).reason == reason


@pytest.mark.parametrize('text', [
    r'\boxed{\$12}', r'Answer: \$12', r'$\boxed{\$12}$', r'#### \$12', r'Answer: $\$12$.', '$12',
    r'\(12\)', r'Answer: **\$12.00**'])
def test_dollars_of_latex_are_dollars(text):
  assert answers.grade_number(TWELVE, text).score == 1


@pytest.mark.parametrize('unit, right', [
    ('hundreds', 0), ('thousands', 0), ('dozens', 0), ('tenths', 0), ('hundredths', 0),
    ('squared', 0), ('cubed', 0), ('factorial', 0), ('cents', 0), ('feet squared', 1),
    ('squares', 1), ('dollars', 1)])
def test_words_that_make_another_number_are_no_units(unit, right):
  assert answers.grade_number(TWELVE, f'Answer: 12 {unit}.').score == right


def test_cents_are_a_unit_where_the_question_has_them():
  asked = Example('How many cents does it cost?', '12', 'p')
  assert answers.grade_number(asked, 'Answer: 12 cents.').score == 1
