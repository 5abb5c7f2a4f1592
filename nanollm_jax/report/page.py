"""The page of a run: key numbers, curves, samples through training, config, environment."""

import datetime
import json
import pathlib
from typing import Any, Mapping, Sequence

import numpy as np

from nanollm_jax.metrics import read_rows, show
from nanollm_jax.report.figure import CSS, curve, finite, text

Rows = Sequence[Mapping[str, Any]]
Columns = Mapping[str, Sequence[tuple[float, float]]]  # name: (step, value)
KNOWN = {'bits_per_byte': ('Bits per byte', ''), 'loss': ('Loss', 'nats per token'),
         'mfu': ('MFU', 'share of peak FLOP/s'), 'step_seconds': ('Step time', 'seconds'),
         'tokens_per_second': ('Throughput', 'tokens per second')}
FIRST, LAST = list(KNOWN)[:2], list(KNOWN)[2:]  # of the curves
SHORT = 120  # characters of a prompt that stands whole before each of its continuations
STYLE = CSS + pathlib.Path(__file__).with_name('page.css').read_text()


def write(workdir: str | pathlib.Path, title: str = '',
          tables: Mapping[str, Rows] = {}) -> pathlib.Path:
  """Writes `report.html` from what lies in the workdir; what is missing or broken is left out.

  `tables` are sections of their own: heading -> rows of the same columns.
  """
  workdir = pathlib.Path(workdir)
  rows, samples = (read_rows(workdir / name) for name in ('metrics.jsonl', 'samples.jsonl'))
  columns: dict[str, list[tuple[float, float]]] = {}
  for row in rows:
    for name, value in row.items():
      if name != 'step' and isinstance(value, (int, float)):
        columns.setdefault(name, []).append((row['step'], float(value)))
  flags, environment = workdir / 'run.flags', _environment(workdir / 'environment.json')
  title = text(title or workdir.resolve().name)
  listed = '\n'.join(f'{name}: {show(value)}' for name, value in environment.items())
  sections = dict(
      **{text(heading): _table(table) for heading, table in tables.items()},
      Curves=_curves(columns), Samples=_samples(samples),
      Config=flags.exists() and f'<pre>{text(flags.read_text(errors="replace"))}</pre>',
      Environment=listed and f'<pre>{text(listed)}</pre>')
  body = ''.join(f'<section><h2>{heading}</h2>\n{inside}</section>\n'
                 for heading, inside in sections.items() if inside)
  path = workdir / 'report.html'
  path.write_text(
      '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
      '<meta name="viewport" content="width=device-width,initial-scale=1">'
      '<meta http-equiv="Content-Security-Policy" '  # whatever a sample says, nothing is loaded
      'content="default-src \'none\';style-src \'unsafe-inline\'">'
      f'<title>{title}</title><style>{STYLE}</style></head>\n'
      f'<body><header><h1>{title}</h1>{_cards(columns, rows, environment)}</header>\n'
      f'<main>{body}</main></body></html>\n', encoding='utf-8')
  return path


def _table(rows: Rows) -> str:
  lines = [rows[0].keys() if rows else [], *(row.values() for row in rows)]
  return '<table>%s</table>' % ''.join(
      '<tr>%s</tr>\n' % ''.join(f'<td>{text(show(cell))}</td>' for cell in line) for line in lines)


def _environment(path: pathlib.Path) -> dict[str, Any]:
  try:
    return dict(json.loads(path.read_bytes()))
  except (OSError, ValueError, TypeError, RecursionError):
    return {}


