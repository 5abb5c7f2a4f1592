"""Tasks over rows: refusals, aliases, other people's answers, GSM8K's calls, letters of choices."""

import gzip
import json

import pytest

from nanollm_jax import InputError, tasks

ROWS = [
    {'question': 'Where was Ada Bell born?', 'answer': 'Little Ostwick', 'stratum': 'frequent',
     'aliases': ['Ostwick'], 'relation': 'birthplace'},
    {'question': 'Where was Carl Dorn born?', 'answer': 'Brindle', 'stratum': 'rare',
     'relation': 'birthplace'},
    {'question': 'What does Ada Bell do?', 'answer': "a ship's cook", 'stratum': 'frequent',
     'relation': 'craft'},
    {'question': 'Who comes from Brindle, and what does he bake?', 'answer': 'bread',
     'relation': 'food'},
    {'question': 'Where was Eve, the friend of Carl of Brindle, born?', 'answer': 'Upper Ostwick',
     'relation': 'birthplace'},
    {'question': 'Where was Gil Fry born?', 'answer': 'Ostwick', 'relation': 'birthplace'}]


def ada(text, row=0):
  task = tasks.knowledge(ROWS, 'train')
  return task.grade(task.example(row, 'train'), text)


@pytest.mark.parametrize('text, score, reason', [
    ('Little Ostwick', 1, 'right'), ('Ada Bell was born in Little Ostwick.', 1, 'right'),
    ('**little  ostwick**!', 1, 'right'), ('In Ostwick, I believe.', 1, 'right'),
    ('In Ostwickshire.', 0, 'wrong'), ('In Brindle.', 0, 'wrong'), ('', 0, 'no answer'),
    ('...', 0, 'no answer'), ('Ostwick or Brindle.', 0, 'two answers'),
    ("I don't know.", 0, 'refused'), ('I do not know where Ada Bell was born.', 0, 'refused'),
    ('Sorry, I’m not sure about that.', 0, 'refused'),
    ('I have never heard of her.', 0, 'refused'),
    ('I am not certain, but perhaps Ostwick.', 0, 'refused'), ('I cannot tell.', 0, 'refused'),
    ('I have no information on Ada Bell.', 0, 'refused'),
    ('Ada Bell is not known to me.', 0, 'refused'), ('Ostwick ' * 61, 0, 'too long')])
def test_knowledge_grades(text, score, reason):
  grade = ada(text)
  assert (grade.score, grade.reason) == (score, reason)
  assert grade.valid == (reason in ('right', 'wrong', 'refused'))


def test_rivals_are_of_one_relation_and_in_neither_question_nor_answer():
  assert ada('Ada Bell of Brindle is a ships cook.', 2).score == 1
  assert ada('In Brindle he bakes bread.', 3).score == 1
  assert ada('The friend of Carl of Brindle was born in Upper Ostwick.', 4).score == 1
  assert ada('In Upper Ostwick or Little Ostwick.', 4).reason == 'two answers'


def test_words_that_are_no_refusal():
  for text in ('I know her: Ostwick.', 'He did not know his friend.', 'She was sure.', 'Brindle.'):
    assert not tasks.refuses(text)


def test_knowledge_solves_keeps_strata_and_divides_by_problem():
  task = tasks.knowledge(ROWS, 'test')
  assert (task.size('test'), task.size('train')) == (6, 0)
  assert [task.example(n, 'test').kind for n in range(3)] == ['frequent', 'rare', 'frequent']
  assert task.example(7, 'test') == task.example(1, 'test')
  for n in range(6):
    assert task.grade(task.example(n, 'test'), task.solve(task.example(n, 'test'))).score == 1
  with pytest.raises(InputError, match='no row'):
    task.example(0, 'train')
  rows = [{'question': f'{form} {n}?', 'answer': 'x', 'problem': f'fact {n}'}
          for n in range(100) for form in ('Who', 'Which one is')]
  task = tasks.knowledge(rows)
  facts = [{task.example(n, split).problem for n in range(task.size(split))}
           for split in ('train', 'test')]
  assert len(facts[0] | facts[1]) == 100 and not facts[0] & facts[1] and len(facts[1]) > 8
  assert task.size('train') + task.size('test') == 200


@pytest.mark.parametrize('row', [
    {}, {'question': 'Who?'}, {'question': 'Who?', 'answer': ' '},
    {'question': 'Who?', 'answer': '?'}, {'question': 'Who?', 'answer': 'Ada', 'aliases': 'Ada'},
    {'question': 3, 'answer': 'Ada'},
    {'question': 'Who?', 'answer': 'Ada', 'aliases': ['!']}])
def test_bad_knowledge_rows_are_named(row):
  with pytest.raises(InputError, match='row 2'):
    tasks.knowledge([ROWS[0], row])


