"""Preference optimisation: from a policy that is its own reference to one that prefers."""

import dataclasses
import json
import pathlib
import random
import re

import numpy as np
import pytest

from experiments import preference, pretrain
from nanollm_jax import InputError, metrics
from nanollm_jax.data.rankings import RankingDataConfig
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.objectives.preference import PreferenceConfig
from nanollm_jax.sample.engine import Sampling
from nanollm_jax.train import loop
from nanollm_jax.train.optim import OptimConfig
from tests.experiments.test_many_processes import together


@pytest.fixture
def ranked(tiny, tmp_path):
  """A function that makes a config of 12 steps over 60 rankings: trees are better than stones."""
  base = tiny('base', steps=2, eval_every=0, sample_every=0, model={'context': 48})
  pretrain.main(base)
  path, rng = tmp_path / 'rankings.jsonl', random.Random(0)
  path.write_text(''.join(json.dumps({
      'prompt': [{'role': 'user', 'content': f'the {rng.choice(["red", "blue"])} {n}?'}],
      'completions': ['tree tree', 'tree stone', 'stone stone'][:2 + n % 2]}) + '\n'
                          for n in range(60)))

  def make(name: str, loss: str = 'dpo', beta: float = 0.1, **fit) -> preference.Config:
    fit = dict(steps=12, batch_size=8, log_every=1, eval_every=0, sample_every=0, save_every=4) | fit
    return preference.Config(
        workdir=str(tmp_path / name), init_from=base.workdir, prompts=('the red ?',),
        data=RankingDataConfig((str(path),), validation_fraction=0.2),
        preference=PreferenceConfig(loss, beta), optim=OptimConfig(learning_rate=3e-3),
        fit=loop.FitConfig(**fit), sample=Sampling(4, temperature=0.0))
  return make


def numbers(config, name: str) -> list[float]:
  return [row[name] for row in metrics.read_rows(pathlib.Path(config.workdir) / 'metrics.jsonl')
          if name in row]


@pytest.mark.slow
def test_it_begins_at_its_reference_and_learns_to_prefer(ranked, capsys):
  config = ranked('dpo', eval_every=12, sample_every=12)
  preference.main(config)
  rows, length = re.search(r'12 steps x (\d+) rows x (\d+) =', said := capsys.readouterr().out).groups()
  assert int(rows) == 8 * 3 and int(length) < 48 and f'x {length} positions' in said
  assert numbers(config, 'loss')[0] == pytest.approx(np.log(2), rel=1e-4)
  assert numbers(config, 'margin')[0] == pytest.approx(0, abs=1e-4)
  assert numbers(config, 'accuracy')[-1] > 0.95 and numbers(config, 'validation/accuracy')[-1] > 0.95
  gap = np.subtract(*(numbers(config, f'logprob_{which}') for which in ('best', 'worst')))
  assert gap[-1] > gap[0] + 0.1
  with pytest.raises(InputError, match='--init_from is empty'):
    preference.main(dataclasses.replace(config, init_from=''))


@pytest.mark.slow
def test_stopped_and_resumed_is_the_whole_run(ranked, monkeypatch):
  whole, parts = ranked('whole', 'ipo'), ranked('parts', 'ipo')
  preference.main(whole)
  assert numbers(whole, 'loss')[0] == pytest.approx(25, rel=1e-3)  # (0 - 1 / (2 beta))^2
  original = loop.fit
  def interrupted(state, step, batches, **options):
    config = dataclasses.replace(options.pop('config'), steps=5)
    return original(state, step, batches, config=config, **options)
  monkeypatch.setattr(loop, 'fit', interrupted)
  preference.main(parts)
  monkeypatch.setattr(loop, 'fit', original)
  preference.main(parts)
  assert numbers(whole, 'loss') == numbers(parts, 'loss')


@pytest.mark.slow
def test_a_run_goes_on_with_the_reference_that_it_began_with(ranked, tiny):
  config = ranked('resumed', steps=2, save_every=0)
  preference.main(config)
  other = tiny('other', steps=3, eval_every=0, sample_every=0, model={'context': 48})
  pretrain.main(other)
  longer = dataclasses.replace(config, fit=dataclasses.replace(config.fit, steps=3))
  with pytest.raises(InputError, match='another model than this run began as'):
    preference.main(dataclasses.replace(longer, init_from=other.workdir))
  preference.main(longer)
  assert len(numbers(config, 'loss')) == 3


@pytest.mark.slow
def test_two_processes_prefer_as_one(ranked):
  """Of 9 validation rankings one of them has 4, so none is left for its second batch."""
  of = lambda name: dataclasses.replace(one := ranked(name, steps=4, eval_every=4), data=(
      dataclasses.replace(one.data, validation_fraction=0.16)))
  preference.main(of('whole'))
  first, _ = together(of('parted'), 2, 'preference')
  assert 'validation: 9 rankings' in first
  for name in ('loss', 'validation/loss'):
    np.testing.assert_allclose(*(numbers(of(folder), name) for folder in ('whole', 'parted')), rtol=1e-3)