def _cards(columns: Columns, rows: Rows, environment: Mapping[str, Any]) -> str:
  """The run's key numbers: (label, value, note)."""
  cards = []
  good = {name: list(filter(finite, points)) for name, points in columns.items()}
  names = ('validation/bits_per_byte', 'validation/loss', 'bits_per_byte', 'loss')
  if name := next((name for name in names if good.get(name)), None):
    best, (_, last) = min(good[name], key=lambda point: point[1]), columns[name][-1]
    split, unit = 'validation' if '/' in name else 'train', name.split('/')[-1].replace('_', ' ')
    cards = [(f'final {split}', f'{last:#.5g}', unit),
             (f'best {split}', f'{best[1]:#.5g}', f'at step {show(best[0])}')]
  if rows:
    cards.append(('steps', show(max(row['step'] for row in rows)), ''))
  if speed := good.get('tokens_per_second'):
    cards.append(('tokens per second', show(float(np.median(speed, 0)[1])), 'median'))
  if times := good.get('step_seconds'):
    since = [0, *(step for step, _ in times)]
    spent = sum(seconds * (step - before) for before, (step, seconds) in zip(since, times))
    if walls := good.get('wall_seconds'):
      note = 'of the time since the first start'
      cards.append(('goodput', f'{spent / max(walls[-1][1], 1e-9):.0%}', note))
    spent = datetime.timedelta(seconds=round(min(spent, 1e9)))
    cards.append(('training time', spent, 'evaluation apart'))
  if 'parameters' in environment:
    cards.append(('parameters', show(environment['parameters']), ''))
  return '<dl class="cards">%s</dl>' % ''.join(
      f'<div><dt class="soft">{text(label)}</dt><dd><b>{text(value)}</b>'
      f'<small class="soft">{text(note)}</small></dd></div>'
      for label, value, note in cards) if cards else ''


def _curves(columns: Columns) -> str:
  """A figure a quantity, its train and validation together; what never changes is one line."""
  quantities: dict[str, dict[str, Sequence[tuple[float, float]]]] = {name: {} for name in FIRST}
  shown = [name for name in columns if name in KNOWN or not name.endswith('_seconds')]
  for name in sorted(shown, key=lambda name: (name in LAST, '/' in name, name)):
    first, _, rest = name.rpartition('/')
    shared = rest in columns or first.startswith('validation')
    quantity, label = (rest, first or 'train') if shared else (name, name)
    quantities.setdefault(quantity, {})[label] = columns[name]
  figures, constant = [], []
  for name, series in quantities.items():
    title, unit = KNOWN.get(name, (name.replace('_', ' ').capitalize(), ''))
    values = {value for points in series.values() for _, value in points}
    if len(values) == 1:
      constant.append(f'{title[0].lower()}{title[1:]} {show(values.pop())}')
    elif figures:
      figures.append(curve(series, title, ylabel=unit))
    elif values:
      figures.append(f'<div class="wide">{curve(series, title, "step", unit, width=860)}</div>')
  note = f'<p class="note soft">Constant: {text("; ".join(constant))}.</p>' if constant else ''
  return f'<div class="figures">{"".join(figures)}</div>' * bool(figures) + note


def _samples(samples: Rows) -> str:
  """For each prompt what the first, a middle and the last step made of it, then every step."""
  prompts: dict[tuple[str, str], list[str]] = {}
  for row in samples:
    name, prompt = str(row.get('name', '')), str(row.get('prompt', ''))
    before = prompt if len(prompt) <= SHORT else f'… {prompt[-SHORT // 2:]}'
    prompts.setdefault((name, prompt), []).append(
        f'<div class="sample"><div class="step soft">step {show(row["step"])}</div><div class='
        f'"said" dir="auto"><i class="soft">{text(before)}</i>{text(row.get("text", ""))}</div>'
        '</div>')
  parts = []
  for (name, prompt), made in prompts.items():
    few = [made[0], made[len(made) // 2], made[-1]] if len(made) > 3 else made
    heading = f'<h3>{text(prompt)}</h3>' * (len(prompt) > SHORT)
    every = f'<details><summary>all {len(made)} steps</summary>{"".join(made)}</details>'
    parts.append(f'<article aria-label="{text(name)}">{heading}{"".join(few)}'
                 f'{every * (len(made) > 3)}</article>\n')
  return ''.join(parts)
