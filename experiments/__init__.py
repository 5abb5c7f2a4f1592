"""One file a stage, in pipeline order; the only place where the rooms meet.

Compiled programs are kept in .cache/jax of the checkout, unless JAX's own variables say otherwise.
On a CPU, memory that a training step gives back is kept for the next one.
"""

import ctypes
import os
import pathlib
import sys

_CACHE = pathlib.Path(__file__).parents[1] / '.cache' / 'jax'
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
  os.environ |= {'JAX_COMPILATION_CACHE_DIR': str(_CACHE),
                 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0'}


def _keep_memory() -> None:
  """Lets glibc give a step the pages of the last one: to fault them in anew takes 30% longer.

  One arena for all threads, from which arrays of up to 1 GiB come and to which they return.
  """
  mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
  arena_max, mmap_threshold, trim_threshold = -8, -3, -1  # malloc.h
  if mallopt:
    mallopt(arena_max, 1)
    mallopt(mmap_threshold, 2**30)
    mallopt(trim_threshold, 2**31 - 1)


if sys.platform == 'linux' and not any(
    os.path.exists(f'/dev/{accelerator}') for accelerator in ('nvidia0', 'accel0', 'vfio/0')):
  _keep_memory()
