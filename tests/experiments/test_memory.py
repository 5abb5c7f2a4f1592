"""Memory as an experiment uses it: what a step gives back, the next one gets."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
FAULTS = '''
import resource, threading
import numpy as np
{first}
def faults():
  for _ in range(3):
    np.ones(2**26, np.uint8)
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  for _ in range(4):
    np.ones(2**26, np.uint8)
  print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=faults)  # as XLA's are
thread.start()
thread.join()
'''


@pytest.mark.skipif(sys.platform != 'linux' or os.path.exists('/dev/nvidia0'),
                    reason='only where the C library of a Linux machine without a GPU is told to')
def test_pages_are_kept_from_step_to_step():
  def count(first: str) -> int:
    made = subprocess.run([sys.executable, '-c', FAULTS.format(first=first)], cwd=ROOT, check=True,
                          capture_output=True, text=True)
    return int(made.stdout)
  assert count('import experiments') < 8 < 100 < count('')  # of 65,536 small ones or 128 large
