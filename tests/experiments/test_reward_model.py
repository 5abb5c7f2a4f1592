"""A reward model as a user trains and opens it: what it learns, what its scores mean, resumed."""

import dataclasses
import json
import pathlib
import random
import types

import jax
import numpy as np
import pytest

from experiments import pretrain, reward_model, workdir
from nanollm_jax import InputError, mesh as mesh_lib, metrics
from nanollm_jax.data import rankings
from nanollm_jax.data.rankings import RankingDataConfig
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.sample.engine import Completion, Sampling
from nanollm_jax.text import bpe, chat, known
from nanollm_jax.train import loop
from nanollm_jax.train.optim import OptimConfig
from tests.experiments.test_many_processes import together


@pytest.fixture
def ranked(corpus, tmp_path):
  """A function that makes a config of 12 steps over 100 rankings: the more trees the better."""
  path, rng, rows = tmp_path / 'rankings.jsonl', random.Random(0), []
  for number in range(100):
    trees = sorted(rng.sample(range(5), 3), reverse=True)
    rows.append({'prompt': [{'role': 'user', 'content': f'the {rng.choice(["red", "blue"])} {number}?'}],
                 'completions': [' '.join(rng.sample(['tree'] * n + ['stone'] * (4 - n), 4))
                                 for n in trees], 'gold': trees})
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))

  def make(name: str = 'judge', **fit) -> reward_model.Config:
    fit = dict(steps=12, batch_size=8, log_every=1, eval_every=0, sample_every=0, save_every=4) | fit
    return reward_model.Config(
        workdir=str(tmp_path / name), init_from='', tokenizer=str(corpus), answers=40,
        model=ModelConfig(depth=1, width=32, heads=2, context=48),
        data=RankingDataConfig((str(path),), validation_fraction=0.2),
        optim=OptimConfig(learning_rate=1e-2), fit=loop.FitConfig(**fit), sample=Sampling(6))
  return make


def numbers(config, name: str) -> list[float]:
  return [row[name] for row in metrics.read_rows(pathlib.Path(config.workdir) / 'metrics.jsonl')
          if name in row]


def test_it_learns_is_measured_and_opens_normalised(ranked, corpus, tmp_path):
  with pytest.raises(InputError, match='--answers=0: rewards are normalised on them'):
    reward_model.main(dataclasses.replace(ranked('none'), answers=0))
  config = ranked(steps=30, eval_every=10, sample_every=30)
  reward_model.main(config)
  loss, accuracy = numbers(config, 'loss'), numbers(config, 'validation/accuracy')
  assert len(loss) == 30 and np.mean(loss[-3:]) < 0.7 * loss[0]
  assert len(accuracy) == 3 and accuracy[-1] > 0.85
  assert numbers(config, 'validation/gold_correlation')[-1] > 0.7
  assert numbers(config, 'validation/ceiling') == [1, 1, 1]
  ledger = json.loads((tmp_path / 'judge' / 'reward.json').read_text())
  assert ledger['accuracy'] == accuracy[-1] and ledger['step'] == 30 and ledger['answers'] == 40
  assert {*ledger['accuracy_by']} == {'places apart', 'tokens that the better has more',
                                      'difference in gold score'}
  assert {*ledger['probes']} == {'best', 'empty', 'repeated', 'shuffled', 'prompt again'}
  assert numbers(config, 'probe/empty') == [ledger['probes']['empty']]
  assert 'tree' in (tmp_path / 'judge' / 'samples.jsonl').read_text()

  tokenizer = known.from_name_or_file(corpus)
  score = reward_model.open_reward(config.workdir, tokenizer)
  held = rankings.prepare(config.data, chat.Chat(tokenizer), 48, tmp_path)
  rows = [ids for one in held['train'] for ids in one.ids][:40]
  found = score([row.tolist() for row in rows])
  assert found.dtype == np.float32 and found.shape == (40,)
  assert found.mean() == pytest.approx(0, abs=1e-4) and found.std() == pytest.approx(1, abs=1e-4)
  mesh = mesh_lib.make(mesh_lib.MeshConfig())
  with mesh_lib.use(mesh):
    np.testing.assert_allclose(reward_model.open_reward(config.workdir, tokenizer, mesh)(rows), found,
                               rtol=1e-4, atol=1e-4)
  one = score(rows[3:4]), score([rows[3], [5] * 48])[:1]
  np.testing.assert_allclose(one, [found[3:4]] * 2, rtol=1e-4, atol=1e-4)  # of any neighbours
  with pytest.raises(InputError, match="has 49 tokens .* reward model's context of 48"):
    score([[5] * 49])
  with pytest.raises(InputError, match='has another tokenizer than the reward model'):
    reward_model.open_reward(config.workdir, bpe.train(['other words'], bpe.Config(vocabulary=280)))
  with pytest.raises(InputError, match='holds no finished reward model'):
    reward_model.open_reward(str(corpus))


