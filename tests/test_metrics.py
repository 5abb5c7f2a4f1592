"""What a run writes while it goes: rows, samples and TensorBoard's events, also on a full disk."""

import json
import struct
import sys
import types

import pytest
from tensorboardX.proto.event_pb2 import Event

from nanollm_jax import metrics
from tests import full_disk


def log_in(folder, from_step=0):
  return metrics.Log(folder, from_step=from_step, steps=9, tokens_per_step=8, flops_per_step=1.)


def events(folder):
  """The events of all files: records of a length, its checksum, the data and its checksum."""
  found = []
  for path in sorted((folder / 'tensorboard').iterdir()):
    content = path.read_bytes()
    while content:
      length, = struct.unpack('<Q', content[:8])
      found.append(Event.FromString(content[12:12 + length]))
      content = content[16 + length:]
  return found


def test_numbers_go_to_rows_and_to_tensorboard_at_once(tmp_path, capsys):
  log = log_in(tmp_path)
  log.numbers(3, {'loss': 2.5, 'validation/loss': 3.25})
  log.text(3, 'sample', 'Once [bold]', ' upon')
  assert metrics.read_rows(tmp_path / 'metrics.jsonl') == [
      {'step': 3, 'loss': 2.5, 'validation/loss': 3.25}]
  assert metrics.read_rows(tmp_path / 'samples.jsonl') == [
      {'step': 3, 'name': 'sample', 'prompt': 'Once [bold]', 'text': ' upon'}]
  version, start, row = events(tmp_path)
  assert version.file_version == 'brain.Event:2' and start.step == 1
  assert start.session_log.status == start.session_log.START
  assert (row.step, {value.tag: value.simple_value for value in row.summary.value}) == (
      3, {'loss': 2.5, 'validation/loss': 3.25})
  log.close()
  out = capsys.readouterr().out
  assert 'step 3/9  loss 2.5  validation/loss 3.25' in out and 'Once [bold] upon' in out


@pytest.mark.parametrize(('kind', 'peak'), (
    ('NVIDIA L4', 121e12), ('NVIDIA L40S', 362e12), ('NVIDIA L40', 181e12),
    ('NVIDIA H100 80GB HBM3', 989e12), ('TPU v5 lite', 197e12), ('TPU v5p', 459e12), ('cpu', None)))
def test_the_peak_is_that_of_the_device(monkeypatch, kind, peak):
  monkeypatch.setattr(metrics.jax, 'devices', lambda: [types.SimpleNamespace(device_kind=kind)])
  assert metrics.peak_flops() == peak


def test_a_run_that_goes_on_cuts_its_rows_back(tmp_path):
  log = log_in(tmp_path)
  for step in range(1, 6):
    log.numbers(step, {'loss': float(step)})
  log.close()
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 6, "lo')
  log = log_in(tmp_path, from_step=3)
  log.numbers(4, {'loss': 9.})
  log.close()
  assert [(row['step'], row['loss']) for row in metrics.read_rows(tmp_path / 'metrics.jsonl')] == [
      (1, 1.), (2, 2.), (3, 3.), (4, 9.)]


def test_where_time_goes_and_what_counts_over_restarts(tmp_path, monkeypatch):
  now = 1000.
  for clock in ('perf_counter', 'time'):
    monkeypatch.setattr(metrics.time, clock, lambda: now)
  log = log_in(tmp_path)
  with log.spending('eval'):
    now += 100
  with log.spending('data'):
    now += 1
  now += 1
  speed = log.speed(4)
  assert speed == {'tokens_per_second': 16, 'step_seconds': .5, 'data_seconds': .25,
                   'eval_seconds': 100, 'wall_seconds': 102}
  log.numbers(4, speed)
  now += 1
  assert log.speed(5) == {'tokens_per_second': 8, 'step_seconds': 1, 'data_seconds': 0,
                          'wall_seconds': 103}
  log.numbers(5, {'step_seconds': 1.})
  assert log.goodput() == 'goodput 3%: 3.0 of 103.0 s went into steps that count, in 1 start'
  log.close()
  now += 97  # killed, and started again from step 4: step 5 does not count
  log = log_in(tmp_path, from_step=4)
  now += 8
  assert log.speed(6)['step_seconds'] == 4 and log.speed(6)['wall_seconds'] == 208
  assert log.goodput() == 'goodput 5%: 10.0 of 208.0 s went into steps that count, in 2 starts'
  log.close()


LOGS = '''
import dataclasses, pathlib
from nanollm_jax import flags, metrics

@dataclasses.dataclass(frozen=True)
class Config:
  workdir: str = ''

def main(config):
  log = metrics.Log(config.workdir, from_step=0, steps=9, tokens_per_step=8, flops_per_step=1.)
  filler = pathlib.Path(config.workdir, 'filler').open('wb')
  for _ in range(40):
    filler.write(bytes(1024))
  filler.close()
  try:
    for step in range(10_000):
      log.numbers(step, {'loss': step / 9})
  finally:
    log.close()

flags.run(main, Config)
'''


def test_a_full_disk_ends_the_run(tmp_path):
  """SummaryWriter would wait for ever here."""
  done = full_disk.run(tmp_path, 65536, sys.executable, '-c', LOGS, f'--workdir={tmp_path}')
  assert done.returncode == 1 and 'step 50/9' in done.stdout
  assert done.stderr == (f'error: {tmp_path} could not be written (No space left on device): make '
                         'room and start the same command again; what was saved before stays '
                         'good.\n')


@pytest.mark.parametrize('step, kept', [(0, []), (2, [0, 2])])
def test_a_run_that_was_killed_before_its_first_checkpoint_leaves_nothing(tmp_path, step, kept):
  path = tmp_path / 'metrics.jsonl'
  path.write_text(''.join(json.dumps({'step': at}) + '\n' for at in (0, 2, 3)))
  metrics.journal(path, step).close()
  assert [row['step'] for row in metrics.read_rows(path)] == kept


def test_a_step_of_another_size_has_other_flops(tmp_path):
  log = log_in(tmp_path)
  log.resize(3, 21.)
  assert (log.tokens_per_step, log.flops_per_step) == (3, 21.)
