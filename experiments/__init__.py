"""One file a stage, in pipeline order; the only place where the rooms meet.

Compiled programs are kept in .cache/jax of the checkout, unless JAX's own variables say otherwise.
"""

import os
import pathlib

_CACHE = pathlib.Path(__file__).parents[1] / '.cache' / 'jax'
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
  os.environ |= {'JAX_COMPILATION_CACHE_DIR': str(_CACHE),
                 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0'}