@pytest.mark.slow
def test_it_begins_as_another_model_and_is_normalised_on_a_policy(
    ranked, tiny, tmp_path, monkeypatch):
  base = tiny('base', steps=2, eval_every=0, sample_every=0, model={'context': 48})
  pretrain.main(base)
  config = dataclasses.replace(ranked(steps=2), init_from=base.workdir, policy=base.workdir,
                               model=ModelConfig(), optim=OptimConfig(learning_rate=0.0), answers=12)
  caught, spoken = [], reward_model.spoken
  monkeypatch.setattr(reward_model, 'spoken', lambda *args: caught.append(spoken(*args)) or caught[0])
  reward_model.main(config)
  before, after = (workdir.open_model(each.workdir).params for each in (base, config))
  new = np.array([*known.from_name_or_file(base.workdir).special.values()])
  old = np.setdiff1d(np.arange(len(before['embedding'])), new)
  np.testing.assert_array_equal(before['embedding'][old], after['embedding'][old])
  jax.tree.map(np.testing.assert_array_equal, before['layer_0'], after['layer_0'])
  said, = caught
  found = reward_model.open_reward(config.workdir)(said)
  assert json.loads((tmp_path / 'judge/reward.json').read_text())['answers'] == len(found) == 12
  assert found.mean() == pytest.approx(0, abs=1e-3) and found.std() == pytest.approx(1, abs=1e-3)
  talk = chat.Chat(known.from_name_or_file(base.workdir))
  assert all(row[-1] == talk.end_of_turn and talk.parse(row)[-1]['role'] == 'assistant'
             for row in said) and len({*map(tuple, said)}) == 12
  other = bpe.train(['some other words'], bpe.Config(vocabulary=280))
  (tmp_path / 'other').mkdir()
  other.save(tmp_path / 'other' / 'tokenizer.json')
  with pytest.raises(InputError, match='/other has another tokenizer than the reward model'):
    reward_model.main(dataclasses.replace(config, policy=str(tmp_path / 'other')))


@pytest.mark.parametrize('ends, kept', [([1, 0, 1], [[7, 1, 9], [7, 3, 9]]),
                                        ([0, 0, 1], [[7, 1, 9], [7, 2, 9], [7, 3, 9]])])
def test_rewards_are_normalised_on_answers_that_end(ranked, monkeypatch, ends, kept):
  made = [Completion([number], [], [], bool(end)) for number, end in enumerate(ends, 1)]
  monkeypatch.setattr(reward_model.workdir, 'open_model', lambda *_: workdir.Opened(None, None, None))
  monkeypatch.setattr(reward_model, 'Engine', lambda *_, **__: types.SimpleNamespace(
      length=48, generate=lambda _, prompts, __: made[:len(prompts)]))
  config = ranked()
  config = dataclasses.replace(config, model=dataclasses.replace(config.model, context=48))
  talk = types.SimpleNamespace(end_of_turn=9, tokenizer=types.SimpleNamespace(end=8))
  held = [types.SimpleNamespace(ids=[np.array([7, 5])], start=1)] * 3
  too_long = types.SimpleNamespace(ids=[np.arange(50)], start=48)
  assert reward_model.spoken(config, talk, [*held, too_long]) == kept


def test_an_answer_that_was_cut_off_by_the_context_is_cut_for_its_end(ranked, monkeypatch):
  made = [Completion([3] * 46, [], [], False)] * 2
  monkeypatch.setattr(reward_model.workdir, 'open_model', lambda *_: workdir.Opened(None, None, None))
  monkeypatch.setattr(reward_model, 'Engine', lambda *_, **__: types.SimpleNamespace(
      length=48, generate=lambda *_: made))
  config = dataclasses.replace(ranked(), model=ModelConfig(context=48))
  talk = types.SimpleNamespace(end_of_turn=9, tokenizer=types.SimpleNamespace(end=8))
  held = [types.SimpleNamespace(ids=[np.array([7, 6, 5])], start=2)] * 2
  assert reward_model.spoken(config, talk, held) == [[7, 6, *[3] * 45, 9]] * 2


@pytest.mark.slow
def test_stopped_and_resumed_is_bit_for_bit_the_whole_run(ranked, monkeypatch):
  whole, parts = ranked('whole'), ranked('parts')
  reward_model.main(whole)
  original = loop.fit
  def interrupted(state, step, batches, **options):
    config = dataclasses.replace(options.pop('config'), steps=5)
    return original(state, step, batches, config=config, **dict(options, hooks=()))
  monkeypatch.setattr(loop, 'fit', interrupted)
  reward_model.main(parts)
  with pytest.raises(InputError, match='holds no finished reward model'):
    reward_model.open_reward(parts.workdir)
  monkeypatch.setattr(loop, 'fit', original)
  reward_model.main(parts)
  assert numbers(whole, 'loss') == numbers(parts, 'loss')
  ledgers = [json.loads((pathlib.Path(each.workdir) / 'reward.json').read_text())
             for each in (whole, parts)]
  assert ledgers[0] == ledgers[1]


def test_what_was_to_go_on_but_ends_here_is_finished(ranked, tmp_path):
  reward_model.main(ranked(steps=4))
  (tmp_path / 'judge' / 'reward.json').unlink()
  reward_model.main(ranked(steps=4))
  assert json.loads((tmp_path / 'judge' / 'reward.json').read_text())['step'] == 4


@pytest.mark.slow
def test_two_processes_judge_as_one(ranked, tmp_path):
  """Scores lie over both; each reads all of them."""
  of = lambda name: ranked(name, eval_every=6, sample_every=6)
  reward_model.main(of('whole'))
  together(of('parted'), 2, 'reward_model')
  one, two = (json.loads((tmp_path / name / 'reward.json').read_text()) for name in ('whole', 'parted'))
  assert one['answers'] == two['answers']
  for name in ('mean', 'std', 'accuracy'):
    assert one[name] == pytest.approx(two[name], abs=1e-3)
