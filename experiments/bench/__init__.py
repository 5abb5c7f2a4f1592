"""Benchmarks: what we claim about speed, and how it was measured."""

import os

# Before a device is opened: JAX would take most of its memory, which a second process (a twin, a
# restart) needs too.
os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
