"""Rows that cannot be used: the first are printed, all are set aside in `rejected.jsonl`."""

import contextlib
import json
import os
import pathlib
from typing import Any, Iterator

from nanollm_jax import InputError, flags
from nanollm_jax.data import formats

_SHOWN = 3


@contextlib.contextmanager
def set_aside(workdir: str | os.PathLike,
              strict: bool = False) -> Iterator[tuple[formats.Reject, list[dict[str, Any]]]]:
  """Gives what is told of each bad row, and the list of them; writes them when it ends.

  Args:
    workdir: the folder of the run, whose `rejected.jsonl` is replaced, or removed if all is well.
    strict: raise InputError at the first instead.
  """
  rows: list[dict[str, Any]] = []

  def reject(path: pathlib.Path, line: int, reason: str, row: Any) -> None:
    rows.append({'file': str(path), 'line': line, 'reason': reason, 'row': row})
    if len(rows) <= _SHOWN:
      print(f'{path} line {line}: {reason}')

  out = pathlib.Path(workdir) / 'rejected.jsonl'
  try:
    yield formats.refuse if strict else reject, rows
  finally:
    try:
      out.parent.mkdir(parents=True, exist_ok=True)
      out.unlink(missing_ok=True)
      if rows:
        out.write_text(''.join(json.dumps(row) + '\n' for row in rows))
        print(f'{len(rows):,} lines could not be used and are set aside: {out}')
    except OSError as error:
      if error.errno in flags.FULL:
        raise
      raise InputError(f'--workdir={workdir} cannot be written ({error.strerror}): give a folder '
                       'that you may write to.') from error
