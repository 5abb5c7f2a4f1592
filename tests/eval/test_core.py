"""CORE's three forms on items made by hand, with a scorer that remembers what it was asked."""

import gzip
import json
import math
import pathlib
import random

import numpy as np
import pytest

from nanollm_jax import InputError
from nanollm_jax.eval import core
from nanollm_jax.eval.choice import Score

REAL = pathlib.Path(__file__).parents[3] / 'shared' / 'data' / 'eval'


class Characters:
  """One id a character; 0 marks a document."""
  end = 0

  def encode_batch(self, texts):
    return [[ord(letter) for letter in text] for text in texts]


def read(ids):
  return ''.join(map(chr, ids)).replace('\0', '^')


class Fake:
  """Gives each token a log-probability by `of(character)`; greedy where the text is in `knows`."""

  def __init__(self, of=lambda letter: -1.0, knows=(), context=10_000):
    self.of, self.knows, self.context, self.asked = of, knows, context, []

  def score(self, params, requests):
    self.asked = [(read(before), read(after)) for before, after in requests]
    return [Score(np.array([self.of(letter) for letter in after], np.float32), after in self.knows)
            for _, after in self.asked]


def choice(query, choices, gold):
  return dict(query=query, choices=choices, gold=gold)


def test_multiple_choice_by_mean_loss_sum_and_characters():
  """' aab' and ' aacccc' share ' aa': CORE compares b with cccc, lm-eval all of it."""
  task = core.Task('t', [choice('Q: x', ['aab', 'aacccc'], 1)], baseline=0.5)
  costs = {'b': -2.0, 'c': -1.5, 'a': -0.1, ' ': -0.1}
  fake = Fake(costs.__getitem__)
  numbers, (row,) = core.evaluate(task, fake, None, Characters(), 9)
  assert fake.asked == [('^Q: x', ' aab'), ('^Q: x', ' aacccc')]
  # Means -2 and -1.5; sums -2.3 and -6.3; per character -2.3/3 and -6.3/6.
  assert (row['choice'], row['right'], row['acc'], row['acc_norm']) == (1, True, False, False)
  assert numbers['accuracy'].value == 1 and numbers['centred'].value == 1
  np.testing.assert_allclose(row['logprobs'], [-2.3, -6.3], atol=1e-6)
  costs['c'] = -0.3  # sums -2.3 and -1.5
  assert core.evaluate(task, fake, None, Characters(), 9)[0]['acc'].value == 1


def test_schema_scores_what_follows_the_options():
  item = dict(context_options=['The cup left the bag: cup', 'The cup left the bag: bag'],
              continuation='is big.', gold=0)
  fake = Fake()
  _, (row,) = core.evaluate(core.Task('t', [item]), fake, None, Characters(), 9)
  stem = '^The cup left the bag: '
  assert fake.asked == [(f'{stem}cup', ' is big.'), (f'{stem}bag', ' is big.')]
  assert row['choice'] == 0 and 'acc' not in row


def test_language_modelling_needs_every_token():
  items = [dict(context='  The sky is \n', continuation='blue'),
           dict(context='One plus one is', continuation='two')]
  fake = Fake(knows=(' blue',))
  numbers, rows = core.evaluate(core.Task('t', items), fake, None, Characters(), 9)
  assert fake.asked == [('^The sky is', ' blue'), ('^One plus one is', ' two')]
  assert [row['right'] for row in rows] == [True, False]
  assert numbers['accuracy'] == (0.5, 0.5, 2)


def test_centred_by_hand():
  items = [choice('q', ['a', 'b'], 0), choice('q', ['a', 'b'], 1), choice('q', ['a', 'b'], 0)]
  fake = Fake({'a': -1.0, 'b': -2.0, ' ': -1.0}.__getitem__)
  numbers, _ = core.evaluate(core.Task('t', items, baseline=0.5), fake, None, Characters(), 9)
  assert numbers['accuracy'].value == pytest.approx(2 / 3)
  assert numbers['centred'].value == pytest.approx(1 / 3)
  stderr = math.sqrt((2 / 9 + 4 / 9) / 2 / 3)  # deviations 1/3, -2/3, 1/3
  assert numbers['accuracy'].stderr == pytest.approx(stderr)
  assert numbers['centred'].stderr == pytest.approx(2 * stderr)
  limited, rows = core.evaluate(core.Task('t', items, baseline=0.5), fake, None, Characters(), 2)
  assert limited['accuracy'].n == len(rows) == 2


