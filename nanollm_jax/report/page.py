"""The page of a run: key numbers, curves, samples through training, speed, config, environment."""

import json
import pathlib
import statistics
from typing import Any, Mapping, Sequence

from nanollm_jax.metrics import read_rows
from nanollm_jax.report.figure import CSS, curve, show, text

Rows = Sequence[Mapping[str, Any]]
SPEED = {'tokens_per_second': ('Throughput', 'tokens per second'),
         'step_seconds': ('Step time', 'seconds'), 'mfu': ('MFU', 'share of peak FLOP/s')}
KNOWN = {'bits_per_byte': ('Bits per byte', ''), 'loss': ('Loss', 'nats per token'),
         'grad_norm': ('Gradient norm', ''), 'learning_rate': ('Learning rate', ''), **SPEED}
SHORT = 120  # characters of a prompt that stands whole before each of its continuations
PAGE_CSS = '''
:root{color-scheme:light dark}
body{margin:0 auto;padding:2.5rem 1.25rem 4rem;max-width:900px;overflow-wrap:anywhere;
font:16px/1.5 system-ui,"Segoe UI",Roboto,sans-serif;font-variant-numeric:tabular-nums}
h1{font-size:1.75rem;line-height:1.2;margin:0 0 1.25rem}
h2{font-size:1.2rem;margin:2.75rem 0 1rem;padding-top:.75rem;border-top:1px solid #8885}
h3{font-size:1rem;font-weight:400;font-style:italic;margin:0}h3,.said{white-space:pre-wrap}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(8.4rem,1fr));gap:1.1rem;margin:0}
dd{margin:0}dd b{display:block;white-space:nowrap;font-size:1.4rem;font-weight:600;line-height:1.3}
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,22rem),1fr));
gap:1.75rem 1.25rem}.figures svg{width:100%;height:auto}.figures .w900{display:none}
@media(min-width:48rem){.figures .w900{display:block;grid-column:1/-1}.w900+.w400{display:none}}
.scroll{overflow-x:auto;overflow-wrap:normal;margin-top:1rem}
table{border-collapse:collapse;width:100%;font-size:.9rem}
dt,small,.step,.note,summary{font-size:.85rem}
th,td{text-align:left;vertical-align:top;padding:.3rem .8rem .3rem 0;font-weight:400}
tr{border-bottom:1px solid #8884}.number{text-align:right}
.groups{columns:2 20rem;column-gap:2.5rem}.groups table{break-inside:avoid;margin-bottom:1.5rem}
.groups th{width:45%}caption{text-align:left;font-weight:600}
details{margin:.6rem 0}summary{cursor:pointer}
article{margin:0 0 2rem}
.sample{display:grid;grid-template-columns:6rem 1fr;gap:.1rem 1rem;padding:.6rem 0}
.sample+.sample{border-top:1px solid #8884}.said i{unicode-bidi:isolate}.step{padding-top:.12rem}
@media(max-width:36rem){.sample{grid-template-columns:1fr}}
'''


def write(workdir: str | pathlib.Path, title: str = '',
          tables: Mapping[str, Rows] | None = None) -> pathlib.Path:
  """Writes `report.html` from what lies in the workdir; what is missing there is left out.

  `tables` maps a heading to rows (column: value) that a later stage wants on its page.
  """
  workdir = pathlib.Path(workdir)
  rows, samples = (
      [row for row in read_rows(workdir / name) if _is_number(row.get('step'))]
      for name in ('metrics.jsonl', 'samples.jsonl'))
  flags, about = workdir / 'run.flags', workdir / 'environment.json'
  environment = json.loads(about.read_text()) if about.exists() else {}
  title = text(title or workdir.resolve().name)
  sections = [
      ('Curves', _curves(rows)), ('Samples', _samples(samples)),
      *((heading, _table(of)) for heading, of in (tables or {}).items()), ('Speed', _speed(rows)),
      ('Config', _groups(_config(flags.read_text())) if flags.exists() else ''),
      ('Environment', _groups({'': environment}))]
  body = ''.join(f'<section><h2>{text(heading)}</h2>\n{inside}</section>\n'
                 for heading, inside in sections if inside)
  path = workdir / 'report.html'
  path.write_text(
      '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
      '<meta name="viewport" content="width=device-width,initial-scale=1">'
      '<meta http-equiv="Content-Security-Policy" '  # whatever a sample says, nothing is loaded
      'content="default-src \'none\';style-src \'unsafe-inline\'">'
      f'<title>{title}</title><style>{CSS}{PAGE_CSS}</style></head>\n'
      f'<body class="paper ink"><header><h1>{title}</h1>{_cards(rows, environment)}</header>\n'
      f'<main>{body}</main></body></html>\n', encoding='utf-8', errors='replace')
  return path


