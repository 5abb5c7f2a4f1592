"""Figures as SVG text: the curves of a run, the points and error bars of a claim."""

import html
import math
import pathlib
import textwrap
from typing import Any, Callable, Mapping, Sequence

import numpy as np

from nanollm_jax.metrics import show

Series = Mapping[str, Sequence[Sequence[float]]]  # name: points (x, y) or (x, y, standard error)
FEW = 40  # so many points have marks; more are a pale raw line under a smoothed one
COLOURS = ('#0067a5', '#bb4300', '#00775a', '#9c3f7c', '#7d6100')  # after Okabe and Ito, darkened
SHAPES = ('m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0', 'm-2.5-2.5h5v5h-5z', 'm0-3.5l3.5 3.5l-3.5 3.5l-3.5'
          '-3.5z', 'm0-3.5l3.5 6h-7z', 'm0 3.5l3.5-6h-7z')  # about a point, as parts of SVG paths
SOFT, GREY = '#5c636d', '#888888'
LINE, LETTER = 15, 6.4  # pixels from one line of text to the next, and from one letter
CONTROLS = {code: 0x2400 + code for code in range(32) if code not in (9, 10)}
CSS = '''svg text{font-family:system-ui,"Segoe UI",Roboto,sans-serif}
@media(prefers-color-scheme:dark){svg[role]{filter:invert(.91) hue-rotate(180deg)}}
'''


def picture(path: str | pathlib.Path, title: str, xlabel: str, ylabel: str, series: Series,
            **options: Any) -> pathlib.Path:
  """Writes a standalone SVG with a mark a point; the arguments are those of `curve`."""
  figure = curve(series, title, xlabel, ylabel, width=640, height=400, marks=True, **options)
  paper = f'><style>{CSS}</style><rect width="100%" height="100%" fill="#fff"/>'
  path = pathlib.Path(path)
  path.write_text(figure.replace('>', paper, 1), encoding='utf-8')
  return path


