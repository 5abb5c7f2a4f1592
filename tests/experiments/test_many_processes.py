"""Several processes of one job: the same losses as one, and what a lost one means."""

import contextlib
import dataclasses
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments import pretrain, rl
from nanollm_jax import InputError, flags, mesh
from nanollm_jax.mesh import MeshConfig
from tests import processes
from tests.experiments.test_killed import practising


def together(config, count, stage='pretrain', **mesh) -> list[str]:
  """Runs a stage in so many processes to its end; returns what each has said."""
  command = processes.command(dataclasses.replace(config, mesh=MeshConfig(**mesh)), stage)
  jobs = start([command] * count)
  said = [job.communicate(timeout=240) for job in jobs]
  assert [job.returncode for job in jobs] == [0] * count, said
  return [out for out, _ in said]


def start(commands: list[list[str]]) -> list[subprocess.Popen]:
  """Starts one job, of a process a command."""
  address = f'127.0.0.1:{random.randint(20000, 40000)}'
  return [subprocess.Popen(
      command, cwd=processes.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
      env=os.environ | {'JAX_NUM_PROCESSES': str(len(commands)), 'JAX_PROCESS_ID': str(index),
                        'JAX_COORDINATOR_ADDRESS': address})
          for index, command in enumerate(commands)]


def lengthened(tiny, name, steps, **fit):
  config = tiny(name, **dict(steps=steps, eval_batches=0, sample_every=0) | fit)
  return dataclasses.replace(config, optim=dataclasses.replace(
      config.optim, schedule='constant', warmup=0.0))


def same_numbers(one, other):
  for name in ('loss', 'validation/loss', 'validation/bits_per_byte'):
    a, b = (np.array(processes.numbers(config.workdir, name)) for config in (one, other))
    np.testing.assert_allclose(a, b, rtol=1e-4)
    assert len(a) == (12 if name == 'loss' else 2)


@pytest.mark.slow
def test_two_processes_then_one_give_the_losses_of_one(tiny):
  """Whole validation sets too, with unequal rows for each process, and data that goes on."""
  pretrain.main(lengthened(tiny, 'whole', 12))
  first, second = together(lengthened(tiny, 'parted', 6), 2)
  assert "'data': 2" in first and 'step 6/6' in first and 'step' not in second
  pretrain.main(lengthened(tiny, 'parted', 12))
  same_numbers(lengthened(tiny, 'whole', 12), lengthened(tiny, 'parted', 12))


@pytest.mark.parametrize('variables', [
    {'JAX_NUM_PROCESSES': '2'}, {'JAX_NUM_PROCESSES': 'auto'},
    {'JAX_NUM_PROCESSES': 'two', 'JAX_COORDINATOR_ADDRESS': 'here:1', 'JAX_PROCESS_ID': '0'}])
def test_variables_that_cannot_be_used_are_one_sentence(variables, monkeypatch):
  for name, value in variables.items():
    monkeypatch.setenv(name, value)
  with pytest.raises(InputError, match='could not join the others .* set it to auto on Slurm'):
    mesh.connect()


@pytest.mark.slow
def test_one_process_then_four_with_sharded_parameters(tiny):
  pretrain.main(lengthened(tiny, 'whole', 12))
  pretrain.main(lengthened(tiny, 'parted', 6))
  together(lengthened(tiny, 'parted', 12), 4, data=2, fsdp=2)
  same_numbers(lengthened(tiny, 'whole', 12), lengthened(tiny, 'parted', 12))


@pytest.mark.slow
def test_two_processes_practise_as_one(tiny, assistant, tmp_path):
  """Both draw over all devices and learn from their halves of the rows; resumed by one."""
  of = lambda name, steps: dataclasses.replace(
      one := practising(tiny, assistant, tmp_path, name),
      fit=dataclasses.replace(one.fit, steps=steps))
  rl.main(of('whole', 12))
  first, second = together(of('parted', 8), 2, 'rl')
  assert "'data': 2" in first and 'step' not in second
  rl.main(of('parted', 12))
  for name in ('loss', 'rollout/reward', 'rollout/kl'):
    a, b = (processes.numbers(str(tmp_path / folder), name) for folder in ('whole', 'parted'))
    assert len(a) == len(b) == 12
    np.testing.assert_allclose(a[:8], b[:8], atol=1e-3, err_msg=name)  # two draws; then roundings tell


