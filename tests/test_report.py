"""The page says what the run wrote, whatever it wrote; pictures put points where they belong."""

import html.parser
import json
import math
import pathlib
import re
import xml.etree.ElementTree as xml

import pytest

from nanollm_jax import report
from nanollm_jax.report import axis, figure

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
               'tokens per second 1,100', 'training time 1 min 40 s', 'parameters 12.35 M'):
    assert said in re.sub(r'\s+', ' ', page)


def test_train_and_validation_share_a_figure_and_bits_per_byte_come_first(workdir):
  page = report.write(workdir).read_text()
  labels = re.findall('aria-label="([^"]*against[^"]*)"', page)
  assert labels[0].startswith('Bits per byte against step.')
  assert 'validation 1.346' in labels[0] and 'train 1.0' in labels[0]
  assert [label.split(' against')[0] for label in labels] == [
      'Bits per byte', 'Bits per byte', 'Loss nats per token', 'Gradient norm',
      'Throughput tokens per second', 'Step time seconds']


def test_samples_show_first_middle_last_and_fold_all(workdir):
  page = report.write(workdir).read_text()
  before, folded = page.split('<section><h2>Samples')[1].split('<details>')
  assert re.findall(r'</i> a time (\d+)', before) == ['20', '120', '200']
  assert re.findall(r'</i> a time (\d+)', folded) == [str(step) for step in range(20, 201, 20)]
  assert '<i class="soft">Once upon</i>' in before


def test_flags_are_grouped_by_prefix(workdir):
  page = Page(report.write(workdir).read_text())
  said = [word for word in page.said if word.strip()]
  config = said[said.index('Config'):said.index('Environment')]
  assert config == ['Config', 'run', 'workdir', 'runs/x', 'check', 'false', 'model', 'depth', '8',
                    'tie', 'false', 'rope', 'true']


def test_hostile_text_is_escaped_everywhere(tmp_path):
  lines(tmp_path / 'samples.jsonl', [
      dict(step=step, name=HOSTILE, prompt=prompt, text=HOSTILE + '\n' * 50 + HOSTILE * 20)
      for step in range(5) for prompt in (HOSTILE, HOSTILE * 3)])
  lines(tmp_path / 'metrics.jsonl', [{'step': 1, HOSTILE: 2.}, {'step': 2, HOSTILE: 3.}])
  (tmp_path / 'run.flags').write_text(f'--a.{HOSTILE}={HOSTILE}\n', errors='replace')
  (tmp_path / 'environment.json').write_text(json.dumps({HOSTILE: HOSTILE}))
  page = Page(report.write(tmp_path, HOSTILE, {HOSTILE: [{HOSTILE: HOSTILE}]}).read_text())
  assert not {'script', 'img', 'iframe', 'link', 'object'} & set(page.tags)
  assert 'alert("x")' in ''.join(page.said) and '\x00' not in ''.join(page.said)


def test_nothing_is_loaded_from_elsewhere(workdir):
  page = Page(report.write(workdir, tables={'T': [dict(a=1)]}).read_text())
  assert not {'src', 'href', 'srcset', 'data', 'action'} & {name for name, _ in page.attributes}
  values = ' '.join(value or '' for name, value in page.attributes if name != 'xmlns')
  assert 'http:' not in values and 'https:' not in values and 'url(' not in ''.join(page.said)


def test_an_empty_workdir_has_a_page_without_sections(tmp_path):
  page = Page(report.write(tmp_path, 'Nothing yet').read_text())
  assert 'h1' in page.tags and not {'h2', 'svg', 'table', 'dl'} & set(page.tags)


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
  assert 'training time 20 s' in ' '.join(Page(report.write(tmp_path).read_text()).said)


def test_a_last_value_that_is_not_finite_is_shown_as_such(tmp_path):
  lines(tmp_path / 'metrics.jsonl', [dict(step=1, loss=2.5), dict(step=2, loss=math.nan)])
  page = ' '.join(Page(report.write(tmp_path).read_text()).said)
  assert 'final train nan' in page and 'best train 2.5000' in page


def test_tables(tmp_path):
  rows = [dict(stratum='rare', right=.25), dict(stratum='frequent', right=1234, note=None)]
  page = Page(report.write(tmp_path, tables={'Knowledge': rows, 'None': []}).read_text())
  said = [word for word in page.said if word.strip()]
  assert said[-10:] == ['Knowledge', 'stratum', 'right', 'note', 'rare', '0.25', '–', 'frequent',
                        '1,234', '–']


def test_thinning_keeps_means_and_the_last_step():
  points = [(step, float(step), 0) for step in range(1, 100_004)]
  thinned = figure.thin(points)
  assert 900 < len(thinned) <= 1000
  assert thinned[-1] == (100_003, 100_003 - 50, 0)
  assert figure.thin(points[:1000]) == points[:1000]
  assert 'A point is the mean of 101 rows' in report.curve({'train': points})


def test_smoothing_halves_noise_passes_spikes_over_and_leaves_a_ramp_alone():
  noisy = [5 + (-1) ** i for i in range(600)]
  noisy[300] = 1e6
  smooth = figure.smooth(noisy)
  assert max(abs(value - 5) for value in smooth[20:]) < .5
  ramp = [i / 7 for i in range(600)]
  assert figure.smooth(ramp) == ramp


