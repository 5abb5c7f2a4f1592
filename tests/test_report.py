"""The page says what the run wrote, whatever it wrote; pictures put points where they belong."""

import html.parser
import json
import math
import pathlib
import re
import xml.etree.ElementTree as xml

import numpy as np
import pytest

from nanollm_jax import report
from nanollm_jax.report import figure

SVG = '{http://www.w3.org/2000/svg}'
HOSTILE = '</i><script>alert("x")</script>&amp;<img src=http://evil.example/x>\x00\ud800"\''


class Page(html.parser.HTMLParser):
  """Reads a page; fails on a tag that is not closed, keeps the tags, attributes and text."""

  def __init__(self, page: str):
    super().__init__()
    self.open, self.tags, self.attributes, self.said = [], [], [], []
    self.feed(page)
    self.close()
    assert not self.open, self.open

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += attrs
    if tag != 'meta':
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += attrs

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.said.append(data)


def lines(path: pathlib.Path, rows) -> None:
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))


@pytest.fixture
def workdir(tmp_path):
  """A run of 200 steps, with validation, spikes, samples and flags."""
  rows = []
  for step in range(1, 201):
    noise = .01 * (-1) ** step
    rows.append(dict(step=step, loss=9 / step + 2 + noise, bits_per_byte=3 / step + 1 + noise,
                     grad_norm=1.5 + noise, tokens_per_second=1000. + step, step_seconds=.5))
    if step % 50 == 0:
      best = 1.23456 if step == 150 else 1.34567
      rows.append({'step': step, 'validation/bits_per_byte': best, 'validation/loss': 3.})
  lines(tmp_path / 'metrics.jsonl', rows)
  lines(tmp_path / 'samples.jsonl', [
      dict(step=step, name='sample', prompt='Once upon', text=f' a time {step}')
      for step in range(20, 201, 20)])
  (tmp_path / 'run.flags').write_text(
      '--workdir=runs/x\n--model.depth=8\n--nomodel.tie\n--model.rope\n--nocheck\n')
  (tmp_path / 'environment.json').write_text(json.dumps(dict(jax='0.7', parameters=12_345_678)))
  return tmp_path


def test_numbers_of_the_header(workdir):
  page = ' '.join(Page(report.write(workdir, 'A run').read_text()).said)
  for said in ('final validation 1.3457', 'best validation 1.2346 at step 150', 'steps 200',
               'tokens per second 1,100', 'training time 0:01:40', 'parameters 12,345,678'):
    assert said in re.sub(r'\s+', ' ', page)


def test_train_and_validation_share_a_figure_and_bits_per_byte_come_first(workdir):
  page = report.write(workdir).read_text()
  labels = re.findall('aria-label="([^"]*against[^"]*)"', page)
  assert labels[0].startswith('Bits per byte against step.')
  assert 'validation 1.346' in labels[0] and 'train 1.0' in labels[0]
  assert [label.split(' against')[0] for label in labels] == [
      'Bits per byte', 'Loss nats per token', 'Grad norm', 'Throughput tokens per second']
  assert 'Constant: step time 0.5.' in page


def test_samples_show_first_middle_last_and_fold_all(workdir):
  page = report.write(workdir).read_text()
  before, folded = page.split('<section><h2>Samples')[1].split('<details>')
  assert re.findall(r'</i> a time (\d+)', before) == ['20', '120', '200']
  assert re.findall(r'</i> a time (\d+)', folded) == [str(step) for step in range(20, 201, 20)]
  assert '<i class="soft">Once upon</i>' in before


def test_flags_stand_there_as_they_can_be_given_again(workdir):
  said = Page(report.write(workdir).read_text()).said
  assert (workdir / 'run.flags').read_text() in said


def test_broken_files_are_left_out(workdir):
  middle = lambda page: page.split('<h2>Curves')[1].split('<h2>Config')[0]
  whole = report.write(workdir).read_text()
  rows = (workdir / 'metrics.jsonl').read_bytes()
  for broken in (b'', b'{"jax": "0.', b'[1]', b'null', b'\xff\xfe', b'[' * 99999):
    bad = broken + b'\n{"step": null}\n{"loss": 1}\n' + rows + broken
    (workdir / 'metrics.jsonl').write_bytes(bad)
    (workdir / 'environment.json').write_bytes(broken)
    (workdir / 'run.flags').write_bytes(b'\xff')
    page = report.write(workdir).read_text()
    assert middle(page) == middle(whole) and 'Environment' not in page


