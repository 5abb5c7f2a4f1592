"""Tests of reading documents: every format, the splits, and every kind of bad input."""

import gzip
import json
import pathlib

import pyarrow
import pyarrow.parquet
import pytest

from nanollm_jax import InputError
from nanollm_jax.data import documents

TEXTS = ['one', 'zwei\nlines', 'trois 👍🏽 "quoted"', 'four  ']
SHARED = pathlib.Path(__file__).parents[3] / 'shared/data'


def _write(path, rows, ending):
  lines = ''.join(json.dumps(row) + '\n' for row in rows).encode()
  if ending == '.parquet':
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
  elif ending == '.jsonl.zst':
    with pyarrow.output_stream(str(path), compression='zstd') as file:
      file.write(lines)
  else:
    path.write_bytes(gzip.compress(lines) if ending == '.jsonl.gz' else lines)
  return str(path)


ENDINGS = ['.jsonl', '.jsonl.gz', '.jsonl.zst', '.parquet']


@pytest.mark.parametrize('ending', ENDINGS)
def test_every_format_gives_the_texts_in_order(tmp_path, ending):
  path = _write(tmp_path / f'a{ending}', [{'id': 1, 'body': text} for text in TEXTS], ending)
  assert list(documents.read([path], text_field='body')) == [('train', text) for text in TEXTS]
  with pytest.raises(InputError, match=r"'text'.*id, body.*another text_field"):
    list(documents.read([path]))


@pytest.mark.parametrize('ending', ['.jsonl.gz', '.jsonl.zst'])
def test_files_of_several_members_are_read_to_the_end(tmp_path, ending):
  path = pathlib.Path(_write(tmp_path / f'a{ending}', [{'text': 'a'}], ending))
  path.write_bytes(path.read_bytes() * 3)
  assert len(list(documents.read([str(path)]))) == 3


