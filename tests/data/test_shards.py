"""Tests of token shards: round trips, every kind of damage, and builds that are interrupted."""

import json
import os
import pathlib
import shutil
import sys

import numpy as np
import pytest

from nanollm_jax import InputError
from nanollm_jax.data import pipeline, shards
from tests import full_disk
from tests.data.byte_tokenizer import ByteTokenizer

TOKENIZER = ByteTokenizer()
TEXTS = [f'document {k} ' * (k % 7 + 1) for k in range(600)]
SHARED = pathlib.Path(__file__).parents[3] / 'shared/data'


def _write(folder, tokenizer=TOKENIZER, **options):
  documents = [('validation' if k % 10 == 0 else 'train', text) for k, text in enumerate(TEXTS)]
  return shards.write(folder, documents, tokenizer, **options)


@pytest.mark.parametrize('size, dtype', [(257, 'uint16'), (65536, 'uint16'), (65537, 'uint32')])
def test_documents_come_back_between_two_ends(tmp_path, size, dtype):
  tokenizer = ByteTokenizer(size=size, end=size - 1)
  counts = _write(tmp_path, tokenizer, shard_tokens=5000)
  assert counts['train']['shards'] > 2
  for split, texts in (('train', [t for k, t in enumerate(TEXTS) if k % 10]),
                       ('validation', TEXTS[::10])):
    opened = shards.open_shards(tmp_path, split, tokenizer.fingerprint)
    assert len(opened) == len(texts) == counts[split]['documents']
    assert opened.tokens == counts[split]['tokens'] == opened.lengths.sum()
    assert counts[split]['bytes'] == sum(map(len, texts))
    for document, text, length in zip(opened, texts, opened.lengths, strict=True):
      assert document.dtype == dtype and len(document) == length
      np.testing.assert_array_equal(document, [size - 1, *text.encode(), size - 1])


def test_output_does_not_depend_on_workers(tmp_path):
  _write(tmp_path / 'a', shard_tokens=5000, workers=1)
  _write(tmp_path / 'b', shard_tokens=5000, workers=4)
  names = sorted(os.listdir(tmp_path / 'a'))
  assert names == sorted(os.listdir(tmp_path / 'b'))
  for name in names:
    assert (tmp_path / 'a' / name).read_bytes() == (tmp_path / 'b' / name).read_bytes()


def test_index_past_the_end_is_an_error(tmp_path):
  _write(tmp_path)
  opened = shards.open_shards(tmp_path, 'train', TOKENIZER.fingerprint)
  for index in (-1, len(opened)):
    with pytest.raises(IndexError):
      opened[index]


