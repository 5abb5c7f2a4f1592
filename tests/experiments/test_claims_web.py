"""The claims about filtering and tokenizers, and the benchmark: their own logic; nothing is trained."""

import json
import types

import pytest

from experiments.bench import web as bench
from experiments.lecture import claim, filtering, tokenizers
from nanollm_jax import InputError
from nanollm_jax.world import WorldConfig, documents, questions

NAMES = ('raw', 'filtered', 'filtered and deduplicated')


@pytest.mark.parametrize('bits, holds', [
    ((3.0, 2.5, 2.4), True), ((3.0, 2.5, 2.502), True), ((2.4, 2.5, 3.0), False),
    ((3.0, 3.0, 3.0), False), ((3.0, 2.4, 2.6), False), ((3.0, 2.999, 2.998), False)])
def test_filtering_holds_where_filtered_pages_teach_more(monkeypatch, tmp_path, bits, holds):
  (tmp_path / 'validation.jsonl').write_text('{"text": "clean"}\n')
  (tmp_path / 'questions.jsonl').write_text(
      ''.join(json.dumps(row) + '\n' for row in questions(WorldConfig(people=30))))
  read = lambda config, name, texts, seed: types.SimpleNamespace(
      model=None, tokenizer=None, params=dict(zip(NAMES, bits))[name] + 0.0001 * seed)
  monkeypatch.setattr(filtering, 'corpora', lambda config: dict.fromkeys(NAMES, ['a page']))
  monkeypatch.setattr(filtering, 'read', read)
  monkeypatch.setattr(filtering, 'accuracy', lambda *_: 0.3)
  monkeypatch.setattr(filtering.choice, 'Scorer', lambda *_: None)
  monkeypatch.setattr(filtering.choice, 'bits_per_byte', lambda _, params, *__: {
      'bits_per_byte': types.SimpleNamespace(value=params)})
  monkeypatch.setattr(claim.report, 'picture', lambda *_, **__: None)
  filtering.main(filtering.Config(workdir=str(tmp_path), world=str(tmp_path)))
  assert json.loads((tmp_path / 'lecture' / 'filtering.json').read_text())['holds'] == holds


def test_sentences_to_end_have_one_right_ending():
  rows = list(questions(WorldConfig(people=60)))
  asked = filtering.endings(rows, 50)
  told = {row['snippet'] for row in rows if row['stratum'] in filtering.STRATA}
  for before, (right, *wrong) in asked:
    assert any(snippet.startswith(f'{before} {right}') or snippet.startswith(before) and right in snippet
               for snippet in told)
    assert len({right, *wrong}) == 4
  with pytest.raises(InputError, match='tells of nobody'):
    filtering.endings([row for row in rows if row['stratum'] == 'rare'], 5)


def test_the_likeliest_ending_counts():
  tokenizer = types.SimpleNamespace(encode=lambda text: list(text.encode()), end=0)
  score = lambda params, requests: [types.SimpleNamespace(mean=-len(after)) for _, after in requests]
  opened = types.SimpleNamespace(tokenizer=tokenizer, params=None)
  scorer = types.SimpleNamespace(score=score)
  assert filtering.accuracy(scorer, opened, [('a', ['b', 'cc', 'dd', 'ee']), ('a', ['bb', 'c', 'd', 'e'])]) == 0.5


def test_tokenizers_on_a_small_corpus(monkeypatch, tmp_path):
  monkeypatch.setattr(claim.report, 'picture', lambda *_, **__: None)
  told = [one.text for one in documents(WorldConfig(people=20))][:300]
  rows = [{'text': f'{text} ginger winter banana {k * 7919 % 1_000_000:06d}'} for k, text in enumerate(told)]
  (tmp_path / 'a.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  config = tokenizers.Config(workdir=str(tmp_path), documents=(str(tmp_path / 'a.jsonl'),),
                             vocabularies=('320', '1024'), published=('no_such',))
  tokenizers.main(config)
  made = json.loads((tmp_path / 'lecture' / 'tokenizers.json').read_text())
  small, large, threes = made['rows']
  assert small['bytes per token'] < large['bytes per token']
  assert small['hidden words'] < large['hidden words'] and made['holds']
  assert (small['cuts of numbers'], large['cuts of numbers']) == (1, 1) and threes['cuts of numbers'] > 1


def test_agreement_counts_pages_of_the_same_text(tmp_path):
  prose = '\n'.join([
      'The old harbour of the town was built by sailors who came here from the north in winter.',
      'Nobody knows how many ships have left it, but the museum keeps a list of their names.',
      'In spring the market moves to the square and farmers sell cheese, bread and flowers.',
      'My grandmother used to paint the boats in the morning and read to us in the evening.',
      'There is a small library behind the church, with a garden that few visitors ever see.',
      'If you have time, walk up to the castle and look at the river before it gets dark.'])
  rows = [dict(id=1, url='u', step='kept', reason=None, text=prose),
          dict(id=2, url='u', step='lang', reason='de', text='Der Garten ist heute sehr schön. ' * 9),
          dict(id=3, url='wrong', step='c4', reason='x', text=prose),
          dict(id=4, url='u', step='url', reason='x', text=prose), dict(id=5, url='u', step='extract', reason='', text='')]
  (tmp_path / 'a.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  (tmp_path / 'fates').write_text(json.dumps(dict(id=1, step='dedup')) + '\n')
  found = bench.agreement([str(tmp_path / 'a.jsonl')], str(tmp_path / 'fates'))
  assert (found['pages'], found['with_fates']) == (3, 1.0)
  assert found['agree'] == found['same_step'] == pytest.approx(2 / 3)
  assert [one['url'] for one in found['differences']] == ['wrong']


def test_bench_tells_of_a_python_without_datatrove(tmp_path):
  with pytest.raises(InputError, match='--bench.datatrove=.*does not run datatrove'):
    bench.datatrove(bench.BenchConfig(datatrove=str(tmp_path / 'none')), [], '')