def _column(rows: Rows, name: str) -> list[tuple[float, float]]:
  return [(row['step'], row[name]) for row in rows if _is_number(row.get(name))]


def _finite(rows: Rows, name: str) -> list[tuple[float, float]]:
  return [(step, value) for step, value in _column(rows, name) if abs(value) < float('inf')]


def _cards(rows: Rows, environment: Mapping[str, Any]) -> str:
  """The run's key numbers: (label, value, note)."""
  cards = []
  names = ('validation/bits_per_byte', 'validation/loss', 'bits_per_byte', 'loss')
  if name := next((name for name in names if _finite(rows, name)), None):
    best, last = min(_finite(rows, name), key=lambda point: point[1]), _column(rows, name)[-1]
    split, unit = 'validation' if '/' in name else 'train', name.split('/')[-1].replace('_', ' ')
    cards = [(f'final {split}', f'{last[1]:#.5g}', unit),
             (f'best {split}', f'{best[1]:#.5g}', f'at step {show(best[0])}')]
  if rows:
    cards.append(('steps', show(max(row['step'] for row in rows)), ''))
  if speed := [value for _, value in _finite(rows, 'tokens_per_second')]:
    cards.append(('tokens per second', show(statistics.median(speed)), 'median'))
  if times := _finite(rows, 'step_seconds'):
    since = [0, *(step for step, _ in times)]
    spent = sum(seconds * (step - before) for before, (step, seconds) in zip(since, times))
    cards.append(('training time', _duration(spent), 'evaluation apart'))
  if _is_number(count := environment.get('parameters')):
    cards.append(('parameters', f'{count / 1e6:,.4g} M' if count >= 1e6 else show(count), ''))
  return '<dl class="cards">%s</dl>' % ''.join(
      f'<div><dt class="soft">{text(label)}</dt><dd><b>{text(value)}</b>'
      f'<small class="soft">{text(note)}</small></dd></div>'
      for label, value, note in cards) if cards else ''


