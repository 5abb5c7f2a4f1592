"""The main job: what its commands hand to one another, without running any of them."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FAKE = '''#!/bin/sh
[ "$1" = -c ] && exec {python} "$@"
[ "$2" = pip ] || {{ shift; echo "$@" >> {log}; }}
'''


@pytest.fixture
def launch(tmp_path):
  """A function that runs launch/local.sh in a pretended environment: (its commands, its words)."""
  (tmp_path / 'bin').mkdir()
  (tmp_path / 'bin/python').write_text(FAKE.format(python=sys.executable, log=tmp_path / 'log'))
  (tmp_path / 'bin/python').chmod(0o755)
  def launch(*words: str) -> tuple[list[list[str]], str]:
    done = subprocess.run(['bash', 'launch/local.sh', *words], cwd=ROOT, capture_output=True,
                          text=True, env=os.environ | {'VENV': str(tmp_path)}, check=True)
    ran = [line.split() for line in (tmp_path / 'log').read_text().splitlines()]
    (tmp_path / 'log').unlink()
    return ran, done.stdout
  return launch


def flags_of(words: list[str]) -> dict[str, str]:
  """Flags by name, the last value of each; flagfiles are read."""
  found: dict[str, str] = {}
  for word in words:
    if not word.startswith('--'):
      continue  # a comment
    name, _, value = word.strip().removeprefix('--').partition('=')
    nested = (ROOT / value).read_text().splitlines() if name == 'flagfile' else None
    found |= {name: value} if nested is None else flags_of(nested)
  return found


@pytest.mark.parametrize('words, folder', [((), 'runs'), (('--quick',), 'runs/quick')])
def test_each_stage_begins_with_what_an_earlier_one_leaves(launch, words, folder):
  ran, said = launch(*words)
  left = set()
  for module, *given in ran:
    found = flags_of(given)
    for name in ('init_from', 'base', 'reward.init_from', 'tokenizer'):
      assert found.get(name) in left | {None}, (module, name)
    left.add(found.get('workdir'))
  assert [module.removeprefix('experiments.') for module, *_ in ran if 'lecture' not in module] == [
      'build_world', 'filter_web', 'train_tokenizer', 'pretrain', 'sft', 'evaluate', 'rl',
      'reward_model', 'rl']
  assert found['workdir'] == f'{folder}/rlhf' and found['reward.init_from'] in left
  assert said.endswith(f'experiments.chat --init_from={folder}/rlhf\n')


def test_the_quick_form_has_the_same_commands_and_fewer_steps(launch):
  (whole, _), (quick, _) = launch(), launch('--quick')
  assert [module for module, *_ in whole] == [module for module, *_ in quick]
  for (module, *slow), (_, *fast) in zip(whole, quick):
    slow, fast = flags_of(slow), flags_of(fast)
    assert set(slow) == set(fast), module
    if 'fit.steps' in slow:
      assert int(fast['fit.steps']) < int(slow['fit.steps'])
      assert slow['workdir'] != fast['workdir']


def test_any_experiment(launch):
  ran, said = launch('experiments.pretrain', '--fit.steps=2')
  assert ran == [['experiments.pretrain', '--fit.steps=2']]
  assert '== python -m experiments.pretrain --fit.steps=2' in said


@pytest.mark.parametrize('driver, given, expected', [
    ('580.65.06', '', 'cuda'), ('570.124.06', '', 'cuda12'), ('[N/A]', 'hf', 'hf,cuda'),
    ('535.183.01', 'hf', 'hf,cuda12'), ('570.124.06', 'cuda', 'cuda'),
    ('590.1', 'cuda12', 'cuda12')])
def test_an_older_driver_gets_an_older_cuda(tmp_path, driver, given, expected):
  (tmp_path / 'nvidia-smi').write_text(f'#!/bin/sh\n[ "$1" = -L ] || echo "{driver}\n{driver}"\n')
  (tmp_path / 'nvidia-smi').chmod(0o755)
  done = subprocess.run(
      ['bash', '-c', 'set -euo pipefail; source launch/environment.sh; extras'], cwd=ROOT,
      capture_output=True, text=True, check=True,
      env=os.environ | {'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'EXTRAS': given,
                        'VENV': str(tmp_path / 'venv')})
  assert done.stdout.strip() == expected and not done.stderr


def test_an_environment_keeps_its_cuda(tmp_path):
  (tmp_path / 'nvidia-smi').write_text('#!/bin/sh\n[ "$1" = -L ] || echo 590.1\n')
  (tmp_path / 'nvidia-smi').chmod(0o755)
  (tmp_path / 'venv' / 'bin').mkdir(parents=True)
  (tmp_path / 'venv' / 'bin' / 'python').symlink_to(sys.executable)
  (tmp_path / 'venv' / 'installed').write_text('sum\ncuda12\n')
  run = lambda words: subprocess.run(
      ['bash', '-c', f'set -euo pipefail; source launch/environment.sh; {words}'], cwd=ROOT,
      capture_output=True, text=True, env=os.environ | {
          'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'EXTRAS': '', 'VENV': str(tmp_path / 'venv')})
  assert run('extras').stdout.strip() == ''
  done = run('install cuda')
  assert done.returncode and 'EXTRAS asks for another: give VENV=another' in done.stderr
