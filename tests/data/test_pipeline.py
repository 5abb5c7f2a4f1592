"""Tests of batches: nothing lost, nothing mixed, slices, and exact resume."""

import json
import random
import subprocess
import sys

import numpy as np
import pytest

from nanollm_jax import InputError
from nanollm_jax.data import pipeline, shards
from tests.data.byte_tokenizer import ByteTokenizer

T, B = 48, 4
RNG = random.Random(0)
TEXTS = [f'{k:04d}' + chr(97 + k % 26) * RNG.choice([0, 3, 10, 30, 44, 46, 47, 100, 230])
         for k in range(300)]


@pytest.fixture(scope='module')
def documents(tmp_path_factory):
  folder = tmp_path_factory.mktemp('tokens')
  shards.write(folder, [('train', text) for text in TEXTS], ByteTokenizer(), shard_tokens=4000)
  return shards.open_shards(folder, 'train', ByteTokenizer().fingerprint)


def _pieces(batches):
  """Every segment of every row as a tuple of tokens, checked for its form on the way."""
  found = []
  for batch in batches:
    assert {name: (x.dtype, x.shape) for name, x in batch.items()} == {
        name: (np.dtype(np.int32), (B, T)) for name in ('tokens', 'segment_ids', 'positions')}
    for tokens, segments, positions in zip(*(batch[name] for name in (
        'tokens', 'segment_ids', 'positions'))):
      used = segments > 0
      assert np.all(np.diff(segments[used]) >= 0) and not used[used.sum():].any()
      assert set(segments[used]) == set(range(1, segments.max() + 1))
      assert not tokens[~used].any() and not positions[~used].any()
      for segment in range(1, segments.max() + 1):
        np.testing.assert_array_equal(positions[segments == segment],
                                      np.arange((segments == segment).sum()))
        found.append(tuple(tokens[segments == segment].tolist()))
  return found


def _expected():
  documents = [(256, *text.encode(), 256) for text in TEXTS]
  return [document[k:k + T] for document in documents for k in range(0, len(document), T)]


def _all(documents, **options):
  iterator = pipeline.batches(documents, batch_size=B, length=T, **options)
  batches = list(iterator)
  iterator.close()
  return batches


@pytest.mark.parametrize('shuffle', [False, True])
def test_every_piece_of_every_document_comes_once_and_unmixed(documents, shuffle):
  batches = _all(documents, epochs=1, shuffle=shuffle)
  assert sorted(_pieces(batches)) == sorted(_expected())
  assert max(batch['segment_ids'].max() for batch in batches) > 3
  filled = np.mean([batch['segment_ids'] > 0 for batch in batches[:-1]])
  assert filled > 0.97


@pytest.fixture(scope='module')
def full(tmp_path_factory):
  """256 documents that fill a row each, so that a window holds 128 of them in order."""
  folder = tmp_path_factory.mktemp('full')
  shards.write(folder, [('train', f'{k:046d}') for k in range(256)], ByteTokenizer())
  return shards.open_shards(folder, 'train', ByteTokenizer().fingerprint)


def test_unshuffled_keeps_the_order(full):
  assert _pieces(_all(full, epochs=1, shuffle=False)) == [tuple(ids.tolist()) for ids in full]


def test_same_seed_same_batches_and_validation_is_deterministic(documents):
  for options in ({'seed': 3}, {'shuffle': False}):
    once, again = (_all(documents, epochs=1, **options) for _ in range(2))
    _assert_equal(once, again)
  assert (_pieces(_all(documents, epochs=1, seed=3))
          != _pieces(_all(documents, epochs=1, seed=4)))


def test_each_epoch_is_shuffled_differently(full):
  pieces = _pieces(_all(full, epochs=2))
  once = sorted(tuple(ids.tolist()) for ids in full)
  assert sorted(pieces[:256]) == sorted(pieces[256:]) == once
  first, second = set(pieces[:128]), set(pieces[256:384])  # windows: their rows are shuffled too
  assert first != second and first != set(once[:128]) and second != set(once[:128])