def test_a_far_tail_is_left_outside_and_said():
  assert axis.clipped([1000.] + [1 + i / 100 for i in range(100)])[1] < 3
  assert axis.clipped([0.] * 99 + [1.]) == (0, 1)
  svg = report.curve({'train': [(i, 1000. if i < 2 else 2 + (-1) ** i / 9) for i in range(100)]})
  assert 'Not shown: 2 above' in svg and 'up to 1,000' in svg


@pytest.mark.parametrize('low, high, count, expected', [
    (0, 1, 5, [0, .2, .4, .6, .8, 1]), (1.02, 2.7, 4, [1.5, 2, 2.5]),
    (0, 1500, 3, [0, 500, 1000, 1500]), (-3, 3, 3, [-2, 0, 2])])
def test_ticks_are_round_and_inside(low, high, count, expected):
  assert axis.ticks(low, high, count) == pytest.approx(expected)


def test_tick_texts():
  assert axis.tick_texts([0, .5, 1]) == ['0.0', '0.5', '1.0']
  assert axis.tick_texts([0, 500, 1000]) == ['0', '500', '1,000']
  assert axis.tick_texts([0, 25000, 50000]) == ['0', '25k', '50k']
  assert axis.log_ticks([0, 1, 4]) == [0, 1, 4]
  assert axis.log_ticks(range(12)) == [0, 1, 2, 4, 8]
  assert axis.log_ticks(range(1, 5000)) == [1, 10, 100, 1000]


def marks(svg: xml.Element) -> list[tuple[float, float]]:
  paths = [path for path in svg.iter(f'{SVG}path') if path.get('class') == 'mark']
  return [tuple(map(float, re.match(r'M(\S+) ([\d.]+)', path.get('d')).groups())) for path in paths]


def tick_places(svg: xml.Element, anchor: str, which: str) -> dict[float, float]:
  return {float(word.text.replace(',', '')): float(word.get(which)) for word in svg.iter(
      f'{SVG}text') if word.get('text-anchor') == anchor and re.fullmatch(r'[\d.,]+', word.text)}


@pytest.mark.parametrize('log_x', [False, True])
def test_picture_puts_points_at_their_ticks(tmp_path, log_x):
  xs = [1, 2, 4, 8, 16, 32, 64] if log_x else [1000, 2000, 3000]
  ys = [.2 * (i % 5) for i in range(len(xs))]
  path = report.picture(tmp_path / 'a.svg', 'A claim <b>&', 'copies', 'share', {
      'recalled & more': [(x, y, .05 if y else 0) for x, y in zip(xs, ys)]},
                        log_x=log_x, expectation=.8)
  svg = xml.parse(path).getroot()
  x_places, y_places = tick_places(svg, 'middle', 'x'), tick_places(svg, 'end', 'y')
  assert len(marks(svg)) == len(xs)
  for (x, y), at_x, at_y in zip(marks(svg), xs, ys):
    assert x == pytest.approx(x_places[at_x], abs=.2)
    assert y == pytest.approx(y_places[round(at_y, 1)] - 4, abs=.2)  # text stands 4 below its line
  left, bottom, right = next(
      map(float, match.groups()) for path in svg.iter(f'{SVG}path') if path.get('class') == 'axis'
      and (match := re.fullmatch(r'M(\S+) (\S+)H(\S+)', path.get('d'))))
  assert y_places[0] - 4 == pytest.approx(bottom, abs=.1)
  assert x_places[xs[0]] - left == pytest.approx(right - x_places[xs[-1]], abs=.2)
  gaps = [b - a for a, b in zip(sorted(x_places.values()), sorted(x_places.values())[1:])]
  assert max(gaps) - min(gaps) < .3
  said = ''.join(svg.itertext())
  assert 'A claim <b>&' in said and 'recalled & more' in said and 'expected' in said


def test_picture_error_bars_are_one_standard_error_each_way(tmp_path):
  svg = xml.parse(report.picture(tmp_path / 'a.svg', '', 'x', 'y', {
      'a': [(0, 0., .5), (1, 2., 0)]})).getroot()
  y_places = tick_places(svg, 'end', 'y')
  unit = y_places[0] - y_places[1]
  (bar,) = [re.fullmatch(r'M(\S+) (\S+)v(\S+)', path.get('d')) for path in svg.iter(f'{SVG}path')
            if path.get('class') == 'line' and 'v' in path.get('d')]
  assert float(bar[3]) == pytest.approx(unit, abs=.2)
  assert float(bar[2]) == pytest.approx(y_places[0] - 4 - unit / 2, abs=.2)


def test_picture_of_nothing_and_of_a_band(tmp_path):
  xml.parse(report.picture(tmp_path / 'a.svg', 't', 'x', 'y', {'a': [(1, math.nan)]}))
  svg = xml.parse(report.picture(tmp_path / 'b.svg', 't', 'x', 'y', {'a': [(1, 1.), (2, 2.)]},
                                 expectation=[(1, .5, 1.5), (2, 1.5, 2.5)])).getroot()
  (band,) = [path.get('d') for path in svg.iter(f'{SVG}path') if path.get('class') == 'band']
  assert band.count('L') == 3 and band.endswith('z')


def test_names_at_the_lines_ends_do_not_overlap():
  svg = xml.fromstring(report.curve({name: [(0, 0.), (1, 1.)] for name in 'abcde'}, marks=True))
  heights = sorted(float(word.get('y')) for word in svg.iter(f'{SVG}text')
                   if 'end' in (word.get('class') or ''))
  assert len(heights) == 5 and all(b - a >= 14.9 for a, b in zip(heights, heights[1:]))
