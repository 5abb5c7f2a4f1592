"""Bulk tokenising: the same ids as tiktoken's on anything, and what is left to it."""

import pathlib
import random
import sys

import pytest

from nanollm_jax.text import bpe, bulk, known

TEXT = pathlib.Path(__file__).read_text(encoding='utf-8') + 'das schöne Café 日本語 ' * 99
EDGES = ['', ' ', '\r\n', "it's IT'S", '<|endoftext|> <|im_start|>', 'schön\u00a0日本語 12345', 'e\u0301',
         '\U00016ebb "\U00016ebb', 'x \U0001f600', '\ud800 half', 'a' * 5000, ' ' * 5000,
         'def f(x):\n\treturn x  # 3.14\n\n\n']
WORDS = [*'a1 \n\t\r\'.é日', '  ', '\r\n', "'ll", 'the', '123', '\u0301', '\u3000', '\u0378']


@pytest.mark.parametrize('name', ['gpt2', 'cl100k_base', 'o200k_base', 'qwen2'])
def test_ids_are_those_of_tiktoken(name):
  pytest.importorskip('gigatoken')
  tokenizer = (bpe.train([TEXT], bpe.Config(vocabulary=320)) if name == 'qwen2' else
               known.from_name_or_file(name))
  rng = random.Random(0)
  drawn = lambda: rng.choice([rng.choice(WORDS), rng.choice(WORDS), chr(rng.randrange(0xD800))])
  texts = EDGES + [''.join(drawn() for _ in range(rng.randrange(40))) for _ in range(3000)]
  found = bulk.encoder(tokenizer.pattern_name, tokenizer.ranks, 4000)(texts, 1)
  assert [one is None for one in found[:len(EDGES)]] == [
      len(text) > 4000 or max(text, default='') > '\ud7ff' for text in EDGES]
  assert sum(one is not None for one in found) > 500
  assert tokenizer.encode_batch(texts, 2) == [tokenizer.encode(text) for text in texts]


def test_what_it_leaves_is_encoded_and_without_it_all_is(monkeypatch):
  tokenizer = bpe.train([TEXT], bpe.Config(vocabulary=320))
  texts = ['the', 'red', 'tree']
  expected = [tokenizer.encode(text) for text in texts]
  monkeypatch.setattr(bulk, 'encoder', lambda *_: lambda texts, _: [[1], None, [2]])
  assert tokenizer.encode_batch(texts) == [[1], expected[1], [2]]
  monkeypatch.undo()
  monkeypatch.setitem(sys.modules, 'gigatoken', None)
  assert bulk.encoder('qwen2', tokenizer.ranks, 9) is None
  assert bulk.encoder('llama-bpe', tokenizer.ranks, 9) is None