def test_best_fit_by_hand():
  assert pipeline.best_fit([3, 5, 2, 6, 4], 8) == [[3, 2], [1, 0], [4]]
  assert pipeline.best_fit([8, 8], 8) == [[0], [1]] and not pipeline.best_fit([], 8)


@pytest.mark.parametrize('count', [2, 3])
def test_process_slices_are_disjoint_and_cover_all(documents, count):
  parts = [_all(documents, epochs=1, process_index=k, process_count=count) for k in range(count)]
  assert sorted(sum(map(_pieces, parts), [])) == sorted(_expected())
  assert len({len(part) for part in parts}) == 1  # no process waits for a batch of another
  whole = pipeline.batches(documents, batch_size=count * B, length=T, epochs=1)
  _assert_equal(list(whole), [{name: np.concatenate([part[name] for part in together])
                               for name in together[0]} for together in zip(*parts)])
  states = [pipeline.batches(documents, batch_size=B, length=T, process_index=k, process_count=2)
            for k in range(2)]
  assert [next(one)['tokens'].shape for one in states] == [(B, T)] * 2
  assert states[0].get_state() == states[1].get_state() == {'window': 0, 'row': 2 * B}


def test_last_partial_batch_gets_empty_rows(documents):
  last = _all(documents, epochs=1, shuffle=False)[-1]
  rows = (last['segment_ids'] > 0).any(axis=1)
  assert len(rows) == B and rows.tolist() == sorted(rows, reverse=True)


def _assert_equal(ones, others):
  assert len(ones) == len(others)
  for one, other in zip(ones, others):
    for name in one:
      np.testing.assert_array_equal(one[name], other[name])


def test_resume_is_exact_at_any_batch_and_past_an_epoch(documents):
  def fresh():
    return pipeline.batches(documents, batch_size=B, length=T, seed=5)

  iterator = fresh()
  states, batches = [iterator.get_state()], []
  for _ in range(330):  # more than two epochs
    batches.append(next(iterator))
    states.append(json.loads(json.dumps(iterator.get_state())))
  assert sum((batch['segment_ids'] > 0).sum() for batch in batches) > 2 * documents.tokens
  for position in (0, 1, 7, 16, 50, 95, 160, 250, 320):
    again = fresh()
    again.set_state(states[position])
    _assert_equal([next(again) for _ in range(8)], batches[position:position + 8])
    again.close()
  iterator.set_state(states[33])  # back in time, while its thread is running ahead
  _assert_equal([next(iterator) for _ in range(8)], batches[33:41])
  iterator.close()


def test_resume_near_the_end_of_the_last_epoch(documents):
  iterator = pipeline.batches(documents, batch_size=B, length=T, epochs=1)
  states, batches = [], []
  for batch in iterator:
    batches.append(batch)
    states.append(iterator.get_state())
  for back in (1, 2, 5):
    iterator.set_state(states[-1 - back])
    _assert_equal(list(iterator), batches[-back:])
  iterator.close()


def test_no_document_and_bad_config_are_refused():
  with pytest.raises(InputError, match='there is no document'):
    pipeline.batches([], batch_size=B, length=T)
  with pytest.raises(InputError, match='--data.validation_fraction=1.0'):
    pipeline.DataConfig(validation_fraction=1.0)
  with pytest.raises(InputError, match='--data.workers=0'):
    pipeline.DataConfig(workers=0)


def test_a_program_that_parsed_no_flags_and_closes_nothing_ends(tmp_path):
  shards.write(tmp_path, [('train', text) for text in TEXTS], ByteTokenizer())
  code = ('from nanollm_jax.data import pipeline, shards\n'
          'def main():\n'
          f'  opened = shards.open_shards({str(tmp_path)!r}, "train", "f" * 64)\n'
          '  print(next(pipeline.batches(opened, batch_size=2, length=8))["tokens"].shape)\n'
          'main()')
  out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)
  assert (out.returncode, out.stdout, out.stderr) == (0, '(2, 8)\n', '')
