"""Figures as SVG text: curves of a run, pictures of an experiment's points and error bars."""

import html
import math
import pathlib
import statistics
import textwrap
from typing import Any, Callable, Mapping, NamedTuple, Sequence

from nanollm_jax.report import axis

Series = Mapping[str, Sequence[Sequence[float]]]  # name: points (x, y) or (x, y, standard error)
FEW, MOST = 40, 1000  # so many points are drawn with marks; more than so many are thinned
SHAPES = ('m-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0z', 'm-3.2-3.2h6.4v6.4h-6.4z',
          'm0-4.8 4.8 4.8-4.8 4.8-4.8-4.8z', 'm0-4.6 4.4 7.8h-8.8z', 'm-3.8-3.2h7.6l-3.8 7z')
CONTROLS = {code: 0x2400 + code for code in range(32) if code not in (9, 10)}
# Colours after Okabe and Ito, darkened (in the dark lightened) until text in them reads well.
CSS = '''
svg{font:12px system-ui,"Segoe UI",Roboto,sans-serif;font-variant-numeric:tabular-nums}
.c0{color:#0067a5}.c1{color:#bb4300}.c2{color:#00775a}.c3{color:#9c3f7c}.c4{color:#7d6100}
.paper{fill:#fff;background:#fff}.ink{fill:#1d2127;color:#1d2127}.soft{fill:#5c636d;color:#5c636d}
.title{font-weight:600;font-size:14px}.end{fill:currentColor;font-weight:600}
.grid{stroke:#888;stroke-opacity:.25}.axis{stroke:#888}.band{fill:#888;fill-opacity:.22}
.guess{stroke:#888;stroke-width:1.5;stroke-dasharray:5 4;fill:none}
.line{stroke:currentColor;stroke-width:1.8;fill:none;stroke-linejoin:round}
.raw{stroke:currentColor;fill:none;stroke-opacity:.35}.mark{fill:currentColor}
@media(prefers-color-scheme:dark){
.c0{color:#6cb6ee}.c1{color:#f4935a}.c2{color:#45c99f}.c3{color:#e59cc9}.c4{color:#dfb64a}
.paper{fill:#15181d;background:#15181d}.ink{fill:#e4e7eb;color:#e4e7eb}
.soft{fill:#a0a7b1;color:#a0a7b1}}
'''


class Frame(NamedTuple):
  """Where the data's rectangle lies in the picture's, and what it spans."""
  left: float
  right: float
  top: float
  bottom: float
  x_limits: tuple[float, float]
  y_limits: tuple[float, float]
  place: Callable[[float], float]  # an x on its axis, which may be logarithmic

  def x(self, value: float) -> float:
    low, high = self.x_limits
    return self.left + (self.place(value) - low) / (high - low) * (self.right - self.left)

  def y(self, value: float) -> float:
    low, high = self.y_limits
    return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)


def picture(path: str | pathlib.Path, title: str, xlabel: str, ylabel: str, series: Series, *,
            log_x: bool = False, expectation: Any = None) -> pathlib.Path:
  """Writes a standalone SVG with a mark a point; the arguments are those of `curve`."""
  inner = curve(series, title, xlabel, ylabel, width=640, height=300, log_x=log_x,
                expectation=expectation, marks=True)
  width, height = 640, int(inner.partition(' height="')[2].partition('"')[0])
  path = pathlib.Path(path)
  path.write_text(
      f'<svg xmlns="http://www.w3.org/2000/svg" width="{width + 40}" height="{height + 32}" '
      f'viewBox="-20 -16 {width + 40} {height + 32}"><style>{CSS}</style>'
      f'<rect class="paper" x="-20" y="-16" width="100%" height="100%"/>\n{inner}</svg>\n',
      encoding='utf-8', errors='replace')
  return path