@pytest.mark.slow
def test_processes_that_see_other_checkpoints_start_again(tiny):
  both = [lengthened(tiny, name, 20, save_every=10) for name in ('whole', 'behind')]
  pretrain.main(both[0])
  shutil.copytree(both[0].workdir, both[1].workdir)
  shutil.rmtree(pathlib.Path(both[1].workdir, 'checkpoints', '20'))
  jobs = start([processes.command(dataclasses.replace(config, fit=dataclasses.replace(
      config.fit, steps=30))) for config in both])
  said = [job.communicate(timeout=240) for job in jobs]
  assert [job.returncode for job in jobs] == [flags.LOST] * 2, said
  assert 'other newest steps' in said[0][1]


def test_a_benchmark_leaves_room_for_a_second_process_on_its_device():
  found = subprocess.run(
      [sys.executable, '-c', 'import os, experiments.bench.train as train\n'
       'print(os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE"))'], cwd=processes.ROOT, check=True,
      capture_output=True, text=True, env={name: value for name, value in os.environ.items()
                                           if name != 'XLA_PYTHON_CLIENT_PREALLOCATE'})
  assert found.stdout.strip() == 'false'


@pytest.mark.slow
def test_a_killed_worker_is_noticed_and_the_job_goes_on(tiny, tmp_path):
  """supervise.sh starts both again; the numbers are those of a run that nobody killed."""
  config = lengthened(tiny, 'killed', 300, save_every=100, eval_every=0)
  path = pathlib.Path(config.workdir).with_suffix('.flags')
  path.write_text(flags.to_text(config))
  job = subprocess.Popen(
      ['bash', 'launch/supervise.sh', 'experiments.pretrain', f'--flagfile={path}',
       '--jax_platforms=cpu'], cwd=processes.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
      text=True, env=os.environ | {'PROCESSES': '2', 'VENV': str(sham_venv(tmp_path))})
  until = time.time() + 200
  while len(processes.numbers(config.workdir, 'loss')) < 150:  # one save is whole, none goes on
    assert time.time() < until and job.poll() is None
    time.sleep(0.01)
  both = workers(path)
  assert len(both) == 2
  os.kill(max(both), signal.SIGKILL)
  killed = time.time()
  while any(pathlib.Path(f'/proc/{one}').exists() for one in both):
    assert time.time() < killed + 30, 'the other process did not notice in 30 s'
    time.sleep(0.01)
  out, said = job.communicate(timeout=240)
  assert job.returncode == 0, said
  assert 'another process of this job is gone' in said and 'ended with code 137' in said
  assert 'goes on from step' in out and 'in 2 starts' in out
  losses = processes.numbers(config.workdir, 'loss')
  assert [step for step, _ in losses] == list(range(1, 301))


def workers(path: pathlib.Path) -> list[int]:
  """The Python processes that run the experiment of a flagfile."""
  found = []
  for one in pathlib.Path('/proc').glob('[0-9]*'):
    with contextlib.suppress(OSError):  # it has just ended
      words = (one / 'cmdline').read_text().split('\0')
      if '-m' in words and f'--flagfile={path}' in words:
        found.append(int(one.name))
  return found


def sham_venv(folder: pathlib.Path) -> pathlib.Path:
  """An environment whose python is ours, and into which nothing is installed."""
  (folder / 'venv/bin').mkdir(parents=True)
  python = folder / 'venv/bin/python'
  python.write_text(f'#!/bin/sh\n[ "$2" = pip ] || exec {sys.executable} "$@"\n')
  python.chmod(0o755)
  return folder / 'venv'
