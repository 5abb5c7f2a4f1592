"""What is seen of a step from outside: a trace of some calls, and compilations nobody expected."""

import collections
import functools
import threading
import time
from typing import Any, Callable

import jax

from nanollm_jax.metrics import Log

COMPILED = '/jax/core/compile/backend_compile_duration'  # an event; one from the cache too
_WARM = 2  # steps before a trace: the first compiles, the second may


class Watched:
  """A jitted step under watch; called as the step is.

  The first compilation is counted aside. A later one is told of with the arguments that changed.
  Traces of `profile_steps` steps go to `profile/` of the workdir.
  """

  def __init__(self, step: Callable[..., Any], log: Log, profile_steps: int = 0):
    self._step, self._log, self._profile_steps = step, log, profile_steps
    self._calls, self._known = 0, {}

  def __call__(self, state: Any, batch: Any) -> tuple[Any, dict[str, jax.Array]]:
    self._calls += 1
    if self._calls == 1:
      self._known = _described(state, batch)
      with self._log.spending('compile'):
        return self._step(state, batch)
    if self._profile_steps and self._calls == _WARM + 1:
      with self._log.spending('profile'):
        jax.profiler.start_trace(self._log.workdir / 'profile')
    before, began = _compiled(), time.perf_counter()
    with jax.profiler.StepTraceAnnotation('step', step_num=self._calls):
      result = self._step(state, batch)
    if _compiled() > before:
      self._warn(_described(state, batch), time.perf_counter() - began)
    if self._profile_steps and self._calls == _WARM + self._profile_steps:
      jax.block_until_ready(result)
      self.close()
    return result

  def close(self) -> None:
    """Ends a trace that is under way."""
    if self._profile_steps and self._calls > _WARM:
      with self._log.spending('profile'):
        jax.profiler.stop_trace()
      self._log.say(f'wrote a trace of {self._calls - _WARM} steps: {self._log.workdir}/profile '
                    '(read it with xprof, or the .trace.json.gz in it with ui.perfetto.dev)')
      self._profile_steps = 0

  def _warn(self, now: dict[str, str], seconds: float) -> None:
    changed = [f'{name} was {self._known.get(name, "absent")} and is {now.get(name, "absent")}'
               for name in sorted(now.keys() | self._known.keys())
               if now.get(name) != self._known.get(name)]
    more = f'; and {len(changed) - 3} more' if len(changed) > 3 else ''
    self._log.say(f'warning: the step was compiled again ({seconds:.1f} s): '
                  + ('; '.join(changed[:3]) + more or 'no shape, type or placing changed') + '.')
    self._known = now


@functools.cache
def _compilations() -> collections.Counter:
  """How often each thread has compiled. A jitted function's own count tells of less as well."""
  counts = collections.Counter()
  def listen(event: str, _: float, **__: Any) -> None:
    counts[threading.get_ident()] += event == COMPILED
  jax.monitoring.register_event_duration_secs_listener(listen)
  return counts


def _compiled() -> int:
  return _compilations()[threading.get_ident()]


def _described(state: Any, batch: Any) -> dict[str, str]:
  """What a compilation depends on, by the path of an argument."""
  leaves = jax.tree_util.tree_leaves_with_path({'state': state, 'batch': batch})
  return {jax.tree_util.keystr(path, simple=True, separator='.'):
          f'{jax.typeof(leaf).str_short()} over {getattr(leaf, "sharding", None)}'
          for path, leaf in leaves}
