"""kill -9 at whatever moment: a run that goes on repeats the uninterrupted one bit for bit.

Parameters, optimizer, data, keys, and of reinforcement learning the rows that are half used.
"""

import dataclasses
import json
import random
import re

import jax
import numpy as np
import pytest

from experiments import reward_model, rl, workdir
from experiments.bench import faults
from experiments.rollouts import RewardConfig, RlConfig
from nanollm_jax.data.rankings import RankingDataConfig
from nanollm_jax.objectives.policy import PolicyConfig
from nanollm_jax.train.loop import FitConfig
from nanollm_jax.train.optim import OptimConfig
from tests import processes

pytestmark = pytest.mark.slow
STEPS = 24
FAST = OptimConfig(learning_rate=1e-2, schedule='constant')


def pretraining(tiny, assistant, tmp_path, name):
  return tiny(name, steps=STEPS)


def judging(tiny, assistant, tmp_path, name):
  rng, path = random.Random(0), tmp_path / 'rankings.jsonl'
  path.write_text(''.join(json.dumps({
      'prompt': [{'role': 'user', 'content': f'From {number}?'}],
      'completions': [f'{value}.' for value in sorted(rng.sample('ABCDEFGH', 3))]}) + '\n'
                          for number in range(100)))
  return reward_model.Config(
      workdir=str(tmp_path / name), init_from=assistant, answers=20, optim=FAST,
      data=RankingDataConfig((str(path),), validation_fraction=0.2),
      fit=FitConfig(steps=STEPS, batch_size=8, log_every=1, eval_every=8, sample_every=12,
                    save_every=4))


def practising(tiny, assistant, tmp_path, name):
  """Two passes over two halves of a draw, so that most kills are in the middle of one."""
  return rl.Config(
      workdir=str(tmp_path / name), init_from=assistant, task='affine:1', eval_examples=8,
      eval_samples=2, rl=RlConfig(prompts=8, group=8, max_tokens=20, slots=64, epochs=2),
      policy=PolicyConfig(kl='reward'), reward=RewardConfig(kl_target=0.1),
      optim=dataclasses.replace(FAST, learning_rate=3e-3),
      fit=FitConfig(steps=STEPS, batch_size=32, log_every=1, eval_every=12, sample_every=12,
                    save_every=5))


@pytest.mark.parametrize('stage, make', [
    ('pretrain', pretraining), ('reward_model', judging), ('rl', practising)])
def test_killed_and_resumed_is_bit_for_bit_the_uninterrupted_run(
    stage, make, tiny, assistant, tmp_path):
  whole, killed = (make(tiny, assistant, tmp_path, name) for name in ('whole', 'killed'))
  done = processes.run(whole, stage)
  assert done.returncode == 0, done.stderr
  for after in (1, random.randint(7, 16)):  # the first is mostly before any checkpoint
    processes.kill(killed, stage, after)
  done = processes.run(killed, stage)
  assert done.returncode == 0 and 'in 3 starts' in done.stdout, done.stderr
  assert len(processes.numbers(whole.workdir, 'loss')) == STEPS
  assert processes.rows(whole.workdir) == processes.rows(killed.workdir)
  first, last, again = (workdir.open_model(folder, step=STEPS).params
                        for folder in (assistant, whole.workdir, killed.workdir))
  jax.tree.map(np.testing.assert_array_equal, last, again)
  if stage != 'pretrain':
    assert not np.array_equal(first['embedding'], last['embedding'])
  if stage == 'rl':
    gaps = [gap for _, gap in processes.numbers(killed.workdir, 'rollout_gap_max')]
    assert len(gaps) == STEPS and max(gaps) <= 1e-4


def test_faults_of_every_kind_end_in_order(tmp_path, capsys):
  faults.main(faults.Config(workdir=str(tmp_path), kills=len(faults.Config().kinds), seed=1))
  said = capsys.readouterr().out
  assert 'ended with every loss of the uninterrupted one, 0 failures' in said
  assert re.search(r'nan +1 sentence', said)
