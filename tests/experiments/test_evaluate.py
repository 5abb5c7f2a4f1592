"""Evaluation as a user runs it: the same choices one by one and batched, and what it leaves."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from experiments import evaluate, pretrain
from experiments.bench import evaluation as bench
from nanollm_jax import InputError


@pytest.mark.slow
def test_core_and_documents_batched_and_one_by_one(tiny, corpus, tmp_path, capsys):
  run = tiny(steps=2, eval_every=0, sample_every=0)
  pretrain.main(run)
  folder = pathlib.Path(run.workdir)
  choices = ['a dog.', 'the green river.', 'blue']
  names = 'red blue green stone river house'.split()
  items = [dict(query=f'the {name} sees', choices=choices, gold=k % 3)
           for k, name in enumerate(names)]
  for name in ('copa', 'mine'):  # one of CORE's, and one in its form
    (tmp_path / f'{name}.jsonl').write_text('\n'.join(map(json.dumps, items)))
  (tmp_path / 'other.jsonl').write_text('{"prompt": "no item"}\n')
  config = evaluate.Config(init_from=run.workdir, core=(f'{tmp_path}/*.jsonl',), examples=5,
                           documents=(f'{corpus}/documents.jsonl',))
  evaluate.main(config)
  out = capsys.readouterr().out
  assert 'left out' in out and 'other.jsonl line 1 is no CORE item' in out
  numbers = json.loads((folder / 'evaluation.json').read_text())
  assert numbers['mine/accuracy']['n'] == numbers['documents/bits_per_byte']['n'] == 5
  assert 1 < numbers['documents/bits_per_byte']['value'] < 9
  assert numbers['CORE (1 of 22 tasks)/centred']['value'] == numbers['copa/centred']['value']
  batched = [json.loads(line) for line in (folder / 'evaluation.jsonl').read_text().splitlines()]
  evaluate.main(dataclasses.replace(config, one_by_one=True))
  single = [json.loads(line) for line in (folder / 'evaluation.jsonl').read_text().splitlines()]
  for one, other in zip(batched, single, strict=True):
    assert one.pop('logprobs') == pytest.approx(other.pop('logprobs'), abs=1e-3)
    assert one == other
  assert len(batched) == 10 and {row['choice'] for row in batched} != {0}


def test_bad_flags():
  with pytest.raises(InputError, match='nothing to evaluate'):
    evaluate.main(evaluate.Config())
  with pytest.raises(InputError, match='--examples=0'):
    evaluate.Config(examples=0)
  with pytest.raises(InputError, match='--samples=4 are all one at temperature 0'):
    evaluate.Config(samples=4)


def test_practice_takes_training_questions_and_evaluation_the_others(tmp_path):
  """Practice took those that evaluation holds out."""
  rows = [dict(question=f'Who is {n}?', answer='Bo', split=split)
          for n, split in enumerate(['train'] * 40 + ['test'] * 20)]
  rows += [dict(question='Who is nobody?', answer='', split='train')]
  (tmp_path / 'q.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  asked = lambda split, part: {task.example(n, part).question for task in [evaluate.task_of(
      f'knowledge:{tmp_path}/q.jsonl', split)] for n in range(task.size(part))}
  assert asked('', 'train') | asked('', 'test') == {row['question'] for row in rows[:40]}
  assert asked('', 'train') and not asked('', 'train') & asked('', 'test')
  assert asked('test', 'test') == {row['question'] for row in rows[40:60]}


def test_nothing_left_to_evaluate_is_said_and_what_is_there_stays(tmp_path, capsys):
  (tmp_path / 'bad.jsonl').write_text('{"x": 1}\n')
  with pytest.raises(InputError, match='--core=.*bad.jsonl: no file of it is a task'):
    evaluate.main(evaluate.Config(core=(f'{tmp_path}/bad.jsonl',)))
  assert 'continuation}.\n' in capsys.readouterr().out


def test_numbers_are_written_as_they_come_and_where_they_cannot_be_it_is_said(tmp_path, monkeypatch):
  found = iter([('one', {'accuracy': evaluate.Measure(0.5, 0.1, 9)}, [{'task': 'one'}])])
  monkeypatch.setattr(evaluate.choice, 'Scorer', lambda _: None)
  for name in ('of_documents', 'of_core'):
    monkeypatch.setattr(evaluate, name, lambda *_: iter(()))
  def tasks(*_):
    yield from found
    raise InputError('the second fails')
  monkeypatch.setattr(evaluate, 'of_tasks', tasks)
  monkeypatch.setattr(evaluate, 'task_of', lambda name: name)
  monkeypatch.setattr(evaluate.workdir, 'open_model', lambda *_, **__: evaluate.workdir.Opened(
      None, None, None))
  with pytest.raises(InputError, match='the second fails'):
    evaluate.main(evaluate.Config(init_from=str(tmp_path), tasks=('x',)))
  assert json.loads((tmp_path / 'evaluation.json').read_text())['one/accuracy']['value'] == 0.5
  assert len((tmp_path / 'evaluation.jsonl').read_text().splitlines()) == 1
  monkeypatch.undo()
  for words in dict(tasks=('afine:1',)), dict(tools=('pyton',), tasks=('apples',)):
    with pytest.raises(InputError):  # what was found before stays
      evaluate.main(evaluate.Config(init_from=str(tmp_path), **words))
  evaluate.write(tmp_path, {}, [])
  assert len(json.loads((tmp_path / 'evaluation.json').read_text())) == 1
  assert len((tmp_path / 'evaluation.jsonl').read_text().splitlines()) == 1
  monkeypatch.setattr(evaluate.workdir, 'open_model', lambda *_, **__: evaluate.workdir.Opened(
      None, None, None))
  with pytest.raises(InputError, match='cannot be written .*: copy the workdir'):
    evaluate.main(evaluate.Config(init_from=str(tmp_path / 'none'), tasks=('apples',)))


@pytest.mark.slow
def test_answers_batched_and_one_by_one(assistant):
  config = evaluate.Config(init_from=assistant, tasks=('affine:1', 'spelling'), examples=24, slots=8)
  found = []
  for one_by_one in (False, True):
    evaluate.main(dataclasses.replace(config, one_by_one=one_by_one))
    found.append((pathlib.Path(assistant) / 'evaluation.jsonl').read_text())
  assert found[0] == found[1] and len(found[0].splitlines()) == 48


@pytest.mark.slow
def test_the_benchmark_asks_both_ways_and_compares(assistant, monkeypatch, tmp_path, capsys):
  (tmp_path / 'mine.jsonl').write_text('\n'.join(json.dumps(dict(
      query=f'the {name} sees', choices=['a dog.', 'blue'], gold=0)) for name in ('red', 'stone')))
  config = bench.BenchConfig(tasks=('affine:1',), core=(f'{tmp_path}/mine.jsonl',), examples=12,
                             slots=8, rounds=1, out=str(tmp_path / 'out.json'))
  bench.main(bench.Config(assistant, bench=config))
  rows = json.loads((tmp_path / 'out.json').read_text())['rows']
  assert [(row['task'], row['questions'], row['same']) for row in rows] == [
      ('affine:1', 12, 12), ('mine', 2, 2)]
  for row in rows:
    seconds = row['round_seconds']
    assert row['times'] == pytest.approx(seconds['one'][0] / seconds['together'][0])
  monkeypatch.setattr(bench.evaluate.OneByOne, 'score', lambda self, params, requests: [
      bench.choice.Score(-np.arange(1.0, 3), False)] * len(requests))
  bench.main(bench.Config(assistant, bench=dataclasses.replace(config, tasks=())))
  (row,) = json.loads((tmp_path / 'out.json').read_text())['rows']
  assert row['same'] < 2  # another choice would be seen
  with pytest.raises(InputError, match='nothing to ask'):
    bench.main(bench.Config(assistant, bench=bench.BenchConfig(tasks=())))
