"""Pretraining as a user runs it: what it writes, how it goes on, and what it says when it cannot."""

import dataclasses
import errno
import json
import os
import pathlib
import signal
import subprocess
import time

import numpy as np
import pytest

from experiments import generate, pretrain, workdir
from nanollm_jax import InputError, checkpoint, flags, metrics
from nanollm_jax.mesh import MeshConfig
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.sample.engine import Sampling
from nanollm_jax.text import known
from nanollm_jax.train import loop
from tests import full_disk, processes


def losses(folder) -> list[tuple[int, float]]:
  return processes.numbers(folder, 'loss')


def test_a_run_leaves_everything_the_next_stage_needs(tiny, capsys):
  config = tiny()
  pretrain.main(config)
  folder = pathlib.Path(config.workdir)
  assert {path.name for path in folder.iterdir()} >= {
      'run.flags', 'tokenizer.json', 'environment.json', 'metrics.jsonl', 'samples.jsonl',
      'checkpoints', 'tensorboard', 'tokens', 'report.html'}
  assert [step for step, _ in losses(folder)] == list(range(1, 13))
  assert losses(folder)[-1][1] < losses(folder)[0][1]
  rows = metrics.read_rows(folder / 'metrics.jsonl')
  assert [row['step'] for row in rows if 'validation/bits_per_byte' in row] == [6, 12]
  assert [row['step'] for row in metrics.read_rows(folder / 'samples.jsonl')] == [6, 12]
  resolved = flags.parse(pretrain.Config(), (folder / 'run.flags').read_text())
  assert resolved.model.vocabulary == 320 and resolved.model.mlp == 128
  assert 'the red' in (folder / 'report.html').read_text()
  out = capsys.readouterr().out
  assert 'exports as qwen3' in out and 'FLOPs a token' in out

  generate.main(generate.Config(init_from=config.workdir, samples=2, sample=Sampling(max_tokens=5)),
                ['the blue'])
  assert capsys.readouterr().out.count('the blue') == 2
  pretrain.main(config)  # nothing left to do
  assert 'goes on from step 12' in capsys.readouterr().out
  assert len(losses(folder)) == 12


@pytest.mark.slow
def test_sigterm_saves_and_says_so(tiny):
  config = tiny(steps=100000, save_every=0)
  process = subprocess.Popen(processes.command(config), cwd=processes.ROOT, stdout=subprocess.PIPE,
                             text=True)
  while len(losses(config.workdir)) < 3:
    time.sleep(0.01)
  process.send_signal(signal.SIGTERM)
  out, _ = process.communicate(timeout=60)
  assert process.returncode == 128 + signal.SIGTERM
  assert 'stopped by SIGTERM at step' in out and 'the same command goes on from here' in out
  assert checkpoint.Checkpoints(config.workdir).latest() == losses(config.workdir)[-1][0]


@pytest.mark.slow
def test_a_checkpoint_restores_on_another_mesh(tiny):
  """4 steps on 8 data-parallel devices, the rest with parameters sharded over them: same losses."""
  whole = tiny('whole')
  pretrain.main(whole)
  moved = tiny('moved')
  stop_at_eight = loop.Hook(8, lambda step, state: os.kill(os.getpid(), signal.SIGTERM) if step == 8 else None)
  original, loop.fit = loop.fit, lambda *args, hooks, **rest: original(
      *args, hooks=[*hooks, stop_at_eight], **rest)
  try:
    with pytest.raises(SystemExit):
      pretrain.main(moved)
  finally:
    loop.fit = original
  pretrain.main(dataclasses.replace(moved, mesh=MeshConfig(data=2, fsdp=2, tensor=2)))
  np.testing.assert_allclose([loss for _, loss in losses(whole.workdir)],
                             [loss for _, loss in losses(moved.workdir)], rtol=1e-5)


def test_a_workdir_of_another_run_is_refused(tiny, corpus):
  config = tiny(steps=1)
  pretrain.main(config)
  before = (pathlib.Path(config.workdir) / 'run.flags').read_text()
  with pytest.raises(InputError, match=r'--model.depth=1 \(now 2\)'):
    pretrain.main(tiny(steps=1, model=dict(depth=2)))
  with pytest.raises(InputError, match=r'--optim.learning_rate=0.01 \(now 0.5\)'):
    pretrain.main(tiny(steps=1, rate=0.5))
  assert (pathlib.Path(config.workdir) / 'run.flags').read_text() == before


@pytest.mark.slow
def test_not_finite_stops_with_a_report(tiny):
  config = dataclasses.replace(tiny(rate=1e18, patience=3, steps=60), prompts=())
  config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, clip=0.0))
  with pytest.raises(InputError, match=r'not finite 3 steps in a row .*lower --optim.learning_rate'):
    pretrain.main(config)


