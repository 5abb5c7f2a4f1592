"""The loop: one for every stage. It knows batches, a step, hooks and checkpoints, no stage."""

import dataclasses
import signal
import sys
from typing import Any, Callable, Iterable, NamedTuple, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils

from nanollm_jax import InputError
from nanollm_jax.checkpoint import Checkpoints
from nanollm_jax.metrics import Log
from nanollm_jax.train import watch
from nanollm_jax.train.state import State


@dataclasses.dataclass(frozen=True)
class FitConfig:
  """How long and how a run goes.

  steps: updates; unset means 20 tokens a parameter (Chinchilla, arXiv:2203.15556).
  batch_size: rows of the global batch; unset follows from the horizon (Power Lines,
    arXiv:2505.13738).
  microbatches: parts of a batch that are run one after another, to fit memory.
  log_every: steps between rows of numbers.
  eval_every: steps between evaluations.
  eval_batches: batches of one evaluation; 0 means all.
  sample_every: steps between printed samples.
  save_every: steps between checkpoints; 0 means only at the end.
  keep: checkpoints that are kept.
  patience: updates in a row that may be not finite before the run stops.
  profile_steps: steps that are traced, after two others, into profile/ of the workdir.
  seed: of parameters, data order and every random choice.
  """

  steps: int | None = None
  batch_size: int | None = None
  microbatches: int = 1
  log_every: int = 10
  eval_every: int = 200
  eval_batches: int = 20
  sample_every: int = 200
  save_every: int = 500
  keep: int = 2
  patience: int = 10
  profile_steps: int = 0
  seed: int = 0

  def __post_init__(self):
    for name in ('steps', 'batch_size', 'microbatches', 'log_every', 'keep', 'patience'):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise InputError(f'--fit.{name}={value}: give at least 1.')
    for name in ('eval_every', 'eval_batches', 'sample_every', 'save_every', 'profile_steps',
                 'seed'):
      if getattr(self, name) < 0:
        raise InputError(f'--fit.{name}={getattr(self, name)} is negative.')
    if self.seed >= 2**63:
      raise InputError(f'--fit.seed={self.seed}: give less than 2^63.')


class Batches(Protocol):
  """Where batches come from; its state is part of a checkpoint.

  One whose batches follow from the train state has `draw(state)` in place of `__next__`.
  """

  def __next__(self) -> dict[str, Any]: ...

  def get_state(self) -> Any: ...


class Hook(NamedTuple):
  """Something to watch: `call(step, state)` runs every so many steps and after the last one.

  It returns numbers to log, or None.
  """
  every: int
  call: Callable[[int, State], dict[str, float] | None]


def fit(state: State, step: Callable[..., tuple[State, dict[str, jax.Array]]], batches: Batches, *,
        config: FitConfig, put: Callable[[Any], Any], log: Log, checkpoints: Checkpoints | None,
        hooks: Iterable[Hook] = ()) -> State:
  """Trains from `state.step` to `config.steps`.

  Numbers of a step are read while the next one runs. SIGTERM and Ctrl-C save and stop; the same
  command goes on from there. Several processes agree on that every `log_every` steps.

  Args:
    state: where to begin; donated.
    step: jitted `(state, batch) -> (state, metrics)`.
    batches: an iterator with a state.
    config: a resolved FitConfig.
    put: brings a batch to the devices.
    log: takes the numbers.
    checkpoints: where to save, or None.
    hooks: what to watch.

  Raises:
    InputError: after `patience` updates in a row that are not finite; nothing of them is kept.
    SystemExit: after a signal, when everything is saved.
  """
  done, saved, waiting = int(state.step), -1, None
  draw = getattr(batches, 'draw', lambda _: next(batches))
  step = watch.Watched(step, log, config.profile_steps)

  def save():
    nonlocal saved
    if checkpoints is not None and saved != done:
      with log.spending('checkpoint'):
        checkpoints.save(done, state, batches.get_state())
      saved = done

  with _Signals() as signals:
    while done < config.steps:
      with log.spending('data'):
        batch = put(draw(state))
      state, metrics = step(state, batch)
      _report(waiting, config, log)
      done += 1
      waiting = (done, metrics)
      if done % config.log_every == 0 or done == config.steps:
        _report(waiting, config, log)
        waiting = None
      for hook in hooks:
        if hook.every and (done % hook.every == 0 or done == config.steps):
          try:
            with log.spending('eval'):
              numbers = hook.call(done, state)
          except Exception:
            if jax.process_count() == 1:  # the steps are good; several processes cannot agree now
              save()
              checkpoints and checkpoints.wait()
            raise
          if numbers:
            log.numbers(done, numbers)
      if config.save_every and done % config.save_every == 0:
        save()
      if stopped := signals.agreed(done % config.log_every == 0):
        step.close()
        save()
        checkpoints and checkpoints.wait()
        log.say(f'stopped by {stopped.name} at step {done}'
                + (', saved: the same command goes on from here.' if checkpoints else '.'))
        sys.exit(128 + stopped)
    _report(waiting, config, log)
    step.close()
    save()
    checkpoints and checkpoints.wait()
    log.say(log.goodput())
  return state


def _report(waiting: tuple[int, dict[str, jax.Array]] | None, config: FitConfig, log: Log) -> None:
  """Looks at a step's numbers: stops a run gone bad, and logs where a row is due."""
  if waiting is None:
    return
  step, metrics = waiting
  streak = int(metrics['streak'])
  if streak >= config.patience:
    raise InputError(
        f'loss or gradient was not finite {streak} steps in a row (steps {step - streak + 1} to '
        f'{step}); the parameters of step {step - streak} were kept unchanged: lower '
        '--optim.learning_rate, keep --optim.clip on, or look at the data of these steps.')
  if step % config.log_every == 0 or step == config.steps:
    numbers = {name: float(value) for name, value in metrics.items()}
    if not streak:
      del numbers['streak']
    log.numbers(step, numbers | log.speed(step))


class _Signals:
  """Catches SIGTERM and Ctrl-C once, so that the loop can end its step; a second one is real."""

  def __enter__(self):
    self.received: signal.Signals | None = None
    self._before = {}
    for number in (signal.SIGTERM, signal.SIGINT):
      try:
        self._before[number] = signal.signal(number, self._catch)
      except ValueError:  # not the main thread (a test, a notebook server): signals stay as they are
        pass
    return self

  def agreed(self, now: bool) -> signal.Signals | None:
    """The signal to stop for: ours at once; one of several processes asks all, `now`."""
    if jax.process_count() == 1:
      return self.received
    if not now:
      return None
    asked = multihost_utils.process_allgather(np.array(self.received or 0)).max()
    return signal.Signals(int(asked)) if asked else None

  def _catch(self, number, _frame):
    self.received = signal.Signals(number)
    self._restore()

  def _restore(self):
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def __exit__(self, *_):
    self._restore()
