"""Checkpoints in a workdir: saved in the background, restored onto any mesh (orbax)."""

import contextlib
import inspect
import json
import pathlib
import shutil
import sys
import warnings
import zlib
from typing import Any, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from nanollm_jax import InputError, OutOfStep

# What the system says of a write, and what that means.
FULL = {'No space left': 'the disk is full', 'quota exceeded': 'the disk quota is used up',
        'File too large': 'a file may not grow as large here as it must (see ulimit -f)'}
BEST = 'best.json'  # in a workdir whose newest step is not its best: which one is


class Checkpoints:
  """The folder `checkpoints/` of a workdir; one subfolder a step: the newest `keep`, and the best.

  A step is written aside and renamed when it is whole, so a killed run leaves the steps before
  it untouched.
  """

  def __init__(self, workdir: str | pathlib.Path, keep: int = 2):
    self.directory = pathlib.Path(workdir).absolute() / 'checkpoints'
    policies = ocp.training.preservation_policies
    kept = policies.AnyPreservationPolicy([policies.LatestN(keep), _Best(workdir)])
    self.directory.mkdir(parents=True, exist_ok=True)
    self._orbax = ocp.training.Checkpointer(
        self.directory, preservation_policy=kept, cleanup_tmp_directories=True)

  def latest(self) -> int | None:
    """The newest whole step, or None; all processes ask together.

    Raises OutOfStep where they see different ones, as on a network's disk: each would go on from
    its own.
    """
    newest = self._orbax.latest
    seen = [text.strip() for text in _gather(json.dumps(newest and newest.step))]
    if len(set(seen)) > 1:
      raise OutOfStep(f'in {self.directory} the processes see other newest steps '
                      f'({", ".join(seen)}): start all of them again.')
    return newest and newest.step

  def save(self, step: int, state: Any, data: Any = None) -> None:
    """Begins to save a tree of arrays and the data source's JSON-able state.

    The arrays are copied first, so the caller may donate them. A failure of the save before is
    raised here, or by `close`, as one sentence. A step that is there already stays as it is.
    """
    with _save_errors(self.directory):
      self._orbax.wait()
      if step in (one.step for one in self._orbax.checkpoints):
        return
      states = _gather(json.dumps(data))
      self._orbax.save_checkpointables_async(
          step, dict(state=state, data=dict(processes=states, crc32=_crc32(states),
                                            checksums=checksums(state))),
          force=True)

  def wait(self) -> None:
    """Returns when everything begun is on disk."""
    with _save_errors(self.directory):
      self._orbax.wait()

  def close(self) -> None:
    """Waits, then lets go of the folder."""
    with _save_errors(self.directory):
      self._orbax.close()

  def restore(self, abstract_state: Any) -> tuple[Any, Any]:
    """Reads the newest sound step in the shapes and shardings of `abstract_state`.

    A damaged one, of which an older one is sound, is told of and moved to `damaged/`.

    Returns the state and this process's data state (None where the process count has changed and
    each process had its own).
    Raises InputError where the shapes differ: the workdir is of another model.
    """
    _hush_late_reads()
    errors: dict[int, Exception] = {}
    for step in sorted((one.step for one in self._orbax.checkpoints), reverse=True):
      try:
        found = self._orbax.load_checkpointables(step, dict(state=abstract_state, data=None))
        _compare(found['state'], found['data'])
        break
      except (ValueError, KeyError, OSError, TypeError) as error:
        errors[step] = error
        if jax.process_count() > 1:  # the others may have read their parts well
          break
    if len(errors) == len(self._orbax.checkpoints) or jax.process_count() > 1 and errors:
      step, error = next(iter(errors.items()))
      raise InputError(f'the checkpoint {self.directory / str(step)} does not fit this '
                       f'configuration or is damaged ({_first_line(error)}): use the flags of its '
                       'run.flags, another --workdir, or delete that step.') from error
    for step, error in errors.items():
      self._put_away(step, error)
    states = found['data']['processes']
    if len(states) == jax.process_count():
      return found['state'], json.loads(states[jax.process_index()])
    return found['state'], json.loads(states[0]) if len(set(states)) == 1 else None

  def _put_away(self, step: int, error: Exception) -> None:
    damaged = self.directory.with_name('damaged')
    print(f'warning: the checkpoint {self.directory / str(step)} is damaged ({_first_line(error)}):'
          f' moved to {damaged}; an older one is used.', file=sys.stderr, flush=True)
    damaged.mkdir(exist_ok=True)
    shutil.rmtree(damaged / str(step), ignore_errors=True)
    (self.directory / str(step)).rename(damaged / str(step))
    self._orbax.reload()


def checksums(tree: Any) -> dict[str, int]:
  """A sum over the bits of each array, by its path: the same on any mesh, another after a flip."""
  # A program an array: one of all would need as much memory again, and fault in its pages.
  sums = jax.device_get(jax.tree.map(_checksum, tree))
  return {jax.tree_util.keystr(path, simple=True, separator='/'): int(value)
          for path, value in jax.tree_util.tree_leaves_with_path(sums)}


