"""Dataclasses to flags and back, flagfiles, and what a wrong flag is told."""

import dataclasses
import importlib
import os
import pathlib
import socket
import subprocess
import sys
from typing import Literal

import pytest
from absl import flags as absl_flags

from nanollm_jax import InputError, flags
from tests import full_disk

ROOT = pathlib.Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Inner:
  """Inner.

  depth: how many
    layers there are.
  kind: which kind.
  """
  depth: int = 4
  kind: Literal['a', 'b'] = 'a'
  rate: float | None = None

  def __post_init__(self):
    if self.depth < 1:
      raise InputError(f'--inner.depth={self.depth} must be at least 1.')


@dataclasses.dataclass(frozen=True)
class Outer:
  """Outer.

  names: some names.
  """
  inner: Inner = Inner()
  names: tuple[str, ...] = ()
  tied: bool = True
  ids: tuple[int, ...] = (1,)


def parsed(*words):
  values = absl_flags.FlagValues()
  flags.define(Outer(), values)
  values(['test', *words])
  return flags.read(Outer(), values)


def test_round_trip():
  config = parsed('--inner.depth=7', '--inner.rate=0.1', '--names=x,"y, z"', '--notied', '--ids=3,-4')
  assert config == Outer(Inner(7, 'a', 0.1), ('x', 'y, z'), False, (3, -4))
  assert flags.parse(Outer(), flags.to_text(config)) == config
  assert flags.parse(Outer(), flags.to_text(Outer())) == Outer()
  others = '# a comment\n--model.depth=3\n--nomodel.tied\n'
  assert flags.parse(Outer(), others + flags.to_text(config) + others) == config


def test_a_line_break_is_refused_before_it_breaks_the_flagfile():
  for bad in (Outer(names=('x', 'a\nb')), Outer(Inner(kind='b'), ('a\rb',))):
    with pytest.raises(InputError, match='--names has a line break'):
      flags.to_text(bad)


def test_help_comes_from_the_docstring():
  assert flags.field_help(Inner)['depth'] == 'how many layers there are.'


@pytest.mark.parametrize('words, sentence', [
    (['--inner.depht=3'], 'Did you mean: inner.depth'),
    (['--inner.depth=0'], '--inner.depth=0 must be at least 1.'),
    (['--inner.kind=c'], 'should be one of <a|b>'),
    (['--inner.depth=four'], 'inner.depth'),
    (['--ids=3,four'], '--ids=3,four is not a list of whole numbers'),
])
def test_wrong_flags_are_told_what_is_wrong(words, sentence):
  with pytest.raises(absl_flags.Error, match=sentence.replace('|', r'\|')):
    parsed(*words)


def test_nested_flagfiles_comments_and_last_value_wins(tmp_path):
  (tmp_path / 'base.flags').write_text('# a comment\n--inner.depth=2\n--inner.kind=b\n')
  (tmp_path / 'run.flags').write_text(f'--flagfile={tmp_path}/base.flags\n--inner.depth=5\n')
  config = parsed(f'--flagfile={tmp_path}/run.flags', '--names=q')
  assert config == Outer(Inner(5, 'b'), ('q',))


