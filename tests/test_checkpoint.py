"""Checkpoints where there is no room for them: one sentence, and the steps before stay good."""

import subprocess
import sys

import pytest

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