def _duration(seconds: float) -> str:
  hours, minutes = int(seconds // 3600), int(seconds // 60 % 60)
  if hours:
    return f'{hours:,} h {minutes:02d} min'
  return f'{minutes} min {int(seconds % 60):02d} s' if minutes else f'{seconds:.3g} s'


def _curves(rows: Rows) -> str:
  """A figure a quantity, its train and validation together; what never changes is one line."""
  names = list(dict.fromkeys(name for row in rows for name in row if name not in ('step', *SPEED)))
  quantities: dict[str, dict[str, list[tuple[float, float]]]] = {}
  for name in sorted(names, key=lambda name: '/' in name):
    first, _, rest = name.rpartition('/')
    shared = rest in names or first.startswith('validation')
    quantity, label = (rest, first or 'train') if shared else (name, name)
    if column := _column(rows, name):
      quantities.setdefault(quantity, {})[label] = column
  figures, constant = [], []
  order = [*(name for name in KNOWN if name in quantities), *quantities]
  for name in dict.fromkeys(order):
    series = quantities[name]
    title, unit = KNOWN.get(name, (name.replace('_', ' ').capitalize(), ''))
    values = {value for points in series.values() for _, value in points}
    if len(values) == 1:
      constant.append(f'{title[0].lower()}{title[1:]} {show(values.pop())}')
      continue
    if not figures:  # the first, wide on a wide screen
      figures.append(curve(series, title, ylabel=unit, width=900, height=280))
    figures.append(curve(series, title, ylabel=unit))
  note = f'<p class="note soft">Constant: {text("; ".join(constant))}.</p>' if constant else ''
  return (f'<div class="figures">{"".join(figures)}</div>' if figures else '') + note


def _speed(rows: Rows) -> str:
  """How fast it went: a table of each rate's spread, and their curves."""
  figures, spread = [], []
  for name, (title, unit) in SPEED.items():
    if values := sorted(value for _, value in _finite(rows, name)):
      low, high = (values[round(share * (len(values) - 1))] for share in (.1, .9))
      spread.append({'': f'{title}, {unit}', '10th percentile': low,
                     'median': statistics.median(values), '90th percentile': high})
      figures.append(curve({name: _column(rows, name)}, title, ylabel=unit, height=120))
  return spread and f'<div class="figures">{"".join(figures)}</div>{_table(spread)}' or ''


def _samples(samples: Rows, shown: int = 8) -> str:
  """For each prompt what the first, a middle and the last step made of it, then every step."""
  prompts: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
  for row in samples:
    prompts.setdefault((str(row.get('name', '')), str(row.get('prompt', ''))), []).append(row)
  parts = []
  for (name, prompt), made in prompts.items():
    few = [made[0], made[len(made) // 2], made[-1]] if len(made) > 3 else made
    every = (f'<details><summary class="soft">all {len(made)} steps</summary>'
             f'{"".join(map(_sample, made))}</details>' if len(made) > 3 else '')
    heading = f'<h3>{text(prompt)}</h3>' * (len(prompt) > SHORT)
    parts.append(f'<article aria-label="{text(name)}">{heading}{"".join(map(_sample, few))}{every}'
                 '</article>\n')
  more = ''.join(parts[shown:])
  more = more and (f'<details><summary class="soft">{len(parts) - shown} more prompts</summary>'
                   f'{more}</details>')
  return ''.join(parts[:shown]) + more


def _sample(row: Mapping[str, Any]) -> str:
  """One continuation after its prompt, which is set in pale italics; a long one is folded."""
  prompt, said = str(row.get('prompt', '')), str(row.get('text', ''))
  prompt = prompt if len(prompt) <= SHORT else f'… {prompt[-SHORT // 2:]}'
  shown = '\n'.join(said[:700].split('\n')[:12])
  rest = said[len(shown):] and (
      f'<details><summary class="soft">{len(said) - len(shown):,} characters more</summary>'
      f'{text(said[len(shown):])}</details>')
  return (f'<div class="sample"><div class="step soft">step {text(show(row["step"]))}</div>'
          f'<div class="said" dir="auto"><i class="soft">{text(prompt)}</i>{text(shown)}'
          f'{rest}</div></div>')


def _table(rows: Rows) -> str:
  """Rows as a table; the columns are the keys in order of appearance, numbers to the right."""
  columns = list(dict.fromkeys(key for row in rows for key in row))
  numeric = {key for key in columns if any(_is_number(row.get(key)) for row in rows)}
  cell = lambda tag, key, value: (f'<{tag}{" class=number" if key in numeric else ""}>'
                                  f'{text(value)}</{tag}>')
  head = ''.join(cell('th', key, key) for key in columns)
  body = ''.join(f'<tr>{"".join(cell("td", key, show(row.get(key))) for key in columns)}</tr>\n'
                 for row in rows)
  return columns and (f'<div class="scroll"><table><thead><tr class="soft">{head}</tr></thead>'
                      f'<tbody>{body}</tbody></table></div>') or ''


def _is_number(value: Any) -> bool:
  return isinstance(value, (int, float)) and not isinstance(value, bool)


def _groups(groups: Mapping[str, Mapping[str, Any]]) -> str:
  """Small tables of names and values, one for each group, in columns."""
  tables = [
      '<table>' + f'<caption>{text(heading)}</caption>' * bool(heading) + ''.join(
          f'<tr><th scope="row" class="soft">{text(name)}</th><td>{text(show(value))}</td></tr>'
          for name, value in pairs.items()) + '</table>\n'
      for heading, pairs in groups.items() if pairs]
  return tables and f'<div class="groups">{"".join(tables)}</div>' or ''


def _config(flagfile: str) -> dict[str, dict[str, str]]:
  """The flags of a flagfile by their prefix: `--model.depth=8` is depth in the group model."""
  lines = [line.strip()[2:].partition('=') for line in flagfile.splitlines()
           if line.strip().startswith('--')]
  prefixes = {name.partition('.')[0] for name, given, _ in lines if given}
  groups: dict[str, dict[str, str]] = {'run': {}}
  for name, given, value in lines:
    prefix = name.partition('.')[0]
    if not given:  # a boolean: --name, or --noname
      no = name.startswith('no') and ('.' not in name or prefix not in prefixes)
      name, value = (name[2:], 'false') if no else (name, 'true')
    prefix, dot, rest = name.partition('.')
    groups.setdefault(prefix if dot else 'run', {})[rest or name] = value
  return groups