@pytest.mark.parametrize('ending', ENDINGS[1:])
def test_cut_and_damaged_files_are_refused(tmp_path, ending):
  whole = pathlib.Path(_write(tmp_path / f'a{ending}', [{'text': t * 99} for t in TEXTS], ending))
  content = whole.read_bytes()
  for damaged in (content[:-5], content[:len(content) // 2], b'garbage' * 9):
    whole.write_bytes(damaged)
    with pytest.raises(InputError, match=rf'a{ending} is .*(damaged|not a sound).*again'):
      list(documents.read([str(whole)]))


def test_globs_are_sorted_and_no_file_comes_twice(tmp_path):
  for name in ('b', 'a'):
    _write(tmp_path / f'{name}.jsonl', [{'text': name}], '.jsonl')
  found = documents.read([str(tmp_path / '*.jsonl'), str(tmp_path / 'a.jsonl')])
  assert [text for _, text in found] == ['a', 'b']


def test_hash_split_is_stable_and_of_the_right_size(tmp_path):
  path = _write(tmp_path / 'a.jsonl', [{'text': f'document {k}'} for k in range(2000)], '.jsonl')
  once = list(documents.read([path], 0.2))
  held = {text for split, text in once if split == 'validation'}
  assert 320 < len(held) < 480
  rows = [{'text': text} for _, text in reversed(once)]
  other = documents.read([_write(tmp_path / 'b.jsonl', rows, '.jsonl')], 0.2)
  assert {text for split, text in other if split == 'validation'} == held


def test_text_is_cut_at_blank_lines_and_joins_to_the_file(tmp_path):
  text = ''.join(f'Paragraph {k} é.\r\n' * (k % 40) + '\r\n' for k in range(200))
  (tmp_path / 'a.txt').write_bytes(text.encode())
  found = list(documents.read([str(tmp_path / 'a.txt')], 0.1))
  assert ''.join(part for _, part in found) == text
  assert all(part.endswith('\r\n\r\n') and len(part.encode()) > 2000
             for split, part in found[:-1] if split == 'train' and (split, part) != found[-1]
             if found[found.index((split, part)) + 1][0] == 'train')
  assert len(found) > 20 and [split for split, _ in found] == sorted(split for split, _ in found)
  held = sum(len(part.encode()) for split, part in found if split == 'validation')
  assert 0 <= len(text.encode()) - int(len(text.encode()) * 0.9) - held <= 3


def test_text_without_blank_lines_is_cut_at_line_ends(tmp_path):
  (tmp_path / 'a.txt').write_text('x' * 99 + '\n' * 1 + ('y' * 99 + '\n') * 2999)
  found = [text for _, text in documents.read([str(tmp_path / 'a.txt')])]
  assert len(found) == 3 and all(text.endswith('\n') for text in found)


def test_text_is_cut_at_end_marks_only_if_there_are_any(tmp_path):
  story = 'A line.\n\n' * 500
  (tmp_path / 'a.txt').write_text(f'{story}<|endoftext|>\nB\n<|endoftext|>\n\n<|endoftext|>\n')
  assert [text for _, text in documents.read([str(tmp_path / 'a.txt')])] == [story, 'B\n']


def test_validation_border_does_not_split_a_character(tmp_path):
  for length in range(40, 60):
    (tmp_path / 'a.txt').write_text('日' * length)
    parts = [text for _, text in documents.read([str(tmp_path / 'a.txt')], 0.37)]
    assert len(parts) == 2 and ''.join(parts) == '日' * length


@pytest.mark.parametrize('mark', ['<|endoftext|>\n', ' <|endoftext|> \r\n'])
def test_validation_border_does_not_split_an_end_mark(tmp_path, mark):
  first, second = 'é line.\n', 'Another line é.\n'
  size = len(f'{first}{mark}{second}'.encode())
  (tmp_path / 'a.txt').write_bytes(f'{first}{mark}{second}'.encode())
  for border in range(1, size):
    found = list(documents.read([str(tmp_path / 'a.txt')], 1 - (border + 0.5) / size))
    texts = ''.join(text for _, text in found)  # less pieces of white space
    assert ''.join(texts.split()) == ''.join((first + second).split()), border
    if len(first.encode()) <= border <= len((first + mark).encode()):
      assert found == [('train', first), ('validation', second)], border


def test_empty_and_binary_documents_are_counted_and_skipped(tmp_path, capsys):
  path = tmp_path / 'a.jsonl'
  path.write_bytes(b'{"text": "good"}\n{"text": ""}\n{"text": null}\n\n{"text": "a\\u0000b"}\n'
                   b'{"text": "\xff\xfe"}\n{"text": "\\ud800"}\n')
  assert list(documents.read([str(path)])) == [('train', 'good')]
  assert capsys.readouterr().out == 'documents: 2 empty and 3 binary of 6 skipped.\n'


@pytest.mark.parametrize('name, content, sentence', [
    ('a.txt', b'', 'a.txt is empty'),
    ('a.txt', b'\x00\x01\x02' * 1000, 'a.txt holds no text'),
    ('a.txt', b' \n \n', 'a.txt holds no text'),
    ('a.txt', b'\xff\xfe\xfd', 'a.txt holds no text'),
    ('a.jsonl', b'{"text": "a"}\n{"text": \n', 'a.jsonl line 2 is not JSON'),
    ('a.jsonl', b'{"text": "a"}\n["text"]\n', 'a.jsonl line 2 has no text in a field'),
    ('a.jsonl', b'{"text": 5}\n', 'line 1 has no text in a field'),
    ('a.jsonl', b'{"text": ' + b'[' * 99999 + b'\n', 'line 1 is not JSON'),
    ('a.csv', b'text\n', 'a.csv is not a file this reads'),
])
def test_bad_files_are_named(tmp_path, name, content, sentence):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(InputError, match=sentence):
    list(documents.read([str(tmp_path / name)]))


def test_columns_of_parquet_that_are_no_text_are_named(tmp_path):
  path = tmp_path / 'a.parquet'
  for values, kind in ([1, 2], 'int64'), ([['a']], 'list'):
    pyarrow.parquet.write_table(pyarrow.table({'text': values}), path)
    with pytest.raises(InputError, match=f"a.parquet holds no text in its column 'text', but {kind}"):
      list(documents.read([str(path)]))
  for kind in (pyarrow.large_string(), pyarrow.dictionary(pyarrow.int32(), pyarrow.string())):
    pyarrow.parquet.write_table(pyarrow.table({'text': pyarrow.array(['a', None]).cast(kind)}), path)
    assert list(documents.read([str(path)])) == [('train', 'a')]


def test_bad_arguments_are_refused_before_the_first_document(tmp_path):
  for patterns, fraction, sentence in [([], 0, 'there are no documents'),
                                       (['none/*.jsonl'], 0, r'none/\*.jsonl matches no file'),
                                       ([str(tmp_path)], 0, 'is not a file this reads'),
                                       (['x.txt'], 1.0, 'less than 1')]:
    with pytest.raises(InputError, match=sentence):
      documents.read(patterns, fraction)


@pytest.mark.skipif(not SHARED.exists(), reason='no data beside the repository')
def test_tinyshakespeare_splits_as_nanogpt_does():
  path = SHARED / 'tinyshakespeare/input.txt'
  found = list(documents.read([str(path)], 0.1))
  text = path.read_text()
  for split, part in (('train', text[:1003854]), ('validation', text[1003854:])):
    assert ''.join(piece for name, piece in found if name == split) == part