def curve(series: Series, title: str = '', xlabel: str = 'step', ylabel: str = '', *,
          width: int = 400, height: int = 160, log_x: bool = False, expectation: Any = None,
          marks: bool = False) -> str:
  """An SVG figure of one quantity, for a page that holds `CSS`.

  A long series is a pale raw line under a smoothed one, in limits that may leave a far tail out
  (a note says so); a short one, or any if `marks`, has a mark a point. Names stand at the lines'
  ends. Values that are not finite are left out and counted in a note.

  Args:
    expectation: a number or points (x, y) are a dashed line, points (x, low, high) a band.
    log_x: on a log axis, 0 stands one octave left of the smallest x.
    width: of the figure, in pixels.
    height: of the data's rectangle, in pixels.
  """
  lines = {name: thin([(*point, 0)[:3] for point in points if _good(point)])
           for name, points in series.items() if any(map(_good, points))}
  xs = sorted({x for points in lines.values() for x, *_ in points}) or [0, 1]
  if isinstance(expectation, (int, float)):
    expectation = [(xs[0], expectation), (xs[-1], expectation)]
  xs = sorted({*xs, *(point[0] for point in expectation or ())})
  y_limits = _y_limits(lines, expectation or (), clip=not (marks or log_x))
  x_ticks = axis.log_ticks(xs) if log_x else axis.ticks(xs[0], xs[-1], count=width / 90)
  y_ticks = axis.ticks(*y_limits, count=height / 32)
  legend = _legend(lines, expectation, marks)
  head, notes = textwrap.wrap(title, width // 8), _notes(series, lines, y_limits, xlabel)
  left = 10 + 7 * max(map(len, axis.tick_texts(y_ticks)))
  right = width - 10 - int(7.8 * max(len(name) for _, _, name in legend))
  top = 10 + 18 * len(head) + 16 * bool(ylabel)
  place = axis.log_place(xs) if log_x else float
  first, last = place(xs[0]), place(xs[-1])
  margin = .03 * (last - first) * marks or (last == first) * .5
  frame = Frame(left, right, top, top + height, (first - margin, last + margin), y_limits, place)
  total = frame.bottom + 42 + 15 * len(notes)
  words = [*((14 + 18 * i, 'ink title', line) for i, line in enumerate(head)),
           (13 + 18 * len(head), 'soft', ylabel),
           *((frame.bottom + 50 + 15 * i, 'soft', note) for i, note in enumerate(notes))]
  texts = ''.join(f'<text y="{y}" class="{kind}">{text(line)}</text>' for y, kind, line in words)
  said = [title, ylabel, f'against {xlabel}.', 'At the end:', *(name for *_, name in legend)]
  return (f'<svg xmlns="http://www.w3.org/2000/svg" class="w{width}" width="{width}" '
          f'height="{total}" viewBox="0 0 {width} {total}" role="img" overflow="visible" '
          f'aria-label="{text(" ".join(filter(None, said)))}">{texts}'
          f'{_axes(frame, x_ticks, y_ticks, xlabel, log_x)}{_expectation(frame, expectation)}'
          f'{_lines(frame, lines, marks)}{_names(frame, legend)}</svg>')


def _y_limits(lines: Series, expectation: Sequence[Sequence[float]],
              clip: bool) -> tuple[float, float]:
  ys = [end for points in lines.values() for _, y, error in points
        for end in {y - error, y + error}] or [0, 1]
  low, high = axis.clipped(ys) if clip else (min(ys), max(ys))
  expected = [y for _, *bounds in expectation for y in bounds]
  return axis.padded(min([low, *expected]), max([high, *expected]))


def _axes(frame: Frame, x_ticks: Sequence[float], y_ticks: Sequence[float], xlabel: str,
          log_x: bool) -> str:
  left, right, _, bottom, *_ = frame
  x_texts = [axis.tick_texts([x])[0] for x in x_ticks] if log_x else axis.tick_texts(x_ticks)
  parts = [f'<path class="grid" d="M{left} {frame.y(y):.1f}H{right}"/>'
           f'<text class="soft" text-anchor="end" x="{left - 8}" y="{frame.y(y) + 4:.1f}">{label}'
           '</text>' for y, label in zip(y_ticks, axis.tick_texts(y_ticks))]
  parts += [f'<path class="axis" d="M{frame.x(x):.1f} {bottom}v5"/>'
            f'<text class="soft" text-anchor="middle" x="{frame.x(x):.1f}" y="{bottom + 19}">'
            f'{label}</text>' for x, label in zip(x_ticks, x_texts)]
  return (f'{"".join(parts)}<path class="axis" d="M{left} {bottom}H{right}"/><text class="soft" '
          f'text-anchor="end" x="{right}" y="{bottom + 35}">{text(xlabel)}</text>')


def _expectation(frame: Frame, points: Sequence[Sequence[float]] | None) -> str:
  there = [(frame.x(x), frame.y(bounds[0])) for x, *bounds in points or ()]
  back = [(frame.x(x), frame.y(bounds[-1])) for x, *bounds in points or ()][::-1]
  return (there and f'<path class="guess" d="{_path(there)}"/>' if there == back[::-1]
          else f'<path class="band" d="{_path(there + back)}z"/>') or ''


def _lines(frame: Frame, lines: Series, marks: bool) -> str:
  left, right, top, bottom, _, (low, high), _ = frame
  inside, above = [], []  # an inner svg clips the lines, the marks may stand on its edge
  for i, points in enumerate(lines.values()):
    at = [(frame.x(x), frame.y(y)) for x, y, _ in points]
    if dense := not marks and len(points) > FEW:
      inside.append(f'<path class="raw c{i % 5}" d="{_path(at)}"/>')
      at = list(zip([x for x, _ in at], smooth([y for _, y in at])))
    inside.append(f'<path class="line c{i % 5}" d="{_path(at)}"/>')
    for (x, y), (value_x, value, error) in zip(at, () if dense else points):
      if low <= value <= high:
        reach = frame.y(0) - frame.y(error)
        bar = f'<path class="line" d="M{x:.1f} {y - reach:.1f}v{2 * reach:.1f}"/>' * bool(error)
        said = f'{show(value_x)}: {show(value)}' + f' ± {show(error)}' * bool(error)
        above.append(f'<g class="c{i % 5}"><title>{said}</title>{bar}'
                     f'<path class="mark" d="M{x:.1f} {y:.1f}{SHAPES[i % 5]}"/></g>')
  box = f'{right - left}" height="{bottom - top}"'
  return (f'<svg x="{left}" y="{top}" width="{box} viewBox="{left} {top} {right - left} '
          f'{bottom - top}">{"".join(inside)}</svg>{"".join(above)}')


def _legend(lines: Series, expectation: Any, marks: bool) -> list[tuple[float, str, str]]:
  """(y, class, text) for each line's end; a run's curves say their last (smoothed) value."""
  legend = []
  for i, (name, points) in enumerate(lines.items()):
    values = [y for _, y, _ in points]
    end = values[-1] if marks or len(values) <= FEW else smooth(values)[-1]
    words = [name] * (marks or len(lines) > 1) + [show(end)] * (not marks)
    legend.append((values[-1] if marks else end, f'end c{i % 5}', ' '.join(words)))
  if expectation:
    legend.append((statistics.fmean(expectation[-1][1:]), 'soft', 'expected'))
  return legend or [(0, 'soft', 'no data')]


def _names(frame: Frame, legend: Sequence[tuple[float, str, str]]) -> str:
  """The legend at the right edge, its lines moved apart where they would overlap."""
  ordered = sorted(legend, reverse=True)
  heights = [min(max(frame.y(y), frame.top), frame.bottom) for y, _, _ in ordered]
  for i in range(1, len(heights)):
    heights[i] = max(heights[i], heights[i - 1] + 15)
  for i, height in enumerate(reversed(heights)):
    heights[-1 - i] = min(height, frame.bottom - 15 * i)
  return ''.join(f'<text class="{kind}" x="{frame.right + 10}" y="{y + 4:.1f}">{text(name)}</text>'
                 for y, (_, kind, name) in zip(heights, ordered))


def _notes(series: Series, lines: Series, limits: tuple[float, float], xlabel: str) -> list[str]:
  notes = []
  ys, (low, high) = [point[1] for points in lines.values() for point in points], limits
  if above := [y for y in ys if y > high]:
    notes.append(f'Not shown: {len(above)} above {show(high)}, up to {show(max(above))}')
  if below := [y for y in ys if y < low]:
    notes.append(f'Not shown: {len(below)} below {show(low)}, down to {show(min(below))}')
  points = [point for points in series.values() for point in points]
  if bad := [point[0] for point in points if not _good(point)]:
    notes.append(f'Not finite: {len(bad)}, the first at {xlabel} {show(min(bad))}')
  if (rows := max(map(len, series.values()), default=0)) > MOST:
    notes.append(f'A point is the mean of {math.ceil(rows / MOST)} rows')
  if any(len(point) > 2 for point in points):
    notes.append('Bars: ± 1 standard error')
  return notes


def thin(points: Sequence[Sequence[float]], most: int = MOST) -> Sequence[Sequence[float]]:
  """At most `most` points: the means of equal windows, each put at its window's last x."""
  size = math.ceil(len(points) / most)
  return points if size <= 1 else [
      (points[end - 1][0], statistics.fmean(y for _, y, _ in points[max(0, end - size):end]), 0)
      for end in range(len(points), 0, -size)][::-1]


def smooth(values: Sequence[float]) -> list[float]:
  """Running means of each window's middle half, which a spike does not move.

  A window is about a thirtieth of the series; a series without noise is returned as it is.
  """
  turns = sum((b - a) * (c - b) < 0 for a, b, c in zip(values, values[1:], values[2:]))
  reach, made = len(values) // 60 + 1 if turns > len(values) / 10 else 0, []
  for i in range(len(values)):
    window = sorted(values[i - min(i, reach):i + min(i, reach) + 1])
    quarter = len(window) // 4
    made.append(statistics.fmean(window[quarter:len(window) - quarter]))
  return made


def show(value: Any) -> str:
  """A number for people: four digits, or all of a whole one, thousands parted."""
  if isinstance(value, float):
    return f'{value:,.0f}' if 1000 <= abs(value) < 1e15 else f'{value:.4g}'
  return '–' if value is None else f'{value:,}' if type(value) is int else str(value)


def text(value: Any) -> str:
  """Any text made safe inside HTML and XML; control characters are made visible."""
  return html.escape(str(value)).translate(CONTROLS)


def _good(point: Sequence[float]) -> bool:
  """Finite, and small enough to compute with."""
  return abs(point[0]) < 1e30 and abs(point[1]) < 1e30


def _path(points: Sequence[tuple[float, float]]) -> str:
  return 'M' + 'L'.join(f'{x:.1f} {y:.1f}' for x, y in points)