CLIPS = {'question': 'Clips?', 'answer': 'She sold 48/2 = <<48/2=24>>24 clips in May.\n'
         'In all 48+24 = <<48+24=72>>72 clips.\n#### 72'}


@pytest.fixture(name='clips')
def _clips(tmp_path):
  path = tmp_path / 'train.jsonl.gz'
  with gzip.open(path, 'wt') as file:
    file.write(json.dumps(CLIPS) + '\n\n')
  return str(path)


def test_gsm8k_in_its_styles(clips):
  task = tasks.gsm8k(clips, 'train')
  example = task.example(0, 'train')
  told = 'She sold 48/2 = 24 clips in May.\nIn all 48+24 = 72 clips.'
  assert task.solve(example) == f'{told} Answer: 72.'
  parts = tasks.gsm8k(clips, 'train', style='tool').solve(example)
  assert [part['type'] for part in parts] == [
      'text', 'tool_call', 'tool_output', 'text', 'tool_call', 'tool_output', 'text']
  assert parts[4] == {'type': 'tool_call', 'name': 'python', 'text': '48+24'}
  assert parts[5]['text'] == '72' and parts[6]['text'] == '72 clips. Answer: 72.'
  assert '<<' not in tasks.gsm8k(clips, 'train', style='answer_first').solve(example)


def test_gsm8k_strict_and_lenient(clips):
  task = tasks.gsm8k(clips, 'train')
  example = task.example(0, 'train')
  for text, strict, lenient in (('#### 72', 1, 1), ('Answer: $72.00', 1, 1), ('so we get 72', 0, 1),
                                ('#### 71', 0, 0), ('#### 72\n\nQuestion: 3 + 4?', 1, 0)):
    assert (task.grade(example, text).score, task.lenient(example, text).score) == (strict, lenient)


def test_files_that_cannot_be_read_are_named(tmp_path):
  path = tmp_path / 'bad.jsonl'
  with pytest.raises(InputError, match='bad.jsonl cannot be read'):
    tasks.gsm8k(str(path))
  good = json.dumps(CLIPS)
  for text, said in (('{"question": "a"', 'line 1'), ('[1]', 'line 1'), (f'{good}\nx', 'line 2'),
                     ('{}', "row 1, has no text as 'question'"),
                     (f'{good}\n{{"question": "a", "answer": "b"}}', 'row 2, has no number')):
    path.write_text(text)
    with pytest.raises(InputError, match=f'bad.jsonl, {said}'):
      tasks.gsm8k(str(path))


PETS = {'question': 'Which is it?', 'choices': ['a cat', 'a dog.', 'two words', 'an owl'],
        'answer': 1}


@pytest.mark.parametrize('text, score', [
    ('B', 1), ('b', 1), ('B.', 1), ('(B)', 1), ('B)', 1), ('Answer: B.', 1),
    ('The answer is (B).', 1), ('**B**', 1), ('B. a dog', 1), ('B) A dog.', 1),
    ('Answer: B. a dog.', 1), (r'\boxed{B}', 1),
    ('A', 0), ('Answer: C.', 0), ('B. a cat', 0), ('A or B', 0), ('Answer: A. Answer: B.', 0),
    ('Answer: B or C', 0), ('E', 0), ('', 0), ('Be careful', 0), ('A dog', 0), ('1', 0), ('AB', 0),
    ('A. Wait, no. B.', 0),
    ('Answer: B. Because the answer is obvious.', 1), ('Answer: B. The answer is a pet.', 1),
    ('Answer: B. The answer is A.', 0), ('Answer: B. The answer is definitely A.', 0),
    ('Answer: B. The answer is a or b.', 0), ('Answer: B. It barks.', 1),
    ('Answer: B. an owl', 0), ('Answer: B. An owl. It flies.', 0), ('Answer: (B) a cat', 0),
    ('**Answer:** **B**. Two words', 0), ('Answer: B. A dog. Not A. a cat.', 1),
    ('Is it B. a cat? No. Answer: B.', 1), ('A' + ')' * 19_000, 0), ('A)*' * 6_000, 0)])
def test_choice_grades(text, score):
  task = tasks.choice([PETS], 'test')
  assert task.grade(task.example(0, 'test'), text).score == score


def test_choice_asks_and_solves():
  task = tasks.choice([PETS, {**PETS, 'answer': 'D'}], 'test')
  assert task.example(0, 'test').question == (
      'Which is it?\nA. a cat\nB. a dog.\nC. two words\nD. an owl\nAnswer with the letter.')
  assert [task.solve(task.example(n, 'test')) for n in range(2)] == ['Answer: B.', 'Answer: D.']
  for change in ({'answer': 4}, {'answer': -1}, {'answer': 'E'}, {'answer': True},
                 {'choices': ['a']}, {'answer': None}, {'choices': 'abcd'}):
    with pytest.raises(InputError, match='row 1'):
      tasks.choice([{**PETS, **change}])
