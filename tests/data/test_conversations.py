"""Tests of the mixture of conversations: splits, weights, cuts, counts, and what is set aside."""

import json

import numpy as np
import pytest

from nanollm_jax import InputError
from nanollm_jax.data import conversations, pipeline
from nanollm_jax.text import chat, tokenizer as tokenizer_lib

CHAT = chat.Chat(tokenizer_lib.Tokenizer(
    'bytes', r'[\s\S]', {bytes([byte]): byte for byte in range(256)},
    tokenizer_lib.special_ids(256)))
HEADERS = sum(len(role) + 3 for role in ('user', 'assistant'))  # with the ends of the turns


def _rows(count, answer='because', question='why'):
  return [{'messages': [{'role': 'user', 'content': f'{question} {k:04d}'},
                        {'role': 'assistant', 'content': answer}]} for k in range(count)]


def _file(path, rows):
  path.write_text(''.join((row if isinstance(row, str) else json.dumps(row)) + '\n'
                          for row in rows))
  return str(path)


def _prepare(tmp_path, *sources, context=1000, validation_fraction=0.0, **options):
  config = conversations.ChatDataConfig(sources, validation_fraction, **options)
  return conversations.prepare(config, CHAT, context, tmp_path)


def _counts_add_up(found):
  learned = sum(int(found.mask(k).sum()) for k in range(len(found)))
  return (sum(found.counts.get(role, 0) for role in chat.ROLES) == found.tokens
          and found.counts['supervised'] == learned / found.tokens)


def _texts(found):
  return [CHAT.tokenizer.decode(found[k]) for k in range(len(found))]


def test_ids_masks_and_counts_are_those_of_the_renderer(tmp_path, capsys):
  rows = _rows(3) + [{'messages': [
      {'role': 'system', 'content': 'Be brief.'}, {'role': 'user', 'content': '1+1?'},
      {'role': 'assistant', 'content': [
          {'type': 'tool_call', 'name': 'python', 'text': '1+1'},
          {'type': 'tool_output', 'text': '2'}, {'type': 'text', 'text': '2'}]}]}]
  found = _prepare(tmp_path, _file(tmp_path / 'a.jsonl', rows))['train']
  rendered = [CHAT.render(row['messages']) for row in rows]
  assert len(found) == 4 and found.tokens == found.lengths.sum() and found.lengths.dtype == np.int64
  for k, (ids, mask, _) in enumerate(rendered):
    assert found[k].tolist() == ids and found.mask(k).tolist() == mask
    assert found.lengths[k] == len(ids) and found.mask(k).dtype == np.uint8
  roles = [role for row in rendered for role in row.roles]
  learned = sum(sum(row.mask) for row in rendered)
  assert found.counts == {
      'kept': 4, 'truncated': 0, 'dropped': 0, 'rejected': 0, 'supervised': learned / len(roles),
      **{role: roles.count(role) for role in chat.ROLES}}
  assert roles.count('tool') == 3
  assert capsys.readouterr().out == (
      'train: 4 conversations (4 an epoch; 0 truncated, 0 dropped), 152 tokens (system 12%, user '
      '37%, assistant 49%, tool 2%), 20.4% learned\n')
  assert not (tmp_path / 'rejected.jsonl').exists()
  for index in (-1, 4):
    with pytest.raises(IndexError):
      found.mask(index)


def test_batches_hold_every_conversation_once_an_epoch_and_whole(tmp_path):
  rows = [row for k in range(30) for row in _rows(1, 'x' * k, f'q{k}')]
  found = _prepare(tmp_path, _file(tmp_path / 'a.jsonl', rows), context=64)['train']
  assert found.counts['truncated'] == 0
  seen = []
  for batch in pipeline.batches(found, batch_size=2, length=64, epochs=1):
    for tokens, segments in zip(batch['tokens'], batch['segment_ids']):
      seen += [CHAT.tokenizer.decode(tokens[segments == k]) for k in range(1, segments.max() + 1)]
  assert sorted(seen) == sorted(_texts(found)) and len(seen) == 30


def test_weights_repeat_or_thin_out_and_every_part_is_fixed(tmp_path):
  half = _file(tmp_path / 'half.jsonl', _rows(400))
  more = _file(tmp_path / 'more.jsonl', _rows(100, 'a longer answer', 'how'))
  found = _prepare(tmp_path, f'{half}*0.5', f'{more}*2.25')['train']
  texts = _texts(found)
  counted = {text: texts.count(text) for text in texts}
  halves = {text: n for text, n in counted.items() if 'why' in text}
  mores = {text: n for text, n in counted.items() if 'how' in text}
  assert set(halves.values()) == {1} and 160 < len(halves) < 240
  assert set(mores.values()) == {2, 3} and len(mores) == 100 and 205 < sum(mores.values()) < 245
  assert found.counts['kept'] == len(counted) and len(found) == len(texts)
  assert _counts_add_up(found)
  assert _texts(_prepare(tmp_path, f'{half}*0.5', f'{more}*2.25')['train']) == texts
  assert set(_texts(_prepare(tmp_path, f'{half}*0.75')['train'])) > set(halves)