def test_hostile_text_is_escaped_everywhere(tmp_path):
  lines(tmp_path / 'samples.jsonl', [
      dict(step=step, name=HOSTILE, prompt=prompt, text=HOSTILE + '\n' * 50 + HOSTILE * 20)
      for step in range(5) for prompt in (HOSTILE, HOSTILE * 3)])
  lines(tmp_path / 'metrics.jsonl', [{'step': 1, HOSTILE: 2.}, {'step': 2, HOSTILE: 3.}])
  (tmp_path / 'run.flags').write_text(f'--a.{HOSTILE}={HOSTILE}\n', errors='replace')
  (tmp_path / 'environment.json').write_text(json.dumps({HOSTILE: HOSTILE}))
  page = Page(report.write(tmp_path, HOSTILE).read_text())
  assert not {'script', 'img', 'iframe', 'link', 'object'} & set(page.tags)
  assert 'alert("x")' in ''.join(page.said) and '\x00' not in ''.join(page.said)


def test_nothing_is_loaded_from_elsewhere(workdir):
  page = Page(report.write(workdir).read_text())
  assert not {'src', 'href', 'srcset', 'data', 'action'} & {name for name, _ in page.attributes}
  values = ' '.join(value or '' for name, value in page.attributes if 'xmlns' not in name)
  assert 'http:' not in values and 'https:' not in values and 'url(' not in ''.join(page.said)


def test_an_empty_workdir_has_a_page_without_sections(tmp_path):
  page = Page(report.write(tmp_path, 'Nothing yet').read_text())
  assert 'h1' in page.tags and not {'h2', 'svg', 'dl'} & set(page.tags)


def test_nan_inf_null_and_half_lines_are_tolerated(tmp_path):
  bad = [math.nan, math.inf, -math.inf, None, 'text', 1e300, True]
  lines(tmp_path / 'metrics.jsonl', [
      dict(step=i, loss=bad[i % 7] if i % 2 else 2 + i / 9, step_seconds=math.nan, only=math.nan)
      for i in range(60)])
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 61, "lo')
  page = report.write(tmp_path).read_text()
  Page(page)
  drawn = ''.join(re.findall(' d="([^"]*)"', page))
  assert drawn and not re.search('nan|inf|e[+]', drawn)
  assert 'Not finite: 17, the first at step 1<' in page


def test_a_run_of_one_step_has_a_page(tmp_path):
  lines(tmp_path / 'metrics.jsonl', [dict(step=1, loss=2.5, tokens_per_second=3., step_seconds=.1)])
  page = report.write(tmp_path).read_text()
  assert 'Constant: loss 2.5' in page and 'final train <b>2.5000' in re.sub('</dt><dd>', ' ', page)


def test_training_time_counts_the_steps_between_rows(tmp_path):
  lines(tmp_path / 'metrics.jsonl', [dict(step=step, step_seconds=.5) for step in (10, 20, 40)])
  assert 'training time 0:00:20' in ' '.join(Page(report.write(tmp_path).read_text()).said)


def test_a_last_value_that_is_not_finite_is_shown_as_such(tmp_path):
  lines(tmp_path / 'metrics.jsonl', [dict(step=1, loss=2.5), dict(step=2, loss=math.nan)])
  page = ' '.join(Page(report.write(tmp_path).read_text()).said)
  assert 'final train nan' in page and 'best train 2.5000' in page


def test_smoothing_passes_noise_and_spikes_over_and_leaves_a_ramp_alone():
  noisy = np.array([(i, 5 + (-1) ** i * (i % 7), 0) for i in range(600)], float)
  noisy[300, 1] = 1e6
  smooth = figure.smooth(noisy)
  assert len(smooth) == 60 and np.abs(smooth[:, 1] - 5).max() < 2
  ramp = figure.smooth(np.array([(i, i / 7, 0) for i in range(600)]))
  np.testing.assert_allclose(ramp[:, 1], ramp[:, 0] / 7)


def test_a_far_tail_is_left_outside_and_said():
  svg = report.curve({'train': [(i, 1000. if i < 2 else 2 + (-1) ** i / 9) for i in range(100)]})
  assert 'Not shown: 2 above 2.37, up to 1,000' in svg
  assert 'Not shown' not in report.curve({'train': [(i, i % 2) for i in range(100)]})


def test_a_figure_is_always_the_same_and_shares_no_id_with_another():
  series = {'train': [(1, 2.), (2, 3.)]}
  assert report.curve(series, 'One') == report.curve(series, 'One')
  assert not re.search(' id=|url', report.curve(series, 'One'))


def test_a_curve_of_many_points_is_drawn_with_few_and_loses_no_spike():
  points = np.array([(i, i % 3, 0) for i in range(30_000)], float)
  points[17_000, 1], points[17_001, 1] = 90, -90
  thinned = figure.thin(points)
  assert len(thinned) == 1000 and set(thinned[:, 1]) == {0, 2, 90, -90}
  assert (np.diff(thinned[:, 0]) > 0).all()
  assert len(report.curve({'loss': points})) < 40_000


