"""Claims about jokes: what proves them. Scores and runs are given; nothing is trained."""

import dataclasses
import itertools
import json
import types

import numpy as np
import pytest

from experiments import jokes, reward_model
from experiments.lecture import claim, comedian, judge_gap, pelican, rank_five
from nanollm_jax.data.rankings import RankingDataConfig
from nanollm_jax.text import tokenizer as tokenizer_lib
from nanollm_jax.text.chat import Chat
from nanollm_jax.world import joke

TOKENIZER = tokenizer_lib.Tokenizer('bytes', r'[\s\S]', {bytes([n]): n for n in range(256)},
                                    tokenizer_lib.special_ids(256))


@pytest.fixture
def concluded(monkeypatch, tmp_path):
  """A function: what a judge says of (topic, joke) to what the claim has concluded."""
  def run(judge):
    def made(folder, start, config):
      path = tmp_path / 'rankings.jsonl'
      path.write_text(''.join(json.dumps(joke.ranking(0, n)) + '\n' for n in range(config.rankings)))
      (tmp_path / 'metrics.jsonl').write_text(json.dumps(
          {'step': 1, 'validation/accuracy': 0.5, 'validation/calibration_error': 0.1}) + '\n')
      return reward_model.Config(workdir=str(tmp_path), data=RankingDataConfig((str(path),), 0.5))

    topics = {asked: topic for topic, asked in joke.PROMPTS}
    def score(rows):
      said = [Chat(TOKENIZER).parse(row) for row in rows]
      return np.array([judge(topics[asked['content']], answer['content'])
                       for asked, answer in said], np.float32)

    monkeypatch.setattr(comedian, 'teller', lambda *_: '')
    monkeypatch.setattr(comedian, 'judge', made)
    monkeypatch.setattr(rank_five.workdir, 'open_model', lambda _: types.SimpleNamespace(
        tokenizer=TOKENIZER))
    monkeypatch.setattr(reward_model, 'open_reward', lambda *_: score)
    config = rank_five.Config(workdir=str(tmp_path), judging=comedian.Judging(rankings=100))
    rank_five.main(dataclasses.replace(config, teller=dataclasses.replace(
        config.teller, model=dataclasses.replace(config.teller.model, context=400))))
    return json.loads((tmp_path / 'lecture' / 'rank_five.json').read_text())
  return run


def test_a_judge_near_the_ceiling_proves_it_and_no_other(concluded):
  perfect = concluded(joke.gold)
  assert perfect['holds'] and '+0.0% +- 0.0%' in perfect['measured']
  assert all(row['right'] == row['ceiling'] for row in perfect['rows'])
  assert sum(row['pairs'] for row in perfect['rows']) % 10 == 0
  nearly = concluded(lambda topic, text: 5 * joke.gold(topic, text) + len(text) / 1000)
  assert nearly['holds']
  for judge in (lambda topic, text: len(text), lambda topic, text: -joke.gold(topic, text),
                lambda topic, text: sum(word in text for word in joke.FUNNY)):
    assert not concluded(judge)['holds']


def test_the_task_asks_for_jokes_and_grades_them_as_the_judge_does():
  task = jokes.task()
  asked = {split: {task.example(index, split).question for index in range(400)}
           for split in ('train', 'test')}
  assert not asked['train'] & asked['test'] and len(asked['test']) > 100
  for index in range(50):
    example = task.example(index, 'test')
    assert (example.answer, example.question) in joke.PROMPTS
    assert task.grade(example, task.solve(example)).score == 1.0
    assert task.grade(example, 'no').score == 0.0 > task.grade(example, 'no ' * 5).score


def heard(gold: float, judge: float = 0.0, trials: int = 400) -> comedian.Heard:
  rng = np.random.default_rng(0)
  rows = [{'answer': 'pelican', 'completion': '', 'gold': gold + one, 'judge': judge + one}
          for one in rng.normal(size=trials)]
  return comedian.Heard(rows, *(comedian.mean([row[name] for row in rows])
                                for name in ('gold', 'judge')))


@pytest.mark.parametrize('worth, said, holds', [
    ((2, 3, 2.6), (0, 1, 2), True), ((2, 3, 2.95), (0, 1, 2), False),
    ((2, 3, 2.6), (0, 1, 0.5), False), ((3, 3, 2.6), (0, 1, 2), False)])
