"""Figures as SVG text, drawn by matplotlib: curves of a run, points and error bars of a claim."""

import html
import io
import logging
import pathlib
import re
import textwrap
import warnings
from typing import Any, Mapping, Sequence

import numpy as np

from nanollm_jax.metrics import show

Series = Mapping[str, Sequence[Sequence[float]]]  # name: points (x, y) or (x, y, standard error)
FEW = 40  # so many points have marks; more are a pale raw line under a smoothed one
COLOURS = ('#0067a5', '#bb4300', '#00775a', '#9c3f7c', '#7d6100')  # after Okabe and Ito, darkened
CONTROLS = {code: 0x2400 + code for code in range(32) if code not in (9, 10)}
CSS = '''svg text{font-family:system-ui,"Segoe UI",Roboto,sans-serif!important}
@media(prefers-color-scheme:dark){svg{filter:invert(.91) hue-rotate(180deg)}}
'''
STYLE = pathlib.Path(__file__).with_name('figure.mplstyle')


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
  logging.getLogger('matplotlib').setLevel(logging.ERROR)  # it tells of its font cache otherwise
  import matplotlib.style
  from matplotlib.figure import Figure
  lines = {plain(name): np.array([(*point, 0)[:3] for point in points if finite(point)], float)
           for name, points in series.items() if any(map(finite, points))}
  title, xlabel, ylabel = plain(title), plain(xlabel), plain(ylabel)
  style = [STYLE, {'svg.hashsalt': f'{title} {width}'}]
  with matplotlib.style.context(style, after_reset=True), warnings.catch_warnings():
    warnings.simplefilter('ignore')  # of letters that its fonts lack: a browser's have them
    figure = Figure((width / 72, height / 72), layout='constrained')
    figure.suptitle(textwrap.fill(title, width // 9), x=.01, ha='left')
    axes = figure.add_subplot(title=ylabel)
    if log_x:
      _log_axis(axes, sorted({x for points in lines.values() for x in points[:, 0]}))
    _lines(axes, lines, marks)
    if expectation is not None:
      axes.axhline(expectation, color='#888', linestyle='--', label='expected')
    for axis in (axes.xaxis, axes.yaxis):
      axis.set_major_formatter('{x:,.10g}')
    notes = [] if marks else _clip(axes, [y for points in lines.values() for y in points[:, 1]])
    if bad := [x for points in series.values() for x, *rest in points if not finite((x, *rest))]:
      notes.append(f'Not finite: {len(bad)}, the first at {xlabel} {show(min(bad))}')
    if any(points[:, 2].any() for points in lines.values()):
      notes.append('Bars: ± 1 standard error')
    axes.set_xlabel('\n'.join([xlabel, *notes]))
    _, names = axes.get_legend_handles_labels()
    figure.legend(loc='outside right center') if lines else axes.text(.5, .5, 'no data')
    svg = io.StringIO()
    figure.savefig(svg, format='svg', metadata=dict.fromkeys(('Creator', 'Date', 'Format', 'Type')))
  said = ' '.join([title, ylabel, f'against {xlabel}. At the end:', *names]).split()
  svg = re.sub(r' id="[a-z0-9.]+_\d+"', '', svg.getvalue().partition('<svg ')[2])
  return f'<svg role="img" aria-label="{text(" ".join(said))}" {svg}'


def _log_axis(axes: Any, xs: Sequence[float]) -> None:
  axes.set_xscale('symlog', base=2, linscale=.5,
                  linthresh=min([x for x in xs if x > 0], default=1))
  if len(xs) <= 10:
    axes.set_xticks(xs)


def _lines(axes: Any, lines: Mapping[str, np.ndarray], marks: bool) -> None:
  """Draws each series; a run's curves say their last (smoothed) value, a picture's their name."""
  for i, (name, points) in enumerate(lines.items()):
    colour, mark = COLOURS[i % 5], 'osD^v'[i % 5]
    if not marks and len(points) > FEW:
      axes.plot(*points.T[:2], color=colour, linewidth=.8, alpha=.35)
      points, mark = smooth(points), ''
    x, y, error = points.T
    words = [name] * (marks or len(lines) > 1) + [show(y[-1])] * (not marks)
    axes.errorbar(x, y, error if error.any() else None, color=colour, marker=mark,
                  label=textwrap.fill(' '.join(words), 20))


def _clip(axes: Any, ys: Sequence[float]) -> list[str]:
  """Leaves out what lies further from the inner 90% than these span, and says so."""
  low, high = np.quantile(ys, (.05, .95)) if len(ys) >= 12 else (0, 0)
  span, notes = high - low, []
  if span:
    low, high = max(min(ys), low - span) - span / 9, min(max(ys), high + span) + span / 9
    axes.set_ylim(low, high)
    if above := [y for y in ys if y > high]:
      notes.append(f'Not shown: {len(above)} above {show(high)}, up to {show(max(above))}')
    if below := [y for y in ys if y < low]:
      notes.append(f'Not shown: {len(below)} below {show(low)}, down to {show(min(below))}')
  return notes


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