def test_unwritable_workdir_is_one_sentence(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(InputError, match='--workdir=.*cannot be written'):
    flags.save(Outer(), tmp_path / 'file' / 'run')


SAVES = '''
import dataclasses, pathlib
from nanollm_jax import flags

@dataclasses.dataclass(frozen=True)
class Config:
  workdir: str = ''
  words: str = 'few'

def main(config):
  flags.save(config, config.workdir)
  with open(config.workdir + '/filler', 'wb', buffering=0) as filler:
    try:
      while filler.write(bytes(512)):
        pass
    except OSError:
      print((pathlib.Path(config.workdir) / 'run.flags').read_text().split()[-1])
  try:
    flags.save(Config(config.workdir, 'many ' * 5000), config.workdir)
  finally:
    print((pathlib.Path(config.workdir) / 'run.flags').read_text().split()[-1])

flags.run(main, Config)
'''


def test_a_full_disk_leaves_the_flags_of_before(tmp_path):
  done = full_disk.run(tmp_path, 65536, sys.executable, '-c', SAVES, f'--workdir={tmp_path}')
  assert done.stdout.split() == ['--words=few'] * 2 and done.returncode == 1
  assert done.stderr.startswith(f'error: {tmp_path} could not be written (No space left on device)')
  assert len(done.stderr.splitlines()) == 1


FAILS = """
import dataclasses, sys, jax
from nanollm_jax import flags

@dataclasses.dataclass(frozen=True)
class Config:
  error: str = ''

def main(config):
  jax.distributed.initialize('127.0.0.1:{port}', 1, 0)
  raise ValueError(config.error)

flags.run(main, Config)
"""


@pytest.mark.parametrize('error, code, sentence', [
    ('UNKNOWN: Gloo AllGather failed: Connection reset by peer', flags.LOST,  # as jax.jit puts it
     'error: another process of this job is gone, or a device failed (UNKNOWN: Gloo AllGather'),
    ('a mistake', 1, 'Traceback')])
def test_a_process_that_has_lost_another_starts_again_and_one_with_a_mistake_does_not(
    error, code, sentence):
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    script = FAILS.format(port=free.getsockname()[1])
  done = subprocess.run([sys.executable, '-c', script, f'--error={error}'], capture_output=True,
                        text=True, env=os.environ | {'JAX_PLATFORMS': 'cpu'})
  assert done.returncode == code and done.stderr.startswith(sentence), done.stderr


@pytest.mark.parametrize('error, told', [
    ("flags.InputError('give another')", True), ('KeyboardInterrupt()', True),
    ("OSError(28, 'No space left')", True), ("flags.OutOfStep('other steps')", False),
    ("ValueError('a mistake')", False)])  # which another process's end may have brought about
def test_the_supervisor_is_told_of_an_error_that_is_not_to_be_repeated(tmp_path, error, told):
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    script = FAILS.format(port=free.getsockname()[1]).replace('ValueError(config.error)', error)
  done = subprocess.run(
      [sys.executable, '-c', script], capture_output=True, text=True,
      env=os.environ | {'JAX_PLATFORMS': 'cpu', 'NANOLLM_ERROR': str(tmp_path / 'error')})
  assert done.returncode == (flags.LOST if 'OutOfStep' in error else 1), done.stderr
  assert (tmp_path / 'error').exists() == told


EXPERIMENT_OF = {'world': 'build_world', 'tokenizer': 'train_tokenizer', 'mesh': 'pretrain',
                 'model': 'pretrain', 'bench': 'bench.train'}
FLAGFILES = sorted((ROOT / 'experiments/configs').rglob('*.flags'))


@pytest.mark.parametrize('path', FLAGFILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_flagfile_parses(path, monkeypatch):
  stage = path.parent.name
  module = importlib.import_module(f'experiments.{EXPERIMENT_OF.get(stage, stage)}')
  monkeypatch.chdir(ROOT)
  values = absl_flags.FlagValues()
  flags.define(module.Config(), values)
  for name in ('jax_platforms', 'jax_num_cpu_devices'):
    absl_flags.DEFINE_string(name, '', '', flag_values=values)
  absl_flags.DEFINE_multi_string('flagfile', [], '', flag_values=values)
  values(['test', f'--flagfile={path}'])
  config = flags.read(module.Config(), values)
  assert flags.parse(module.Config(), flags.to_text(config)) == config


def test_every_field_has_help_and_flags_are_few():
  names = {}
  for path in sorted((ROOT / 'experiments').glob('*.py')):
    module = importlib.import_module(f'experiments.{path.stem}')
    if hasattr(module, 'Config'):
      for name, _, _, help_text in flags.leaves(module.Config()):
        assert help_text, f'--{name} of experiments.{path.stem} has no help'
        names[name] = help_text
  assert 40 < len(names) < 150


def run(*words):
  return subprocess.run([sys.executable, '-m', *words], cwd=ROOT, capture_output=True, text=True)


def test_command_line():
  good = run('experiments.pretrain', '--only_check_args',
             '--flagfile=experiments/configs/pretrain/laptop.flags')
  assert good.returncode == 0, good.stderr
  wrong = run('experiments.pretrain', '--model.dept=3')
  assert wrong.returncode != 0 and 'Did you mean: model.depth' in wrong.stderr
  missing = run('experiments.generate', '--init_from=/nonexistent', 'x')
  assert missing.returncode != 0 and missing.stderr.strip().startswith('error: --init_from=')
  assert len(missing.stderr.strip().splitlines()) == 1
