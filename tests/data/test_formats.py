"""Tests of the converters: a golden row of each published format, and rows that break them."""

import gzip
import json
import pathlib

import pytest

from nanollm_jax import InputError
from nanollm_jax.data import formats

GOLDEN = {row['name']: row for row in json.loads(
    pathlib.Path(__file__).with_name('formats.json').read_text(encoding='utf-8'))}
SHARED = pathlib.Path(__file__).parents[3] / 'shared/data'
RANKED = [name for name, row in GOLDEN.items() if 'rankings' in row]


def _messages(turns):
  return [{'role': role, 'content': content} for role, content in turns]


def _lines(path, rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return path


def _flat(node):
  """The messages of a tree as rows of their own, each without its replies."""
  yield {key: value for key, value in node.items() if key != 'replies'}
  for reply in node['replies']:
    yield from _flat(reply)


@pytest.mark.parametrize('name', GOLDEN)
def test_golden_conversations(tmp_path, name):
  golden = GOLDEN[name]
  path = _lines(tmp_path / 'a.jsonl', [golden['row']])
  for threads, want in (('best', golden['conversations']),
                        ('all', golden.get('all', golden['conversations']))):
    assert list(formats.conversations(path, threads)) == [_messages(turns) for turns in want]


@pytest.mark.parametrize('name', RANKED)
def test_golden_rankings(tmp_path, name):
  path = _lines(tmp_path / 'a.jsonl', [GOLDEN[name]['row']])
  assert list(formats.rankings(path)) == [
      formats.Ranking(_messages(turns), completions)
      for turns, completions in GOLDEN[name]['rankings']]


def test_flat_oasst1_messages_are_joined_wherever_they_stand(tmp_path):
  golden = GOLDEN['oasst1 tree']
  rows = list(_flat(golden['row']['prompt']))
  rows.insert(3, GOLDEN['alpaca']['row'])
  path = _lines(tmp_path / 'a.jsonl', rows[::-1])
  alpaca = _messages(GOLDEN['alpaca']['conversations'][0])
  assert list(formats.conversations(path, 'all')) == [alpaca] + [
      _messages(turns) for turns in golden['all']]
  assert len(list(formats.rankings(_lines(path, rows[:3] + rows[4:])))) == 1
  with pytest.raises(InputError, match="line 1: it answers 'a', which is not in the file"):
    list(formats.conversations(_lines(path, rows[1:3])))


def test_rankings_are_found_at_every_prompt_of_a_tree(tmp_path):
  def node(role, text, rank, *replies):
    return {'role': role, 'text': text, 'rank': rank, 'replies': list(replies)}
  tree = node('prompter', 'A', None, node('assistant', 'B1', 1), node(
      'assistant', 'B0', 0, node('prompter', 'C', 0, *(
          node('assistant', f'D{rank}', rank) for rank in (2, 0, 1)))))
  assert list(formats.rankings(_lines(tmp_path / 'a.jsonl', [tree]))) == [
      formats.Ranking(_messages([('user', 'A')]), ['B0', 'B1']),
      formats.Ranking(_messages([('user', 'A'), ('assistant', 'B0'), ('user', 'C')]),
                      ['D0', 'D1', 'D2'])]


@pytest.mark.parametrize('ending', ['.json', '.jsonl', '.jsonl.gz'])
def test_every_ending_is_read(tmp_path, ending):
  rows = [row['row'] for row in GOLDEN.values()]
  text = json.dumps(rows, indent=1) if ending == '.json' else '\n\n'.join(map(json.dumps, rows))
  path = tmp_path / f'a{ending}'
  path.write_bytes(gzip.compress(text.encode()) if ending.endswith('.gz') else text.encode())
  assert list(formats.conversations(path)) == [
      _messages(turns) for row in GOLDEN.values() for turns in row['conversations']]


BAD = [
    ('{"messages": ', 'it is not JSON'), (b'\xff\xfe\x00', 'it is not JSON'),
    ('5', r'no known format \(its fields: none'), ('{"a": 1, "b": 2}', 'its fields: a, b'),
    ('{"messages": [{"role": "user", "content": "a"}]}', 'ends with no turn of the assistant'),
    ('{"messages": [{"role": "assistant", "content": "a"}]}', "message 1 has the role 'assistant'"),
    ('{"messages": []}', 'at least one message'),
    ('{"data": ["only a question"]}', 'at least one message'), ('{"data": 5}', 'not of the shape'),
    ('{"data": ["a", 5]}', r'message 2 \(assistant\) has no content'),
    ('{"conversations": [{"from": "bing", "value": "a"}]}', "not of the shape .*'bing'"),
    ('{"conversations": [{"value": "a"}]}', "not of the shape .*'from'"),
    ('{"instruction": "a", "output": null}', 'has no content'),
    ('{"chosen": "no markers", "rejected": ""}', 'does not go from'),
    ('{"chosen": "\\n\\nHuman: a\\n\\nHuman: b\\n\\nAssistant: c"}', 'message 2 has the role'),
    ('{"question": "a", "answer": 5}', 'not of the shape'),
    ('{"role": "prompter", "text": "a", "replies": []}', 'no answer that was left standing'),
    ('{"role": "moderator", "text": "a", "replies": []}', 'no answer'),
    ('[' * 10**5, 'it is not JSON'),
]


@pytest.mark.parametrize('line, reason', BAD, ids=range(len(BAD)))
def test_a_bad_line_is_rejected_with_its_number_and_the_next_is_read(tmp_path, line, reason):
  path = tmp_path / 'a.jsonl'
  good = json.dumps(GOLDEN['alpaca']['row']).encode()
  path.write_bytes(good + b'\n\n' + (line if isinstance(line, bytes) else line.encode()) + b'\n'
                   + good)
  with pytest.raises(InputError, match=rf'a\.jsonl line 3: .*{reason}.*Mend or remove'):
    list(formats.conversations(path))
  rejected = []
  found = list(formats.conversations(path, reject=lambda *args: rejected.append(args)))
  assert len(found) == 2 and [args[:2] for args in rejected] == [(path, 3)]
  json.dumps(rejected[0][3])


@pytest.mark.parametrize('row, reason', [
    (GOLDEN['alpaca']['row'], 'holds no ranking'),
    ({'chosen': '\n\nHuman: a\n\nAssistant: b', 'rejected': '\n\nHuman: a\n\nAssistant: b'},
     'do not differ in just the last'),
    ({'chosen': '\n\nHuman: a\n\nAssistant: b', 'rejected': '\n\nHuman: c\n\nAssistant: d'},
     'do not differ in just the last'),
    ({'prompt': 'a', 'completions': ['b', 'c']}, 'a prompt of messages and two or more'),
    ({'prompt': 5, 'chosen': 'b', 'rejected': 'c'}, 'must be a list of at least one message'),
    ({'prompt': 'a', 'chosen': 5, 'rejected': 'c'}, 'must be a list of at least one message'),
    ({'prompt': [], 'completions': ['b']}, 'a prompt of messages and two or more'),
    ({'prompt': _messages([('user', 'a')]), 'completions': ['b', 5]}, 'has no content')])
def test_bad_rankings_are_rejected(tmp_path, row, reason):
  with pytest.raises(InputError, match=reason):
    list(formats.rankings(_lines(tmp_path / 'a.jsonl', [row])))


ASKED, SAID = _messages([('user', 'a')]), lambda text: _messages([('assistant', text)])


@pytest.mark.parametrize('row', [
    {'prompt': 'a', 'chosen': 'b', 'rejected': 'c'},
    {'prompt': ASKED, 'chosen': 'b', 'rejected': 'c'},
    {'prompt': ASKED, 'chosen': SAID('b'), 'rejected': SAID('c')},
    {'prompt': 'a', 'chosen': ASKED + SAID('b'), 'rejected': ASKED + SAID('c')},
    {'chosen': ASKED + SAID('b'), 'rejected': ASKED + SAID('c')},
    {'chosen': '\n\nHuman: a\n\nAssistant: b', 'rejected': '\n\nHuman: a\n\nAssistant: c'}])
def test_pairs_come_in_several_shapes(tmp_path, row):
  found, = formats.rankings(_lines(tmp_path / 'a.jsonl', [row]))
  assert found.prompt == ASKED and found.completions == ['b', 'c']


def test_files_that_cannot_be_read_are_named(tmp_path):
  (tmp_path / 'a.json').write_text('{}\n{}\n')
  (tmp_path / 'a.jsonl.gz').write_bytes(gzip.compress(b'{}\n' * 9999)[:-9])
  for name, sentence in (('a.json', 'a.json is not JSON .* call it .jsonl'),
                         ('a.jsonl.gz', 'a.jsonl.gz is cut short or damaged')):
    with pytest.raises(InputError, match=sentence):
      list(formats.conversations(tmp_path / name, reject=lambda *args: None))


@pytest.mark.skipif(not SHARED.exists(), reason='no data beside the repository')
def test_all_of_gsm8k_is_converted():
  path = SHARED / 'gsm8k/train.jsonl.gz'
  with gzip.open(path, 'rt', encoding='utf-8') as file:
    rows = [json.loads(line) for line in file]
  found = list(formats.conversations(path))
  assert len(found) == len(rows) == 7473
  for row, (_, answer) in zip(rows, found):
    parts = [answer['content']] if isinstance(answer['content'], str) else answer['content']
    calls = [part['text'] for part in parts if part != answer['content'] and 'name' in part]
    assert len(calls) == row['answer'].count('<<')