def test_validation_goes_by_text_and_no_weight_above_one_applies(tmp_path):
  rows = _rows(300)
  path = _file(tmp_path / 'a.jsonl', rows)
  found = _prepare(tmp_path, f'{path}*3', validation_fraction=0.2)
  train, held_out = _texts(found['train']), _texts(found['validation'])
  assert 30 < len(held_out) < 90 and len(set(held_out)) == len(held_out)
  assert len(train) == 3 * (300 - len(held_out)) and not set(train) & set(held_out)
  again = _prepare(tmp_path, _file(tmp_path / 'b.jsonl', rows[:7:-1]), validation_fraction=0.2)
  assert set(_texts(again['validation'])) <= set(held_out)
  assert 'validation' not in _prepare(tmp_path, path)


def test_long_conversations_are_cut_or_dropped_and_nothing_to_learn_is_dropped(tmp_path):
  size = HEADERS + 8 + len('why 0000')
  path = _file(tmp_path / 'a.jsonl', _rows(2, 'a' * 8) + _rows(1, 'a' * 9)
               + _rows(1, 'a', question='q' * size))
  found = _prepare(tmp_path, path, context=size)['train']
  assert found.lengths.tolist() == [size] * 3
  assert found[2][-1] == ord('a') and found[1][-1] == CHAT.end_of_turn
  assert found.mask(2).sum() == found.mask(1).sum() == 9 and _counts_add_up(found)
  assert [found.counts[key] for key in ('kept', 'truncated', 'dropped')] == [3, 1, 1]
  found = _prepare(tmp_path, path, context=size, long='drop')['train']
  assert [found.counts[key] for key in ('kept', 'truncated', 'dropped')] == [2, 0, 2]
  for k in range(HEADERS + len('why 0000')):  # no context gives a row without a target
    try:
      found = _prepare(tmp_path, path, context=k)['train']
    except InputError as error:
      assert 'no conversation is left' in str(error)
    else:
      assert all(found.mask(k).any() for k in range(len(found)))


def test_only_the_last_answer_is_learned_if_asked(tmp_path):
  turns = [('user', 'a'), ('assistant', 'first'), ('user', 'b'), ('assistant', 'last')]
  path = _file(tmp_path / 'a.jsonl', [
      {'messages': [{'role': role, 'content': content} for role, content in turns]}])
  for train_on, text in (('all_assistant', 'first<|im_end|>last<|im_end|>'),
                         ('last_assistant', 'last<|im_end|>')):
    found = _prepare(tmp_path, path, train_on=train_on)['train']
    assert CHAT.tokenizer.decode(found[0][found.mask(0) == 1]) == text


def test_bad_lines_are_reported_and_set_aside_and_the_run_goes_on(tmp_path, capsys):
  path = _file(tmp_path / 'a.jsonl', _rows(2) + ['{"messages"'] + [{'x': 1}] * 4)
  found = _prepare(tmp_path, path)['train']
  assert len(found) == 2 and found.counts['rejected'] == 5
  out = capsys.readouterr().out
  assert f'{path} line 3: it is not JSON' in out and f'{path} line 5: it is in no known' in out
  assert 'line 6' not in out and f'5 lines could not be used and are set aside: {tmp_path}' in out
  rows = [json.loads(line) for line in (tmp_path / 'rejected.jsonl').read_text().splitlines()]
  assert [row['line'] for row in rows] == [3, 4, 5, 6, 7]
  assert rows[0]['row'] == '{"messages"\n' and rows[4]['row'] == {'x': 1}
  assert rows[1]['file'] == path and 'no known format' in rows[1]['reason']
  with pytest.raises(InputError, match=r'a\.jsonl line 3: it is not JSON'):
    _prepare(tmp_path, path, strict=True)
  _prepare(tmp_path, _file(tmp_path / 'a.jsonl', _rows(2)))
  assert not (tmp_path / 'rejected.jsonl').exists()


def test_a_glob_and_oasst1_threads_are_read(tmp_path):
  def node(role, text, *replies):
    return {'role': role, 'text': text, 'replies': list(replies)}
  tree = node('prompter', 'a', node('assistant', 'b'), node('assistant', 'c'))
  _file(tmp_path / 'b.jsonl', [tree])
  _file(tmp_path / 'a.jsonl', _rows(1))
  found = _prepare(tmp_path, str(tmp_path / '*.jsonl') + '*2', threads='all')['train']
  assert [text[-len('x<|im_end|>'):][0] for text in _texts(found)] == list('eebbcc')
  assert len(_prepare(tmp_path, str(tmp_path / 'b.jsonl'))['train']) == 1


@pytest.mark.parametrize('make, sentence', [
    (lambda tmp: _prepare(tmp), 'there are no conversations: give --data.conversations'),
    (lambda tmp: _prepare(tmp, f'{tmp}/none*2'), 'none matches no file'),
    (lambda tmp: _prepare(tmp, _file(tmp / 'a.jsonl', [])), 'a.jsonl is empty: leave'),
    (lambda tmp: _prepare(tmp, str(tmp)), 'cannot be read .Is a directory.: give a file, or'),
    (lambda tmp: _prepare(tmp, _file(tmp / 'a.jsonl', [{'x': 1}])), 'see in rejected.jsonl'),
    (lambda tmp: _prepare(tmp, _file(tmp / 'a.jsonl', _rows(1)), context=8), 'than 8 tokens'),
    (lambda tmp: _prepare(tmp, 'a.jsonl*0'), r'a.jsonl\*0 has a weight of 0'),
    (lambda tmp: _prepare(tmp, 'a', validation_fraction=1.0), 'validation_fraction=1.0 must be'),
])
def test_bad_mixtures_are_refused(tmp_path, make, sentence):
  with pytest.raises(InputError, match=sentence):
    make(tmp_path)
