"""A claim: what was measured, what was expected, whether it holds, and a picture of it."""

import json
import math
import pathlib
from typing import Any, Sequence

from nanollm_jax import InputError, report


def world_of(path: str) -> dict[str, Any]:
  """The ground truth that experiments.build_world wrote."""
  try:
    return json.loads(pathlib.Path(path).read_text())
  except (OSError, ValueError) as error:
    raise InputError(f'--world={path} cannot be read ({error}): give the world.json that '
                     'experiments.build_world wrote beside the documents.') from error


def share(hits: Sequence[bool]) -> tuple[float, float]:
  """A share and its standard error (Agresti-Coull's: never zero for a few trials)."""
  n, mean = len(hits), sum(hits) / len(hits)
  inner = (sum(hits) + 2) / (n + 4)
  return mean, math.sqrt(inner * (1 - inner) / (n + 4))


def conclude(workdir: str, name: str, *, claim: str, rows: list[dict[str, Any]], number: str,
             expected: str, holds: bool, otherwise: str, picture: dict[str, Any]) -> None:
  """Prints the table and the verdict; writes lecture/NAME.json and NAME.svg into the workdir.

  `otherwise` says, where the claim does not hold, what it would take.
  """
  folder = pathlib.Path(workdir) / 'lecture'
  folder.mkdir(parents=True, exist_ok=True)
  print(f'claim     {claim}')
  names = list(rows[0])
  cells = [names] + [[_cell(row[key]) for key in names] for row in rows]
  widths = [max(len(row[column]) for row in cells) for column in range(len(names))]
  for row in cells:
    print('          ' + '  '.join(cell.rjust(width) for cell, width in zip(row, widths)))
  print(f'measured  {number}\nexpected  {expected}')
  print('verdict   ' + ('holds' if holds else f'does not hold here: {otherwise}'))
  report.picture(folder / f'{name}.svg', **picture)
  (folder / f'{name}.json').write_text(json.dumps(
      dict(claim=claim, rows=rows, measured=number, expected=expected, holds=holds), indent=1))
  print(f'picture   {folder / name}.svg')


def _cell(value: Any) -> str:
  return f'{value:.3f}' if isinstance(value, float) else str(value)
