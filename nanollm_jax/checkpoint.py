"""Checkpoints in a workdir: saved in the background, restored onto any mesh (orbax)."""

import contextlib
import json
import pathlib
from typing import Any, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from nanollm_jax import InputError

# What the system says of a write, and what that means.
FULL = {'No space left': 'the disk is full', 'quota exceeded': 'the disk quota is used up',
        'File too large': 'a file may not grow as large here as it must (see ulimit -f)'}


class Checkpoints:
  """The folder `checkpoints/` of a workdir; one subfolder a step, the newest `keep` are kept.

  A step is written aside and renamed when it is whole, so a killed run leaves the steps before
  it untouched.
  """

  def __init__(self, workdir: str | pathlib.Path, keep: int = 2):
    self.directory = pathlib.Path(workdir).absolute() / 'checkpoints'
    policy = ocp.training.preservation_policies.LatestN(keep)
    self.directory.mkdir(parents=True, exist_ok=True)
    self._orbax = ocp.training.Checkpointer(
        self.directory, preservation_policy=policy, cleanup_tmp_directories=True)

  def latest(self) -> int | None:
    """The newest whole step, or None."""
    newest = self._orbax.latest
    return None if newest is None else newest.step

  def save(self, step: int, state: Any, data: Any = None) -> None:
    """Begins to save a tree of arrays and the data source's JSON-able state.

    The arrays are copied first, so the caller may donate them. A failure of the save before is
    raised here, or by `close`, as one sentence.
    """
    with _save_errors(self.directory):
      self._orbax.wait()
      self._orbax.save_checkpointables_async(
          step, dict(state=state, data=dict(processes=_gather(json.dumps(data)))), force=True,
          overwrite=True)

  def wait(self) -> None:
    """Returns when everything begun is on disk."""
    with _save_errors(self.directory):
      self._orbax.wait()

  def close(self) -> None:
    """Waits, then lets go of the folder."""
    with _save_errors(self.directory):
      self._orbax.close()

  def restore(self, abstract_state: Any) -> tuple[Any, Any]:
    """Reads the newest step in the shapes and shardings of `abstract_state`.

    Returns the state and this process's data state (None where the process count has changed).
    Raises InputError where the shapes differ: the workdir is of another model.
    """
    step = self.latest()
    try:
      found = self._orbax.load_checkpointables(step, dict(state=abstract_state, data=None))
    except (ValueError, KeyError, OSError) as error:
      raise InputError(f'the checkpoint {self.directory / str(step)} does not fit this '
                       f'configuration or is damaged ({_first_line(error)}): use the flags of its '
                       'run.flags, another --workdir, or delete that step.') from error
    states = found['data']['processes']
    whole = len(states) == jax.process_count()
    return found['state'], json.loads(states[jax.process_index()]) if whole else None


def load_params(workdir: str | pathlib.Path, abstract_params: Any, step: int | None = None) -> Any:
  """Only the parameters of a workdir's newest (or given) step, in the given shardings."""
  directory = pathlib.Path(workdir).absolute() / 'checkpoints'
  if not directory.is_dir():
    raise InputError(f'--init_from={workdir} has no checkpoints/: give the workdir of a run that '
                     'has saved one.')
  context = ocp.Context(pytree_options=ocp.options.PyTreeOptions(
      loading=ocp.options.PyTreeOptions.Loading(partial_load=True)))
  with context, ocp.training.Checkpointer(directory) as reader:
    if step is None and reader.latest is None:
      raise InputError(f'--init_from={workdir} has no whole checkpoint yet: wait for the first '
                       'save of that run, or give another workdir.')
    try:
      return reader.load_checkpointables(step, dict(state=dict(params=abstract_params)))[
          'state']['params']
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
  return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