def test_every_flipped_byte_and_every_cut_is_seen(tmp_path):
  counts = _write(tmp_path, shard_tokens=5000)
  path = tmp_path / 'train-00001.tokens'
  content = path.read_bytes()
  header = content.index(b' ' * 100)
  places = [*range(header + 2), 4095, 4096, 4100, len(content) // 2, len(content) - 1]
  damaged = [content[:k] + bytes([content[k] ^ 1]) + content[k + 1:] for k in places]
  damaged += [content[:k] for k in (0, 100, 4096, 5000, len(content) - 1)] + [content + b'\0\0']
  for bad in damaged:
    path.write_bytes(bad)
    with pytest.raises(InputError, match='train-00001.tokens (is cut short|has version).*rebuild'):
      shards.open_shards(tmp_path, 'train', TOKENIZER.fingerprint)
  path.write_bytes(content)
  opened = shards.open_shards(tmp_path, 'train', TOKENIZER.fingerprint)
  assert len(opened) == counts['train']['documents']


def test_wrong_tokenizer_missing_shard_and_other_version_are_named(tmp_path, monkeypatch):
  _write(tmp_path, shard_tokens=5000)
  with pytest.raises(InputError, match='train-00000.tokens was made with another tokenizer'):
    shards.open_shards(tmp_path, 'train', '0' * 64)
  (tmp_path / 'train-00001.tokens').unlink()
  with pytest.raises(InputError, match='train-00001.tokens is missing'):
    shards.open_shards(tmp_path, 'train', TOKENIZER.fingerprint)
  with pytest.raises(InputError, match='lists no test shards'):
    shards.open_shards(tmp_path, 'test', TOKENIZER.fingerprint)
  monkeypatch.setattr(shards, '_VERSION', 2)
  _write(tmp_path, shard_tokens=5000)
  monkeypatch.undo()
  with pytest.raises(InputError, match='has version 2 and this code reads 1'):
    shards.open_shards(tmp_path, 'train', TOKENIZER.fingerprint)


@pytest.fixture
def source(tmp_path):
  path = tmp_path / 'source.jsonl'
  path.write_text(''.join(json.dumps({'text': text}) + '\n' for text in TEXTS))
  return path


def test_prepare_builds_once_and_again_when_anything_changed(tmp_path, source, capsys):
  config = pipeline.DataConfig(documents=(str(source),), validation_fraction=0.1)

  def built(config, tokenizer=TOKENIZER):
    opened = shards.prepare(config, tokenizer, tmp_path)
    assert sum(map(len, opened.values())) == len(TEXTS)
    return 'MB/s' in capsys.readouterr().out

  assert built(config) and not built(config)
  os.utime(source, ns=(0, 0))
  assert built(config) and not built(config)
  more = pipeline.DataConfig(documents=(str(source),), validation_fraction=0.2)
  assert built(more) and not built(more)
  assert built(more, ByteTokenizer(fingerprint='0' * 64))


def test_validation_files_go_to_validation(tmp_path, source):
  (tmp_path / 'held.txt').write_text('held out')
  config = pipeline.DataConfig(documents=(str(source),), validation=(str(tmp_path / 'held.txt'),))
  opened = shards.prepare(config, TOKENIZER, tmp_path)
  assert len(opened['train']) == len(TEXTS)
  assert [TOKENIZER.decode(ids) for ids in opened['validation']] == ['held out']


def test_interrupted_build_starts_again(tmp_path, source):
  class Dying(ByteTokenizer):
    def encode_batch(self, texts, threads=1):
      if 'document 599 ' in texts[-1]:
        raise KeyboardInterrupt
      return super().encode_batch(texts, threads)

  config = pipeline.DataConfig(documents=(str(source),))
  with pytest.raises(KeyboardInterrupt):
    shards.prepare(config, Dying(), tmp_path)
  assert not (tmp_path / 'tokens').exists()
  assert len(shards.prepare(config, TOKENIZER, tmp_path)['train']) == len(TEXTS)
  assert not (tmp_path / 'tokens.partial').exists()


def test_prepare_sees_a_lost_last_shard(tmp_path, source):
  config = pipeline.DataConfig(documents=(str(source),))
  shards.prepare(config, TOKENIZER, tmp_path)
  extra = tmp_path / 'tokens/train-00001.tokens'
  shutil.copy(tmp_path / 'tokens/train-00000.tokens', extra)
  manifest = tmp_path / 'tokens/manifest.json'
  manifest.write_text(manifest.read_text().replace('"shards": 1', '"shards": 2'))
  extra.unlink()
  with pytest.raises(InputError, match='train-00001.tokens is missing'):
    shards.prepare(config, TOKENIZER, tmp_path)


BUILDS = '''
import dataclasses, pathlib
from nanollm_jax import flags
from nanollm_jax.data import pipeline, shards
from tests.data.byte_tokenizer import ByteTokenizer

@dataclasses.dataclass(frozen=True)
class Config:
  workdir: str = ''

def main(config):
  source = pathlib.Path(config.workdir, 'a.jsonl')
  for words in (100, 4000):
    source.write_text('{"text": "%s"}' % ('word ' * words))
    data = pipeline.DataConfig((str(source),))
    print(shards.prepare(data, ByteTokenizer(), config.workdir)['train'].tokens)

flags.run(main, Config)
'''


def test_a_full_disk_is_one_sentence_and_the_build_before_stays(tmp_path):
  """20 kB of text fit, their 40 kB of tokens do not."""
  done = full_disk.run(
      tmp_path, 49_152, 'sh', '-c', '"$0" -c "$1" --workdir="$2"; echo $?; ls "$2/tokens"',
      sys.executable, BUILDS, str(tmp_path))
  assert done.stdout.split()[-4:] == ['502', '1', 'manifest.json', 'train-00000.tokens']
  assert done.stderr == (f'error: {tmp_path} could not be written (No space left on device): make '
                         'room and start the same command again; what was saved before stays '
                         'good.\n')


def test_all_documents_held_out_is_refused(tmp_path):
  (tmp_path / 'a.jsonl').write_text('{"text": "a"}\n')
  config = pipeline.DataConfig((str(tmp_path / 'a.jsonl'),), validation_fraction=0.999999)
  with pytest.raises(InputError, match='no document is left for training'):
    shards.prepare(config, TOKENIZER, tmp_path)


@pytest.mark.skipif(not SHARED.exists(), reason='no data beside the repository')
def test_wikitext_comes_back_byte_for_byte(tmp_path):
  path = SHARED / 'wikitext-2/valid.txt'
  config = pipeline.DataConfig(documents=(str(path),), validation_fraction=0.05)
  opened = shards.prepare(config, TOKENIZER, tmp_path)
  text = ''.join(TOKENIZER.decode(ids) for split in ('train', 'validation')
                 for ids in opened[split])
  assert text.split() == path.read_text().split() and len(opened['train']) > 100
