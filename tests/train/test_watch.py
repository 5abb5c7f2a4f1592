"""A step under watch: what is said of compilations, and the trace that is written."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nanollm_jax import metrics
from nanollm_jax.train.watch import Watched


@pytest.fixture
def log(tmp_path):
  log = metrics.Log(tmp_path, from_step=0, steps=9, tokens_per_step=8, flops_per_step=1.)
  yield log
  log.close()


def double(state, batch):
  return {'w': state['w'] + batch['tokens'].sum()}, {'loss': state['w'].sum()}


def test_a_compilation_is_told_of_with_the_argument_that_changed(log, capsys):
  step = Watched(jax.jit(double, donate_argnums=0), log)
  state, batch = {'w': jnp.zeros(3)}, {'tokens': jnp.ones((2, 4), jnp.int32)}
  for _ in range(3):
    state, _ = step(state, batch)
  assert 'warning' not in capsys.readouterr().out
  state, _ = step(state, {'tokens': jnp.ones((2, 5), jnp.int32)})
  said = capsys.readouterr().out
  assert 'warning: the step was compiled again (' in said
  assert 'batch.tokens was int32[2,4]' in said and 'and is int32[2,5]' in said
  assert 'state' not in said
  state, _ = step(state, batch)  # this one is known
  step(state, {'tokens': np.ones((2, 4), np.int32)})  # handed over anew, but not compiled
  assert 'warning' not in capsys.readouterr().out
  assert log.speed(5)['compile_seconds'] > 0


def test_a_trace_of_some_steps_is_written_once(log, tmp_path, capsys):
  step = Watched(jax.jit(double), log, profile_steps=2)
  state, batch = {'w': jnp.zeros(3)}, {'tokens': jnp.ones((2, 4), jnp.int32)}
  for call in range(6):
    state, _ = step(state, batch)
    assert (tmp_path / 'profile').exists() == (call >= 3)
  step.close()
  assert capsys.readouterr().out.count('wrote a trace of 2 steps') == 1
  assert len(list((tmp_path / 'profile').rglob('*.xplane.pb'))) == 1
