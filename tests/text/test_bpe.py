"""Tests of BPE training: determinism, hand-counted merges, digit rules, refusals."""

import pathlib
import random
import subprocess
import sys

import pytest

from nanollm_jax import InputError
from nanollm_jax.text import bpe, tokenizer as tokenizer_lib

LEAST = 256 + len(tokenizer_lib.SPECIALS)


def _texts():
  rng = random.Random(0)
  words = [''.join(rng.choice('abcdefgh') for _ in range(rng.randrange(1, 7))) for _ in range(400)]
  return [' '.join(rng.choice(words) for _ in range(300)) for _ in range(20)]


def test_merges_the_most_frequent_pair_first():
  tokenizer = bpe.train(['ab' * 9 + ' xy' * 5 + ' ab'], bpe.Config(vocabulary=LEAST + 2))
  assert [token for token, rank in tokenizer.ranks.items() if rank in (256, 257)] == [
      b'ab', b'abab']


def test_training_is_deterministic_across_processes():
  code = ('from tests.text import test_bpe; from nanollm_jax.text import bpe; '
          'print(bpe.train(test_bpe._texts(), bpe.Config(vocabulary=640)).fingerprint)')
  out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True,
                       cwd=pathlib.Path(__file__).parents[2])
  here = bpe.train(_texts(), bpe.Config(vocabulary=640))
  assert out.stdout.strip() == here.fingerprint


def test_vocabulary_is_the_total_rounded_up():
  assert bpe.train(_texts(), bpe.Config(vocabulary=640)).size == 640
  tokenizer = bpe.train(_texts(), bpe.Config(vocabulary=600))
  assert tokenizer.size == 640 and len(tokenizer.ranks) == 600 - 21


def test_digits_go_one_by_one_or_in_threes():
  texts = ['2024 12345 2024 12345 ' * 50]
  single = bpe.train(texts, bpe.Config(vocabulary=LEAST, pattern='qwen2'))
  with pytest.raises(InputError, match='of at most 277'):  # nothing to merge but spaces
    bpe.train(texts, bpe.Config(vocabulary=LEAST + 20, pattern='qwen2'))
  groups = bpe.train(texts, bpe.Config(vocabulary=LEAST + 5, pattern='llama-bpe'))
  pieces = [groups.token_bytes(token) for token in groups.encode('12345')]
  assert pieces == [b'123', b'45']
  assert [single.token_bytes(token) for token in single.encode('123')] == [b'1', b'2', b'3']


def test_nasty_training_text_is_taken():
  texts = ['', '\0', 'a\ud800b', ' ' * 1_100_000, 'hello hello ' * 20]
  assert bpe.train(texts, bpe.Config(vocabulary=LEAST + 3)).size % 64 == 0


def test_too_small_a_vocabulary_and_too_little_text_are_refused():
  for size in (100, 2**40):
    with pytest.raises(InputError, match=f'vocabulary={size}: give at least 2'):
      bpe.Config(vocabulary=size)
  with pytest.raises(InputError, match='enough text for'):
    bpe.train(['abc'], bpe.Config(vocabulary=2048))


def test_errors_of_the_stream_of_texts_come_through():
  def texts():
    yield 'abc'
    raise InputError('file x is broken')
  with pytest.raises(InputError, match='file x is broken'):
    bpe.train(texts(), bpe.Config(vocabulary=300))