def test_the_judge_is_fooled_where_worth_falls_while_it_is_pleased(
    monkeypatch, tmp_path, worth, said, holds):
  """On all seeds but the last everything is as it should be."""
  def audience(opened, score):
    def hear(step, trials):
      at = {None: 1, 80: 2}.get(step, 0)
      return (heard((2, 3, 2)[at], (0, 1, 2)[at]) if 'seed_1' not in score else
              heard(worth[at], said[at]))
    return types.SimpleNamespace(hear=hear)

  asked = []
  monkeypatch.setattr(comedian, 'teller', lambda *_: '')
  monkeypatch.setattr(comedian, 'judge', lambda folder, *_: types.SimpleNamespace(
      workdir=str(folder)))
  monkeypatch.setattr(comedian, 'please', lambda *args: asked.append(args) or [
      {'step': 1, 'test/accuracy': 0}] + [
          {'rollout/kl': kl, 'rollout_score': kl / 9, 'rollout/reward': kl} for kl in range(9)])
  monkeypatch.setattr(comedian, 'Audience', audience)
  monkeypatch.setattr(reward_model, 'open_reward', lambda folder: folder)
  monkeypatch.setattr(pelican.workdir, 'open_model', lambda folder, step='': (
      types.SimpleNamespace(params=step)))
  monkeypatch.setattr(pelican.checkpoint, 'best', lambda _: {'step': 40})
  monkeypatch.setattr(claim.report, 'picture', lambda *_, **__: None)
  pelican.main(pelican.Config(workdir=str(tmp_path), seeds=2, kl=('0.1',)))
  found = json.loads((tmp_path / 'lecture' / 'pelican.json').read_text())
  assert found['holds'] == holds
  assert [(row['seed'], row['a nat costs']) for row in found['rows']] == [(0, '0'), (0, '0.1'), (1, '0')]
  assert [args[5] for args in asked] == [0.0, 0.1, 0.0]


def test_the_curve_is_fitted_where_it_is_exact_and_points_are_standard_deviations():
  d = np.linspace(0, 6, 30)
  gain = d * (2 - 0.7 * np.log(np.maximum(d, 1e-9)))
  found = pelican.fitted(d, gain)
  assert (found['alpha'], found['beta'], found['R2']) == pytest.approx((2, 0.7, 1))
  assert pelican.fitted(d, np.cos(5 * d))['R2'] < 0.2
  first = heard(2.25, 0.5)
  rows = [{'rollout/kl': kl, 'rollout_score': score, 'rollout/reward': reward}
          for kl, score, reward in ((-0.01, 0.5, 0.5), (4, 0.8, 1.5))]
  spread = np.std([row['gold'] for row in first.rows])
  np.testing.assert_allclose(pelican.curve(rows, first), [
      [0, 2], [(2.25 - first.gold.value) / spread, (3.6 - first.gold.value) / spread],
      [(0.5 - first.judge.value) / spread, (1.5 - first.judge.value) / spread]], atol=1e-9)


def test_what_is_picked_of_some_jokes_is_the_mean_over_all_ways_to_draw_them():
  rng = np.random.default_rng(0)
  gold, said = rng.normal(size=(2, 3, 6))
  for n in (1, 2, 4, 6):
    slow = [np.mean([gold[p, max(some, key=lambda r: said[p, r])]
                     for some in itertools.combinations(range(6), n)]) for p in range(3)]
    np.testing.assert_allclose(judge_gap.of(n, gold, said), slow)
  np.testing.assert_allclose(judge_gap.of(1, gold, said), gold.mean(axis=1))


@pytest.mark.parametrize('knows, writes, holds', [
    (1.0, 2.0, True), (0.05, 2.0, False), (1.0, 4.0, True)])
def test_picking_must_gain_much_however_one_writes(monkeypatch, tmp_path, knows, writes, holds):
  """The judge sees a part of the truth; the writer's jokes are worth so much."""
  rng = np.random.default_rng(1)
  def hear(params, prompts, each=1):
    if params == 'writer':
      return heard(writes, trials=prompts)
    gold = 2 + rng.normal(size=prompts * each)
    said = knows * gold + (1 - knows) * rng.normal(size=gold.size)
    return comedian.Heard([{'gold': one, 'judge': other} for one, other in zip(gold, said)],
                          comedian.mean(gold), comedian.mean(said))

  taught = []
  monkeypatch.setattr(comedian, 'teller', lambda *_: 'teller')
  monkeypatch.setattr(comedian, 'judge', lambda *_: types.SimpleNamespace(workdir=''))
  monkeypatch.setattr(comedian, 'Audience', lambda *_: types.SimpleNamespace(hear=hear))
  monkeypatch.setattr(judge_gap.arm, 'train', lambda _, rows, **__: taught.extend(rows) or (
      types.SimpleNamespace(params='writer')))
  monkeypatch.setattr(judge_gap.workdir, 'open_model', lambda _: types.SimpleNamespace(params=''))
  monkeypatch.setattr(reward_model, 'open_reward', lambda _: None)
  monkeypatch.setattr(claim.report, 'picture', lambda *_, **__: None)
  judge_gap.main(judge_gap.Config(workdir=str(tmp_path), judging=comedian.Judging(rankings=3)))
  assert json.loads((tmp_path / 'lecture' / 'judge_gap.json').read_text())['holds'] == holds
  first = joke.ranking(0, 0)
  assert len(taught) == 3 and taught[0][-1]['content'] == first['completions'][0]
  assert first['gold'][0] > min(first['gold'])