def curve(series: Series, title: str = '', xlabel: str = 'step', ylabel: str = '', *,
          width: int = 400, height: int = 260, log_x: bool = False,
          expectation: float | None = None, marks: bool = False) -> str:
  """An SVG figure of one quantity, for a page that holds `CSS`.

  A long series is a pale raw line under a smoothed one, in limits that may leave a far tail out
  (a note says so); a short one, or any if `marks`, has a mark a point. Values that are not
  finite are left out and counted in a note.

  Args:
    log_x: on the log axis, 0 stands one octave left of the smallest x.
    expectation: is a dashed line.
    width, height: of the figure, in pixels.
  """
  lines = {name: np.array([(*point, 0)[:3] for point in points if finite(point)], float)
           for name, points in series.items() if any(map(finite, points))}
  every = np.concatenate([np.zeros((0, 3)), *lines.values()])
  last = lambda points: (smooth(points) if len(points) > FEW else points)[-1, 1]
  names = [' '.join([name] * (marks or len(lines) > 1) + [show(last(points))] * (not marks))
           for name, points in lines.items()] + ['expected'] * (expectation is not None)
  legend = [textwrap.wrap(plain(name), 20) for name in names] if lines else []
  if (over := len(legend) - height // (LINE + 3)) > 0:
    legend = [*legend[:-over - 1], [f'and {over + 1} more']]
  titles = textwrap.wrap(plain(title), width // 9)
  y_range, notes = _y_range(every, expectation, clip=not marks)
  if bad := [x for points in series.values() for x, *rest in points if not finite((x, *rest))]:
    notes.append(f'Not finite: {len(bad)}, the first at {plain(xlabel)} {show(min(bad))}')
  if every[:, 2].any():
    notes.append('Bars: ± 1 standard error')

  y_ticks = _ticks(*y_range, height // 40)
  left = 14 + LETTER * max(len(number(y)) for y in y_ticks)
  right = width - 8 - (LETTER * max(map(len, sum(legend, [])), default=-3) + 3 * LETTER)
  top, bottom = 14 + LINE * (len(titles) + bool(ylabel)), height - 26 - LINE * (1 + len(notes))
  x_ticks, along = _x_axis(every[:, 0], log_x, int(right - left) // 50)
  place_x = lambda x: left + 8 + (right - left - 16) * along(x)
  place_y = lambda y: bottom - (bottom - top) * (y - y_range[0]) / (y_range[1] - y_range[0])

  parts = [_words(6, 16, titles, colour='#1d2127', style=' font-weight="bold" font-size="13"'),
           _words(6, 16 + LINE * len(titles), [ylabel]), _path(f'M{left},{bottom}H{right}')]
  for y in y_ticks:
    parts.append(_path(f'M{left},{place_y(y):.1f}H{right}', opacity=.25))
    parts.append(_words(left - 5, place_y(y) + 4, [number(y)], 'end'))
  for x in x_ticks:
    parts.append(_path(f'M{place_x(x):.1f},{bottom}v4'))
    parts.append(_words(place_x(x), bottom + LINE + 2, [number(x)], 'middle'))
  parts.append(_words((left + right) / 2, bottom + 2 * LINE + 4, [xlabel, *notes],
                      'middle'))
  inside = f'y="{top}" height="{bottom - top}" viewBox="0 {top} {width} {bottom - top}"'
  parts.append(f'<svg {inside} width="{width}">{_lines(lines, marks, place_x, place_y)}')
  if expectation is not None:
    parts.append(_path(f'M{left},{place_y(expectation):.1f}H{right}', dashes='6 4'))
  parts.append('</svg>' + _legend(legend, len(lines), right + 6, (top + bottom) / 2))
  if not lines:
    parts.append(_words((left + right) / 2, (top + bottom) / 2, ['no data']))
  said = [plain(title), plain(ylabel), f'against {plain(xlabel)}. At the end:', *map(plain, names)]
  return (f'<svg role="img" aria-label="{text(" ".join(" ".join(said).split()))}" '
          f'xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
          f'viewBox="0 0 {width} {height}" font-size="11">{"".join(parts)}</svg>')


def _x_axis(xs: np.ndarray, log: bool, most: int) -> tuple[Sequence[float], Callable]:
  """(where the ticks are, what places an x between 0 and 1)."""
  least = min([x for x in xs if x > 0], default=1)
  scale = (lambda x: np.log2(np.maximum(x, least / 2))) if log else np.asarray
  low, high = (scale(xs.min()), scale(xs.max())) if len(xs) else (0, 1)
  if high - low <= 1e-9 * max(abs(low), abs(high)):
    low, high = low - max(abs(low), 1) / 2, high + max(abs(low), 1) / 2
  along = lambda x: (scale(x) - low) / (high - low)
  if log:
    ticks = sorted(set(xs.tolist()))
    if len(ticks) > 10 and high > math.log2(least):
      ticks = [0] * (ticks[0] <= 0) + [2.0**x for x in _ticks(math.log2(least), high, most)]
    return ticks, along
  return _ticks(low, high, most), along


def _y_range(points: np.ndarray, expectation: float | None,
             clip: bool) -> tuple[tuple[float, float], list[str]]:
  """The limits of the axis; if `clip`, without what lies further from the inner 90% than these
  span, and notes that say so."""
  ys, errors = points[:, 1], points[:, 2]
  least, most = min(ys, default=0.), max(ys, default=1.)
  low, high = min(ys - errors, default=least), max(ys + errors, default=most)
  if expectation is not None:
    low, high = min(low, expectation), max(high, expectation)
  inner = np.quantile(ys, (.05, .95)) if clip and len(ys) >= 12 else (0, 0)
  notes = []
  if span := inner[1] - inner[0]:
    low, high = max(least, inner[0] - span), min(most, inner[1] + span)
  pad = (high - low) / 12 if high - low > 1e-9 * max(abs(low), abs(high)) else max(abs(low), 1) / 2
  low, high = low - pad, high + pad
  if len(above := ys[ys > high]):
    notes.append(f'Not shown: {len(above)} above {show(high)}, up to {show(most)}')
  if len(below := ys[ys < low]):
    notes.append(f'Not shown: {len(below)} below {show(low)}, down to {show(least)}')
  return (low, high), notes


def _ticks(low: float, high: float, most: int) -> list[float]:
  """The round numbers in [low, high], about `most` of them at most: 1, 2 or 5 times 10^n apart."""
  least = (high - low) / max(most, 1)
  unit = 10.0 ** math.floor(math.log10(least))
  apart = unit * next(times for times in (1, 2, 5, 10) if unit * times >= least * (1 - 1e-9))
  first, last = math.ceil(low / apart - 1e-9), math.floor(high / apart + 1e-9)
  return [i * apart for i in range(first, last + 1)]


def _lines(lines: Mapping[str, np.ndarray], marks: bool, place_x: Callable,
           place_y: Callable) -> str:
  """Each series: its line, its marks and its error bars."""
  drawn = []
  for i, points in enumerate(lines.values()):
    colour, shape = COLOURS[i % 5], SHAPES[i % 5]
    at = lambda xy: f'{place_x(xy[0]):.1f},{place_y(xy[1]):.1f}'
    if not marks and len(points) > FEW:
      drawn.append(_path('M' + 'L'.join(map(at, thin(points))), colour, width=.8, opacity=.35))
      points, shape = smooth(points), ''
    drawn.append(_path('M' + 'L'.join(map(at, points)), colour, width=1.6))
    bars = ''.join(f'M{at((x, y - e))}V{place_y(y + e):.1f}' for x, y, e in points if e)
    drawn.append(_path(bars, colour, width=1.6))
    drawn.append(_path(''.join(f'M{at(xy)}{shape}' for xy in points) * bool(shape), colour,
                       fill=colour))
  return ''.join(drawn)


def _legend(names: Sequence[Sequence[str]], series: int, x: float, middle: float) -> str:
  """Names beside the plot, each with its mark; one after the series is the expectation's."""
  y, drawn = middle - LINE * sum(map(len, names)) / 2, []
  for i, words in enumerate(names):
    colour = COLOURS[i % 5] if i < series else SOFT
    mark = _path(f'M{x + 4:.1f},{y - 4:.1f}{SHAPES[i % 5]}', colour, fill=colour)
    drawn.append(mark if i < series else _path(f'M{x:.1f},{y - 4:.1f}h9', dashes='3 2'))
    drawn.append(_words(x + 13, y, words, colour=colour))
    y += LINE * len(words) + 3
  return ''.join(drawn)


def _path(data: str, colour: str = GREY, *, width: float = 1, opacity: float = 1,
          dashes: str = 'none', fill: str = 'none') -> str:
  return (f'<path d="{data}" stroke="{colour}" stroke-width="{width}" opacity="{opacity}" '
          f'stroke-dasharray="{dashes}" fill="{fill}"/>') * bool(data)


def _words(x: float, y: float, lines: Sequence[str], anchor: str = 'start', *,
           colour: str = SOFT, style: str = '') -> str:
  """Lines of text, one under the other; (x, y) is the foot of the first."""
  spans = ''.join(f'<tspan x="{x:.1f}" y="{y + LINE * i:.1f}">{text(line)}</tspan>'
                  for i, line in enumerate(lines))
  return f'<text fill="{colour}" text-anchor="{anchor}"{style}>{spans}</text>'


def number(value: float) -> str:
  return f'{value:,.10g}'


def thin(points: np.ndarray) -> np.ndarray:
  """At most 1,000 of them: the lowest and the highest of each of 500 equal windows."""
  if len(points) <= 1000:
    return points
  windows = np.array_split(points, 500)
  ends = [sorted({window[:, 1].argmin(), window[:, 1].argmax()}) for window in windows]
  return np.concatenate([window[i] for window, i in zip(windows, ends)])


def smooth(points: np.ndarray) -> np.ndarray:
  """The medians of at most 60 equal windows, which a spike does not move."""
  windows = np.array_split(points, min(60, len(points) // 4))
  return np.array([np.median(window, axis=0) for window in windows])


def finite(point: Sequence[float]) -> bool:
  """Finite, and small enough to compute with."""
  return all(abs(value) < 1e30 for value in point)


def plain(value: Any) -> str:
  """Any text as UTF-8 can hold it, its control characters made visible."""
  return str(value).translate(CONTROLS).encode(errors='replace').decode()


def text(value: Any) -> str:
  """Any text made safe inside HTML and XML."""
  return html.escape(plain(value))
