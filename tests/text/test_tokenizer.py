"""Tests of the tokenizer: round trips on nasty strings, specials, files."""

import json
import pathlib
import random
import unicodedata

import numpy as np
import pytest

from nanollm_jax import InputError
from nanollm_jax.text import bpe, tokenizer as tokenizer_lib

TEXT = pathlib.Path(__file__).read_text(encoding='utf-8') + 'das schöne Café 日本語 ' * 99
NASTY = ['', '\0', '\0a\0', 'a\r\nb\r\n', '\n\n\n', '   \t ', '日本語 schön',
         '👩‍👩‍👧‍👦👍🏽', 'ﷺ', '\ufeffbom', '\u2028',
         unicodedata.normalize('NFD', 'naïve café Å'), unicodedata.normalize('NFC', 'naïve café Å'),
         'a' * 5000, ' ' * 5000, '<|endoftext|', '<|im_start|>user', '\U0010ffff', "it's IT'S"]


@pytest.fixture(scope='module')
def tokenizer():
  return bpe.train([TEXT], bpe.Config(vocabulary=320))


@pytest.mark.parametrize('text', NASTY)
def test_decode_inverts_encode_and_byte_lengths_add_up(tokenizer, text):
  ids = tokenizer.encode(text)
  assert tokenizer.decode(ids) == text
  assert tokenizer.decode_bytes(ids) == text.encode()
  assert tokenizer.byte_lengths[np.array(ids, int)].sum() == len(text.encode())
  assert b''.join(tokenizer.token_bytes(token) for token in ids) == text.encode()


def test_random_text_round_trips_and_random_bytes_decode(tokenizer):
  rng = random.Random(0)
  for _ in range(200):
    text = ''.join(chr(rng.choice([rng.randrange(128), rng.randrange(0xD800), 0x1F600]))
                   for _ in range(rng.randrange(50)))
    assert tokenizer.decode(tokenizer.encode(text)) == text
    ids = [rng.randrange(tokenizer.size) for _ in range(20)]
    assert tokenizer.decode_bytes(ids).decode(errors='replace') == tokenizer.decode(ids)
  assert tokenizer.decode([tokenizer.ranks[b'\xff']]) == '\ufffd'


def test_lone_surrogates_are_replaced(tokenizer):
  assert tokenizer.decode(tokenizer.encode('a\ud800b')) == 'a\ufffdb'


def test_a_million_spaces_do_not_kill_the_regex_engine(tokenizer):
  assert tokenizer.decode(tokenizer.encode(' ' * 10**6 + 'a')) == ' ' * 10**6 + 'a'


def test_specials_in_text_give_no_special_ids(tokenizer):
  text = ' '.join(tokenizer.special)
  assert len(tokenizer.special) >= len(tokenizer_lib.SPECIALS) == 21
  assert not set(tokenizer.encode(text)) & set(tokenizer.special.values())
  assert tokenizer.decode(tokenizer.encode(text)) == text


def test_specials_follow_the_merges_and_fill_up_to_a_multiple_of_64():
  for merged in (257, 300, 300 + 64 - 321 % 64):
    ids = tokenizer_lib.special_ids(merged)
    assert list(ids.values()) == list(range(merged, merged + len(ids)))
    assert list(ids)[:21] == list(tokenizer_lib.SPECIALS)
    assert (merged + len(ids)) % 64 == 0 and len(ids) < 21 + 64
    assert all(name.startswith('<|reserved_') for name in list(ids)[21:])


def test_size_end_and_byte_lengths(tokenizer):
  assert tokenizer.size == 320 == len(tokenizer.byte_lengths)
  assert tokenizer.decode([tokenizer.end]) == '<|endoftext|>'
  assert tokenizer.byte_lengths.dtype == np.int32
  assert not tokenizer.byte_lengths[list(tokenizer.special.values())].any()


@pytest.mark.parametrize('token', [-1, 320, 2**40])
def test_an_id_that_is_not_there_is_refused_as_bytes_and_shown_in_text(tokenizer, token):
  with pytest.raises(InputError, match='not in this vocabulary of 320 ids'):
    tokenizer.decode_bytes([token])
  ids = [*tokenizer.encode('a caf\xe9'), token, tokenizer.end]
  assert tokenizer.decode(ids) == 'a caf\xe9\ufffd<|endoftext|>'
  assert ''.join(tokenizer.stream([one] for one in ids)) == tokenizer.decode(ids)


def test_batch_equals_one_by_one_with_any_threads(tokenizer):
  one_by_one = [tokenizer.encode(text) for text in NASTY]
  assert tokenizer.encode_batch(NASTY) == tokenizer.encode_batch(NASTY, 3) == one_by_one


def test_load_inverts_save(tokenizer, tmp_path):
  tokenizer.save(tmp_path / 'new' / 'tokenizer.json')
  again = tokenizer_lib.load(tmp_path / 'new' / 'tokenizer.json')
  assert again == tokenizer and again.fingerprint == tokenizer.fingerprint
  assert again.encode(TEXT) == tokenizer.encode(TEXT)


def test_fingerprint_sees_every_part(tokenizer):
  swapped = dict(tokenizer.ranks)
  swapped[b'a'], swapped[b'b'] = swapped[b'b'], swapped[b'a']
  renamed = {name.replace('mask', 'veil'): token for name, token in tokenizer.special.items()}
  others = [tokenizer_lib.Tokenizer('', tokenizer.pattern, swapped, tokenizer.special),
            tokenizer_lib.Tokenizer('', tokenizer.pattern, tokenizer.ranks, renamed),
            tokenizer_lib.Tokenizer('', '.', tokenizer.ranks, tokenizer.special)]
  assert len({tokenizer.fingerprint, *(other.fingerprint for other in others)}) == 4


@pytest.mark.parametrize('change', [
    lambda fields: fields['tokens'].reverse(),
    lambda fields: fields['special'].update({'<|mask|>': 0}),
    lambda fields: fields.update(pattern='.'),
    lambda fields: fields['byte_lengths'].__setitem__(3, 7)])
def test_altered_file_is_refused(tokenizer, tmp_path, change):
  path = tmp_path / 'tokenizer.json'
  tokenizer.save(path)
  fields = json.loads(path.read_text())
  change(fields)
  path.write_text(json.dumps(fields))
  with pytest.raises(InputError, match='tokenizer.json was altered'):
    tokenizer_lib.load(path)


@pytest.mark.parametrize('content', [b'', b'[]', b'{}', b'\xff\xfe', b'{"format": "other"}'])
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path, content):
  path = tmp_path / 'tokenizer.json'
  path.write_bytes(content)
  with pytest.raises(InputError, match='is not a .* file'):
    tokenizer_lib.load(path)
  with pytest.raises(InputError, match='cannot be read'):
    tokenizer_lib.load(tmp_path / 'missing.json')


def test_a_stream_waits_for_whole_characters(tokenizer):
  for text in [*NASTY, 'a\ufffdb']:
    ids = tokenizer.encode(text)
    pieces = list(tokenizer.stream([token] for token in ids))
    assert ''.join(pieces) == text
    assert text == 'a\ufffdb' or not any('\ufffd' in piece for piece in pieces)
  half = tokenizer.ranks[b'\xf0']
  assert list(tokenizer.stream([[half], tokenizer.encode('a'), [half]])) == ['', '\ufffda', '', '\ufffd']