def test_a_full_disk_is_one_sentence_and_the_step_before_stays(tiny, monkeypatch):
  config = tiny(steps=4)
  pretrain.main(config)

  def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, 'No space left on device')
  checkpoints = checkpoint.Checkpoints(config.workdir)
  monkeypatch.setattr(checkpoints._orbax, 'save_checkpointables_async', full)
  with pytest.raises(InputError, match='the disk is full.*start the same command again'):
    checkpoints.save(5, {'x': np.zeros(3)})
  assert checkpoint.Checkpoints(config.workdir).latest() == 4


@pytest.mark.slow
def test_on_a_really_full_disk_a_run_ends_and_goes_on_when_there_is_room(tiny, tmp_path):
  (tmp_path / 'disk').mkdir()
  config = tiny('disk/run')
  program = ' '.join(processes.command(dataclasses.replace(config, workdir=str(tmp_path / 'flags')))
                     + [f'--workdir={config.workdir}'])
  done = full_disk.run(
      tmp_path / 'disk', 700_000, 'sh', '-c',
      f'{program}; echo "exit $?"; mount -o remount,size=4m "$0" && {program}', tmp_path / 'disk')
  first, second = done.stdout.split('exit 1')
  assert done.stderr == (
      f'error: the disk is full: a checkpoint in {config.workdir}/checkpoints could not be written. '
      'Make room and start the same command again; it goes on from the newest whole checkpoint.\n')
  assert 'step  8/12' in first and 'goes on from step 4' in second and 'step 12/12' in second and done.returncode == 0


def test_bad_input_is_one_sentence(tiny, tmp_path):
  with pytest.raises(InputError, match='--init_from=.*is not a workdir'):
    workdir.open_model(str(tmp_path))
  (tmp_path / 'run.flags').write_text('--documents=a.txt\n')
  with pytest.raises(InputError, match='--init_from=.* holds no model'):
    workdir.open_model(str(tmp_path))
  with pytest.raises(InputError, match='--model.context=16 is too short for --objective=span'):
    pretrain.objective_of(pretrain.Config(
        objective='span_corruption', model=ModelConfig(context=16)), None,
        known.from_name_or_file(tiny().tokenizer))
  with pytest.raises(InputError, match='--fit.batch_size=9 does not divide .* such as 16'):
    pretrain.main(tiny(batch_size=9))
  with pytest.raises(InputError, match='--tokenizer='):
    pretrain.main(dataclasses.replace(tiny(), tokenizer=str(tmp_path / 'none')))
  (tmp_path / 'blocked').write_text('')
  with pytest.raises(InputError, match='--workdir=.*cannot be written'):
    pretrain.main(tiny('blocked/run'))
  missing = dataclasses.replace(tiny(), data=dataclasses.replace(tiny().data, documents=('no.jsonl',)))
  with pytest.raises(InputError, match='no.jsonl'):
    pretrain.main(missing)


@pytest.mark.parametrize('objective', (
    'masked_token', pytest.param('span_corruption', marks=pytest.mark.slow)))
def test_the_other_objectives_run_through_the_same_loop(tiny, objective):
  config = dataclasses.replace(tiny(), objective=objective)
  pretrain.main(config)
  assert len(losses(config.workdir)) == 12


def test_the_dial_gives_horizon_batch_and_rate(corpus):
  config = pretrain.resolve(pretrain.Config(), known.from_name_or_file(corpus))
  tokens = config.fit.steps * config.fit.batch_size * config.model.context
  from nanollm_jax.model import transformer
  assert 20 <= tokens / transformer.count(config.model) < 21
  assert config.optim.learning_rate == 0.4 / 256


def test_steps_before_a_hook_that_fails_are_kept(tiny, monkeypatch, capsys):
  config = tiny(steps=3, save_every=0, eval_every=0, sample_every=2)
  def fails(*_):
    raise InputError('the hook fails')
  monkeypatch.setattr(pretrain, 'show_samples', fails)
  with pytest.raises(InputError, match='the hook fails'):
    pretrain.main(config)
  monkeypatch.undo()
  pretrain.main(config)
  assert 'goes on from step 2' in capsys.readouterr().out and len(losses(config.workdir)) == 3


def test_prompts_are_looked_at_before_the_first_step(tiny):
  config = tiny(steps=2, save_every=0, eval_every=0, sample_every=2)
  with pytest.raises(InputError, match='prompt 0 has .* tokens, but the context holds'):
    pretrain.main(dataclasses.replace(config, prompts=('the red ' * 40,)))
  assert not losses(config.workdir)
  pretrain.main(dataclasses.replace(config, prompts=()))
  assert len(losses(config.workdir)) == 2