def test_shots_are_the_published_draw_and_never_the_item():
  items = [choice(f'question {i}', [f'wrong {i}', f'right {i}'], 1) for i in range(6)]
  task = core.Task('t', items, shots=5, delimiter='\nAnswer: ')
  for index in range(6):
    stems, wholes = core.texts(task, index)
    order = random.Random(1234 + index).sample([i for i in range(6) if i != index], 5)
    shots = ''.join(f'question {i}\nAnswer: right {i}\n\n' for i in order)
    assert stems == [f'{shots}question {index}\nAnswer:']
    assert wholes == [f'{stems[0]} {kind} {index}' for kind in ('wrong', 'right')]
    assert f'right {index}' not in stems[0]
  items = [dict(context=f' c{i} ', continuation=f'a{i}') for i in range(3)]
  language = core.Task('t', items, shots=1)
  assert core.texts(language, 0)[1][0] in ('c1 a1\n\nc0 a0', 'c2 a2\n\nc0 a0')


def test_cut_contexts_are_equally_long_and_answers_whole():
  fake = Fake(context=12)
  task = core.Task('t', [choice('a long question', ['yes', 'perhaps'], 0)])
  core.evaluate(task, fake, None, Characters(), 9)
  assert fake.asked == [('stion', ' yes'), ('stion', ' perhaps')]  # 13 tokens: 12 in, 12 out


def test_candidates_that_contain_each_other_or_nothing():
  for choices in (['a', 'ab'], ['', 'b'], ['same', 'same']):
    task = core.Task('t', [choice('q', choices, 0)])
    (row,) = core.evaluate(task, Fake(), None, Characters(), 9)[1]
    assert all(map(math.isfinite, row['logprobs'])) and row['choice'] in (0, 1)
  item = dict(context_options=['x', 'x'], continuation='y', gold=0)
  assert core.evaluate(core.Task('t', [item]), Fake(), None, Characters(), 9)[1][0]['choice'] == 0


def write(path, rows):
  path.write_bytes(gzip.compress('\n'.join(map(json.dumps, rows)).encode()))
  return path


def test_files(tmp_path):
  item = choice('q', ['a', 'b', 'c', 'd'], 0)
  names = [task.name for task in core.load(write(tmp_path / 'hellaswag.jsonl.gz', [item] * 11))]
  assert names == ['hellaswag_zeroshot', 'hellaswag']
  (mine,) = core.load(write(tmp_path / 'mine.jsonl.gz', [item]))
  assert (mine.name, mine.shots, mine.baseline) == ('mine', 0, 0.25)
  with pytest.raises(InputError, match='has 10 items, but hellaswag shows 10'):
    core.load(write(tmp_path / 'hellaswag.jsonl.gz', [item] * 10))
  for bad in ({'prompt': 'x'}, choice('q', ['a'], 3), 7, choice('q', ['a'], 0), choice(5, ['a', 'b'], 0),
              choice('q', ['a', 'b'], -1), choice('q', ['a', 'b'], True),
              {'context': 'a', 'continuation': 'b'}):
    with pytest.raises(InputError, match='line 2 is no CORE item'):
      core.load(write(tmp_path / 'mine.jsonl.gz', [item, bad]))
  with pytest.raises(InputError, match='line 1 is no CORE item'):
    core.load(write(tmp_path / 'mine.jsonl.gz', []))
  for broken in (tmp_path / 'none.jsonl', tmp_path / 'bad.jsonl.gz'):
    (tmp_path / 'bad.jsonl.gz').write_bytes(b'no gzip')
    with pytest.raises(InputError, match='cannot be read'):
      core.load(broken)


@pytest.mark.skipif(not REAL.exists(), reason='the sample of public benchmarks is not here')
def test_real_files_match_the_published_settings():
  published = json.loads((REAL / 'core_tasks.json').read_text())['tasks']
  assert len(published) == len(core.TASKS) == 22
  for task in published:
    file, shots, delimiter, baseline = core.TASKS[task['label']]
    assert (f'{file}.jsonl', shots) == (task['file'], task['num_fewshot'])
    assert delimiter == task['continuation_delimiter']
    assert baseline == pytest.approx(task['random_baseline_percent'] / 100)
  for task in core.load(REAL / 'boolq.jsonl.gz') + core.load(REAL / 'winogrande.jsonl.gz'):
    asked = core.ask(task, 3, Characters(), 100_000)
    assert len(asked.requests) == 2 and asked.requests[0][1] != [] and asked.requests[0][0][0] == 0