@pytest.mark.parametrize('low, high, most, want', [
    (0, 1, 5, [0, .2, .4, .6, .8, 1]), (-.4, 2.1, 5, [0, .5, 1, 1.5, 2]),
    (12_001, 12_029, 3, [12_010, 12_020]), (.07, .08, 2, [.07, .075, .08]), (3, 1003, 1, [1000])])
def test_ticks_are_round_numbers(low, high, most, want):
  assert figure._ticks(low, high, most) == pytest.approx(want)


def marks(svg: xml.Element) -> list[tuple[float, float]]:
  """Where the marks of the first series are; the last one is the legend's."""
  paths = [path.get('d') for path in svg.iter(f'{SVG}path')
           if path.get('fill') == figure.COLOURS[0]]
  starts = re.findall(r'M([\d.]+),([\d.]+)', ''.join(paths))
  assert ''.join(f'M{x},{y}{figure.SHAPES[0]}' for x, y in starts) == ''.join(paths)
  return [(float(x), float(y)) for x, y in starts]


def tick_places(svg: xml.Element, anchor: str, which: str) -> dict[float, float]:
  """The y of a number at the left is its foot's, 4 pixels below the middle."""
  return {float(word[0].text.replace(',', '')): float(word[0].get(which)) - 4 * (which == 'y')
          for word in svg.iter(f'{SVG}text') if word.get('text-anchor') == anchor and len(word)
          and re.fullmatch(r'[\d.,]+', word[0].text)}


@pytest.mark.parametrize('log_x', [False, True])
def test_picture_puts_points_at_their_ticks(tmp_path, log_x):
  xs = [0, 1, 2, 4, 8, 16, 32, 64] if log_x else [1000, 2000, 3000]
  ys = [.2 * (i % 5) for i in range(len(xs))]
  path = report.picture(tmp_path / 'a.svg', 'A claim <b>& $x$', 'copies', 'share', {
      'recalled & more': list(zip(xs, ys))}, log_x=log_x, expectation=.8)
  svg = xml.parse(path).getroot()
  x_places, y_places = tick_places(svg, 'middle', 'x'), tick_places(svg, 'end', 'y')
  assert len(marks(svg)) == len(xs) + 1  # and one in the legend
  unit, base = y_places[0.] - y_places[.8], marks(svg)[0][1]
  for (x, y), at_x, at_y in zip(marks(svg), xs, ys):
    assert x == pytest.approx(x_places[at_x], abs=.2)
    assert base - y == pytest.approx(unit * at_y / .8, abs=.2)
  gaps = np.diff([x_places[x] for x in xs])
  assert max(gaps) - min(gaps) < .3
  said = ''.join(svg.itertext())
  assert 'A claim <b>& $x$' in said and 'recalled & more' in said and 'expected' in said


def test_error_bars_are_one_standard_error_each_way():
  svg = xml.fromstring(report.curve({'a': [(0, 0., .5), (1, 2., 0)]}))
  y_places = tick_places(svg, 'end', 'y')
  bars = re.findall(r'M([\d.]+),([\d.]+)V([\d.]+)"', xml.tostring(svg, encoding='unicode'))
  (x, foot, head), = [map(float, bar) for bar in bars]  # none for an error of 0
  assert (x, (foot + head) / 2) == pytest.approx(marks(svg)[0], abs=.1)
  assert foot - head == pytest.approx(y_places[0] - y_places[1], abs=.2)
  assert '± 1 standard error' in ''.join(svg.itertext())


@pytest.mark.parametrize('xs', [range(-20, 0), range(-12, 2), range(40), [3] * 20])
def test_many_ticks_of_a_log_axis(xs):
  svg = xml.fromstring(report.curve({'a': [(x, i) for i, x in enumerate(xs)]}, log_x=True))
  assert len(marks(svg)) == len(xs) + 1 and tick_places(svg, 'middle', 'x') is not None


def test_names_that_have_no_room_are_counted():
  svg = xml.fromstring(report.curve({f'name {k}': [(0, k), (1, k)] for k in range(30)}))
  names = [word for word in svg.iter(f'{SVG}text') if 'name' in ''.join(word.itertext())]
  assert f'and {30 - len(names)} more' in ''.join(svg.itertext()) and 10 < len(names) < 30
  assert all(0 < float(word[0].get('y')) < 260 for word in names)


@pytest.mark.parametrize('series', [{}, {'a': []}, {'a': [(1, math.nan)]}, {'a': [(1, 2.)]},
                                    {'a': [(0, 0.)], HOSTILE: [(i, 1.) for i in range(99)]}])
@pytest.mark.parametrize('log_x', [False, True])
def test_little_or_nothing_to_draw(tmp_path, series, log_x):
  path = report.picture(tmp_path / 'a.svg', HOSTILE, HOSTILE, HOSTILE, series, log_x=log_x)
  said = ''.join(xml.parse(path).getroot().itertext())
  assert ('no data' in said) == (not any(value == value for points in series.values()
                                         for _, value in points))
  report.curve(series, log_x=log_x)
