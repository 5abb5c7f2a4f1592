"""Checkpoints: the best is kept and opened; where there is no room, the steps before stay good."""

import shutil
import subprocess
import sys

import numpy as np
import pytest

from nanollm_jax import InputError, OutOfStep, checkpoint
from tests import full_disk

SAVES = '''
import dataclasses, resource, sys
import numpy as np
from nanollm_jax import checkpoint, flags

@dataclasses.dataclass(frozen=True)
class Config:
  workdir: str = ''
  limit: int = 0

def state(step):
  return {'x': np.random.default_rng(step).normal(size=30_000)}  # 240 kB, not to be compressed

def main(config):
  saver = checkpoint.Checkpoints(config.workdir, keep=99)
  for step in range(1, 9):
    saver.save(step, state(step), {'at': step})
    if config.limit:
      saver.wait()
      resource.setrlimit(resource.RLIMIT_FSIZE, (config.limit, config.limit))
  saver.close()

try:
  flags.run(main, Config)
except SystemExit as error:
  print(error.code)
again = checkpoint.Checkpoints(sys.argv[1].split('=')[1])
step = again.latest()
found, data = again.restore(state(0))
print(step, data['at'], (found['x'] == state(step)['x']).all())
again.save(9, {'x': np.zeros(2)})
again.close()
print(again.latest())
'''


@pytest.mark.parametrize('how, why', [('full', 'the disk is full'),
                                      ('limited', 'a file may not grow as large')])
def test_no_room(tmp_path, how, why):
  if how == 'full':
    done = full_disk.run(tmp_path, 1_000_000, sys.executable, '-c', SAVES, f'--workdir={tmp_path}')
  else:
    done = subprocess.run(
        [sys.executable, '-c', SAVES, f'--workdir={tmp_path}', '--limit=100000'],
        cwd=full_disk.ROOT, capture_output=True, text=True, timeout=100, check=False)
  assert not done.stderr
  sentence, restored, later = done.stdout.splitlines()
  assert sentence.startswith(f'error: {why}') and f'in {tmp_path}/checkpoints could' in sentence
  assert 'Make room and start the same command again' in sentence
  assert restored == ('3 3 True' if how == 'full' else '1 1 True') and later == '9'


def test_the_best_step_is_kept_and_opened(tmp_path):
  saver = checkpoint.Checkpoints(tmp_path, keep=1)
  opened = lambda step=None: float(checkpoint.load_params(tmp_path, {'x': np.zeros(())}, step)['x'])
  for step in range(1, 6):
    saver.save(step, {'params': {'x': np.float64(step)}})
    saver.wait()
    if step in (2, 3):
      assert checkpoint.best(tmp_path) == ({} if step == 2 else {'step': 2, 'score': 2.0})
      assert opened() == 2
      checkpoint.mark_best(tmp_path, step, score=float(step))
  assert [opened(), opened(5), saver.latest()] == [3, 5, 5]
  for gone in (1, 2, 4):
    with pytest.raises(InputError, match=rf'no checkpoint of step {gone}: give one of \[3, 5\]'):
      opened(gone)
  saver.close()
  shutil.rmtree(tmp_path / 'checkpoints' / '3')  # the newest is what there is
  assert checkpoint.best(tmp_path) == {} and opened() == 5


def flip(folder, name):
  """Turns one bit of the values of an array where they lie in the file as they are."""
  (where,) = [path for path in folder.rglob('*') if path.is_file() and name in path.read_bytes()]
  content = bytearray(where.read_bytes())
  content[content.index(name) + 5] ^= 4
  where.write_bytes(content)


@pytest.mark.parametrize('steps, read', [((1, 2), 1), ((2,), None)])
def test_a_flipped_bit_is_found_and_an_older_step_is_used(tmp_path, capsys, steps, read):
  saver = checkpoint.Checkpoints(tmp_path)
  value = lambda step: np.frombuffer(np.random.default_rng(step).bytes(9999 * 4), np.int32)
  for step in steps:
    saver.save(step, {'params': {'x': value(step), 'y': np.full(2, step)}}, {'at': step})
  saver.close()
  flip(tmp_path / 'checkpoints/2', value(2).tobytes()[400:416])
  abstract = {'params': {'x': np.zeros(9999, np.int32), 'y': np.zeros(2, int)}}
  with pytest.raises(InputError, match='params/x is not what was saved'):
    checkpoint.load_params(tmp_path, abstract['params'], step=2)
  again = checkpoint.Checkpoints(tmp_path)
  if read is None:
    with pytest.raises(InputError, match=r'checkpoints/2 does not .* damaged .params/x is not'):
      again.restore(abstract)
  else:
    state, data = again.restore(abstract)
    np.testing.assert_array_equal(state['params']['x'], value(read))
    assert data == {'at': read} and again.latest() == read
    assert 'checkpoints/2 is damaged (params/x' in capsys.readouterr().err
    assert (tmp_path / 'damaged/2').is_dir() and not (tmp_path / 'checkpoints/2').exists()
    again.save(2, {'params': {'x': value(2), 'y': np.full(2, 2)}}, {'at': 2})
    again.wait()
    assert again.restore(abstract)[1] == {'at': 2}
  again.close()


@pytest.mark.parametrize('other', (b'at\\": 3', b'at\\"; 2'))  # another number, no JSON
def test_a_flip_in_the_place_in_the_data_is_found_too(tmp_path, capsys, other):
  saver = checkpoint.Checkpoints(tmp_path)
  for step in (1, 2):
    saver.save(step, {'x': np.full(2, step)}, {'at': step})
  saver.close()
  told = b'at\\": 2'
  (where,) = [path for path in (tmp_path / 'checkpoints/2').rglob('*')
              if path.is_file() and told in path.read_bytes()]
  where.write_bytes(where.read_bytes().replace(told, other))
  again = checkpoint.Checkpoints(tmp_path)
  assert again.restore({'x': np.zeros(2, int)})[1] == {'at': 1}
  assert 'the place in the data is not what was saved' in capsys.readouterr().err
  again.close()


@pytest.mark.parametrize('others', (['10', '20'], ['20', 'null']))
def test_processes_that_see_other_steps_do_not_train_together(tmp_path, monkeypatch, others):
  """A network's disk may show a process the steps of some time ago."""
  saver = checkpoint.Checkpoints(tmp_path)
  saver.save(20, {'x': np.zeros(2)})
  saver.wait()
  assert saver.latest() == 20
  monkeypatch.setattr(checkpoint, '_gather', lambda text: others)
  with pytest.raises(OutOfStep, match=rf'in {tmp_path}/checkpoints .* other newest steps'):
    saver.latest()
  monkeypatch.setattr(checkpoint, '_gather', lambda text: [text] * 2)
  assert saver.latest() == 20
  saver.close()


def test_a_step_that_is_there_is_never_written_again(tmp_path):
  """So a run that has ended, started once more, keeps its only checkpoint whatever happens."""
  saver = checkpoint.Checkpoints(tmp_path)
  saver.save(3, {'x': np.arange(4.0)}, {'at': 3})
  saver.wait()
  place = tmp_path / 'checkpoints' / '3'
  written = {path: path.stat().st_mtime_ns for path in place.rglob('*')}
  for again in (saver, checkpoint.Checkpoints(tmp_path)):
    again.save(3, {'x': np.zeros(4)}, {'at': 0})
    again.close()
  assert {path: path.stat().st_mtime_ns for path in place.rglob('*')} == written
  found, data = checkpoint.Checkpoints(tmp_path).restore({'x': np.zeros(4)})
  assert found['x'].tolist() == [0, 1, 2, 3] and data == {'at': 3}