@jax.jit
def _checksum(leaf: jax.Array) -> jax.Array:
  if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    leaf = jax.random.key_data(leaf)
  bits = jax.lax.bitcast_convert_type(leaf, f'uint{8 * leaf.dtype.itemsize}').astype('uint32')
  place = jnp.zeros((), 'uint32')  # of an element, without a reshape that would gather shards
  for axis, size in enumerate(leaf.shape):
    place = place * np.uint32(size) + jax.lax.broadcasted_iota('uint32', leaf.shape, axis)
  weighed = bits * (2 * place + 1)  # odd factors keep every flip
  # In two sums: XLA's CPU adds up to vectors three times as fast as to one number.
  columns = jnp.sum(weighed, axis=tuple(range(leaf.ndim - 1)), dtype='uint32')
  return jnp.sum(jax.lax.optimization_barrier(columns), dtype='uint32')


def _compare(state: Any, data: Any) -> None:
  """ValueError where an array or the place in the data is not what was saved."""
  states = data['processes']
  if data.get('crc32', _crc32(states)) != _crc32(states):
    raise ValueError('the place in the data is not what was saved')
  saved = data.get('checksums', {})
  for name, value in checksums(state).items():
    if saved.get(name, value) != value:
      raise ValueError(f'{name} is not what was saved')


def _crc32(texts: list[str]) -> int:
  return zlib.crc32('\n'.join(texts).encode())


class _Best:
  """Orbax keeps the step that `best` names."""

  def __init__(self, workdir: str | pathlib.Path):
    self._workdir = workdir

  def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
    step = best(self._workdir).get('step')
    return [one.step == step for one in checkpoints]


def best(workdir: str | pathlib.Path) -> dict[str, Any]:
  """What best.json of a workdir says of the step that is to be opened.

  {} where it is the newest, also because the step that was best is not there any more.
  """
  path = pathlib.Path(workdir) / BEST
  found = json.loads(path.read_text()) if path.exists() else {}
  return found if (path.parent / 'checkpoints' / str(found.get('step'))).is_dir() else {}


def mark_best(workdir: str | pathlib.Path, step: int, **numbers: float) -> None:
  """Makes a step the one that is opened and kept; the numbers say why."""
  if jax.process_index() == 0:
    aside = pathlib.Path(workdir) / f'{BEST}.partial'
    aside.write_text(json.dumps(dict(step=step, **numbers)))
    aside.replace(aside.with_name(BEST))


def load_params(workdir: str | pathlib.Path, abstract_params: Any, step: int | None = None) -> Any:
  """Only the parameters of a workdir's best, newest or given step, in the given shardings."""
  directory = pathlib.Path(workdir).absolute() / 'checkpoints'
  step = best(workdir).get('step') if step is None else step
  if not directory.is_dir():
    raise InputError(f'--init_from={workdir} has no checkpoints/: give the workdir of a run that '
                     'has saved one.')
  context = ocp.Context()
  context.pytree.loading.partial_load = True
  with context, ocp.training.Checkpointer(directory) as reader:
    if step is None and reader.latest is None:
      raise InputError(f'--init_from={workdir} has no whole checkpoint yet: wait for the first '
                       'save of that run, or give another workdir.')
    if step is not None and step not in (one.step for one in reader.checkpoints):
      raise InputError(f'--init_from={workdir} has no checkpoint of step {step}: give one of '
                       f'{[one.step for one in reader.checkpoints]}, or leave --step out.')
    _hush_late_reads()
    try:
      found = reader.load_checkpointables(
          step, dict(state=dict(params=abstract_params), data=None))
      _compare(found['state'], found['data'])
      return found['state']['params']
    except (ValueError, KeyError, OSError) as error:
      raise InputError(f'--init_from={workdir} does not hold this model ({_first_line(error)}): '
                       'its run.flags says which model it holds.') from error


@contextlib.contextmanager
def _save_errors(directory: pathlib.Path) -> Iterator[None]:
  """Turns a full disk into one sentence; what was saved before is untouched."""
  try:
    yield
  except (OSError, ValueError, RuntimeError) as error:
    if not (why := next((FULL[words] for words in FULL if words in str(error)), '')):
      raise
    raise InputError(f'{why}: a checkpoint in {directory} could not be written. Make room and '
                     'start the same command again; it goes on from the newest whole '
                     'checkpoint.') from error


def _gather(text: str) -> list[str]:
  """Every process's JSON text, in the order of processes."""
  if jax.process_count() == 1:
    return [text]
  longest = int(multihost_utils.process_allgather(np.array(len(text))).max())
  padded = np.frombuffer(text.ljust(longest).encode('ascii'), np.uint8)
  return [bytes(row).decode() for row in multihost_utils.process_allgather(padded)]


def _first_line(error: BaseException) -> str:
  while error.__cause__:  # what the file system or the decoder said
    error = error.__cause__
  return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _hush_late_reads() -> None:
  """Where one array is damaged, those still being read have nobody to report to, and say so."""
  def report(thrown: Any) -> None:
    if not inspect.iscoroutine(thrown.object) and str(thrown.exc_value) != 'Event loop is closed':
      sys.__unraisablehook__(thrown)
  if sys.unraisablehook is sys.__unraisablehook__:  # nobody else's
    sys.unraisablehook = report
  warnings.filterwarnings('ignore', r"coroutine '\S+' was never awaited", RuntimeWarning)
