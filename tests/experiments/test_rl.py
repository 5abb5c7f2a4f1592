"""Reinforcement learning as a user runs it: both methods, resumed, off-policy, bad rewards."""

import dataclasses
import json
import math
import pathlib
import shutil

import jax
import numpy as np
import pytest

from experiments import reward_model, rl, sft, workdir
from experiments.rollouts import RewardConfig, RlConfig
from nanollm_jax import InputError, checkpoint, metrics, report
from nanollm_jax.data.conversations import ChatDataConfig
from nanollm_jax.data.rankings import RankingDataConfig
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.objectives.policy import PolicyConfig
from nanollm_jax.tasks import Example, Grade, Task
from nanollm_jax.text import bpe
from nanollm_jax.text.chat import Chat
from nanollm_jax.train import loop
from nanollm_jax.train.optim import OptimConfig

FIT = dict(steps=4, log_every=1, eval_every=4, sample_every=4, save_every=100)


def asks(index: int, split: str) -> Example:
  return Example('the stone?', '', f'{split} {index}')


COLOURS = ('red', 'blue', 'green', 'the')
RED = Task('red', asks, lambda example, text: Grade(float('red' in text), True, ''),
           lambda example: 'red')


@pytest.fixture(scope='session')
def start(corpus, tmp_path_factory) -> str:
  folder = tmp_path_factory.mktemp('rl')
  rows = [[{'role': 'user', 'content': asks(k, 'train').question},
           {'role': 'assistant', 'content': f'a {COLOURS[k % 4]}.'}]
          for k in range(120)]
  rows += [[{'role': 'user', 'content': 'count'}, {'role': 'assistant', 'content': [
      {'type': 'tool_call', 'name': 'python', 'text': '1+1'},
      {'type': 'tool_output', 'text': '2'}, {'type': 'text', 'text': '2.'}]}]] * 60
  (folder / 'chats.jsonl').write_text(
      ''.join(json.dumps({'messages': messages}) + '\n' for messages in rows))
  sft.main(sft.Config(
      workdir=str(folder / 'sft'), init_from='', tokenizer=str(corpus), prompts=(),
      model=ModelConfig(depth=1, width=32, heads=2, context=32),
      data=ChatDataConfig((str(folder / 'chats.jsonl'),), validation_fraction=0.0),
      optim=OptimConfig(learning_rate=1e-2),
      fit=loop.FitConfig(steps=30, batch_size=8, eval_every=0, sample_every=0, save_every=0)))
  return str(folder / 'sft')


@pytest.fixture
def make(start, tmp_path, monkeypatch):
  """A function that makes a config of 4 steps, 4 prompts x 4 completions."""
  monkeypatch.setattr(report, 'write', lambda *_: 'no report: 40 curves take seconds to draw')
  def make(name: str = 'run', fit: dict = {}, **changes) -> rl.Config:
    changes['rl'] = RlConfig(**dict(prompts=4, group=4, max_tokens=10, slots=16)
                             | changes.get('rl', {}))
    return rl.Config(**dict(
        workdir=str(tmp_path / name), init_from=start, eval_examples=4, eval_samples=2,
        optim=OptimConfig(schedule='constant', learning_rate=3e-3, weight_decay=0.0),
        fit=loop.FitConfig(**FIT | fit)) | changes)
  return make


def column(config, name: str) -> list[float]:
  rows = metrics.read_rows(pathlib.Path(config.workdir) / 'metrics.jsonl')
  return [row[name] for row in rows if name in row]


def test_a_policy_learns_and_its_numbers_are_exact(make):
  config = make(fit=dict(steps=10, eval_every=10), rl=dict(prompts=8, temperature=1.2))
  rl.train(config, RED)
  reward = column(config, 'rollout/reward')
  assert np.mean(reward[-2:]) > np.mean(reward[:2]) + 0.2, reward
  assert max(column(config, 'rollout_gap_max')) <= 1e-4
  assert set(column(config, 'ratio')) == {1.0} and set(column(config, 'clipped_high')) == {0.0}
  kl = column(config, 'rollout/kl')
  assert kl[0] == pytest.approx(0, abs=1e-4) and kl[-1] > 0.1
  assert len(column(config, 'test/accuracy')) == 2  # also before the first update
  assert column(config, 'test/accuracy')[-1] > 0.8
  shown = metrics.read_rows(pathlib.Path(config.workdir) / 'samples.jsonl')
  assert [row['prompt'] for row in shown[:4]] == [asks(k, 'test').question for k in range(4)]


@pytest.mark.slow
def test_an_expert_repeats_what_was_right(make):
  config = make(fit=dict(steps=10, eval_every=0, sample_every=0),
                rl=dict(prompts=8, method='expert', epochs=2, choose='all'))
  rl.train(config, RED)
  reward = column(config, 'rollout/reward')
  assert reward[::2] == reward[1::2] and reward[-1] > reward[0] + 0.2, reward  # two epochs a draw
  assert column(config, 'rollout_repeated') == [value * 32 for value in reward]


def test_what_cannot_be_asked_or_judged_is_counted_and_nothing_is_lost(make, monkeypatch):
  seen, draw = [], rl.Rollouts.draw
  monkeypatch.setattr(rl.Rollouts, 'draw',
                      lambda *args: seen.append(draw(*args)) or seen[-1])
  def example(index: int, split: str) -> Example:
    long = split == 'train' and index % 3 == 0
    return asks(index, split)._replace(**{'question': 'stone ' * 30} if long else {})
  def grade(_, text: str) -> Grade:
    return Grade({'d': 1.0, 'e': math.nan}.get(text[-2:-1], 0.0) / ('n' not in text), True, '')
  config = make(fit=dict(steps=3, eval_every=0, sample_every=0), eval_samples=1, eval_examples=1,
                rl=dict(prompts=8, rounds=3, truncated='mask', max_tokens=5))
  rl.train(config, RED._replace(example=example, grade=grade))
  assert np.isfinite(column(config, 'loss')).all() and column(config, 'skipped')[-1] == 0
  assert max(column(config, 'rollout_too_long')) > 0
  for name in ('rollout_invalid', 'rollout_truncated', 'rollout_accepted'):
    assert 0 < np.mean(column(config, name)) < 1, name
  unknown = [np.mean(~batch['loss_mask'].any(axis=1)) for batch in seen]
  np.testing.assert_allclose(unknown, np.add(column(config, 'rollout_invalid'),
                                             column(config, 'rollout_truncated')))
  for drawn, kept in zip(column(config, 'rollout_accepted'), column(config, 'rollout/zero_std')):
    assert kept <= 1 - drawn  # groups that teach nothing were drawn again


@pytest.mark.slow
def test_held_out_problems_that_do_not_fit_or_are_not_asked_end_no_run(make):
  def example(index: int, split: str) -> Example:
    long = split == 'test' and index % 2
    return asks(index, split)._replace(**{'question': 'stone ' * 30} if long else {})
  config = make(fit=dict(steps=1, eval_every=1, sample_every=1), eval_samples=1)
  rl.train(config, RED._replace(example=example))
  assert column(config, 'test/too_long') == [0.5, 0.5]
  config = make('unasked', fit=dict(steps=1, eval_every=1), eval_examples=0)
  rl.train(config, RED)
  assert not column(config, 'test/accuracy') and len(column(config, 'loss')) == 1


def test_what_a_judge_cannot_read_has_no_reward(monkeypatch):
  monkeypatch.setattr(rl.reward_model, 'open_reward', lambda *_: lambda rows: np.array(
      [sum(row) for row in rows], np.float32))
  monkeypatch.setattr(rl.workdir, 'model_of', lambda folder: ModelConfig(context=int(folder)))
  judge = rl.reward_of(RewardConfig(init_from=('3', '5')), None)
  np.testing.assert_array_equal(judge([[1, 2], [1] * 4, [3]]), [3, np.nan, 3])
  assert np.isnan(judge([[1] * 4])).all()


@pytest.mark.slow
def test_a_tool_answers_inside_a_completion(make, monkeypatch):
  """What it says is not trained: the two log-probabilities of all that is are the same."""
  count = RED._replace(example=lambda index, split: asks(index, split)._replace(question='count'))
  config = make(fit=dict(steps=2, eval_every=0, sample_every=0), tools=('python',), eval_samples=1,
                eval_examples=1, rl=dict(max_tokens=20))
  rl.train(config, count)
  assert min(column(config, 'rollout_calls')) > 0
  assert max(column(config, 'rollout_gap_max')) <= 1e-4
  assert max(column(config, 'rollout_calls_failed')) == 0
  def fails(text: str) -> str:
    raise ValueError
  monkeypatch.setattr(rl.evaluate, 'tools_of', lambda _: {'python': fails})
  config = make('fails', fit=dict(steps=1, eval_every=0, sample_every=0), tools=('python',),
                eval_examples=0, rl=dict(max_tokens=20))
  rl.train(config, count)
  assert column(config, 'rollout_calls_failed') == column(config, 'rollout_calls') != [0]


@pytest.mark.slow
@pytest.mark.parametrize('truncated, fine', [('zero', 0), ('soft', 1)])
def test_another_network_rewards(make, truncated, fine):
  asked = []
  def reward(rows: list[list[int]]) -> np.ndarray:
    asked.extend(rows)
    return np.full(len(rows), 3.0)
  config = make(fit=dict(steps=1), rl=dict(max_tokens=5, truncated=truncated))
  rl.train(config, RED, reward)
  (cut,), (full,) = column(config, 'rollout_truncated'), column(config, 'rollout/tokens')
  # All have four tokens or five, of which the fifth is fined; those cut off have five.
  fined = fine * (full - 4)
  assert column(config, 'rollout_tokens_min') == [4]
  assert 0 < cut < 1 and column(config, 'rollout/reward') == [pytest.approx(3 - 4 * cut - fined)]
  end = Chat(workdir.open_model(config.init_from).tokenizer).end_of_turn
  assert np.mean([row[-1] == end for row in asked]) == 1 - cut and len(asked) == 16


@pytest.mark.slow
def test_the_checkpoint_that_looked_best_is_what_comes_next(make):
  """A judge that is right for three updates and then likes what is worth nothing."""
  asked = []
  def reward(rows: list[list[int]]) -> np.ndarray:
    asked.append(rows)
    return np.array([('red' in text) * (1 if len(asked) <= 3 else -3) for text in map(
        tokenizer.decode, rows)], float)
  config = make(fit=dict(steps=8, eval_every=2, sample_every=0, save_every=4, keep=1),
                rl=dict(prompts=8), eval_examples=16, reward=RewardConfig(('it',)),
                optim=OptimConfig(schedule='constant', learning_rate=1e-2, weight_decay=0.0))
  tokenizer = workdir.open_model(config.init_from).tokenizer
  rl.train(config, RED, reward)
  looks, best = column(config, 'test/accuracy'), checkpoint.best(config.workdir)
  assert len(looks) == 5 and looks[0] < max(looks) > looks[-1]
  assert best == dict(step=2 * int(np.argmax(looks)), score=max(looks), last=8,
                      regret=max(looks) - looks[-1])
  assert column(config, 'test/regret')[-1] == best['regret']
  kept = sorted(int(path.name) for path in (pathlib.Path(config.workdir) / 'checkpoints').iterdir())
  assert kept == [best['step'], 8]
  opened, told, last = (workdir.open_model(config.workdir, step=step).params['embedding']
                        for step in (None, best['step'], 8))
  np.testing.assert_array_equal(opened, told)
  assert np.abs(opened - last).max() > 1e-3
  longer = dataclasses.replace(config, fit=dataclasses.replace(config.fit, steps=9))
  with pytest.raises(InputError, match='holds another model than this run began as'):
    rl.train(dataclasses.replace(longer, init_from=config.workdir), RED, reward)


def test_an_ensemble_speaks_with_one_voice():
  score_MB = np.array([[1.0, 5.0], [3.0, 5.0]])
  for told, voice in (({}, [2, 5]), ({'ensemble': 'min'}, [1, 5]), ({'caution': 0.5}, [1.5, 5])):
    np.testing.assert_allclose(RewardConfig(**told).of(score_MB), voice)
  with pytest.raises(InputError, match='--reward.caution=-1.0 is negative'):
    RewardConfig(caution=-1.0)


@pytest.fixture(scope='session')
def judge(start, tmp_path_factory) -> str:
  folder = tmp_path_factory.mktemp('judge')
  rows = [{'prompt': [{'role': 'user', 'content': f'{k} the stone?'}],
           'completions': ['a red.', f'a {COLOURS[1 + k % 3]}.']} for k in range(16)]
  (folder / 'rankings.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  reward_model.main(reward_model.Config(
      workdir=str(folder / 'judge'), init_from=start, answers=16,
      data=RankingDataConfig((str(folder / 'rankings.jsonl'),), 0.0),
      fit=loop.FitConfig(steps=2, batch_size=8, eval_every=0, sample_every=0, save_every=0)))
  return str(folder / 'judge')


@pytest.mark.slow
def test_reward_models_are_asked_and_must_have_the_tokenizer(make, judge, monkeypatch, tmp_path):
  seen, of = [], RewardConfig.of
  monkeypatch.setattr(RewardConfig, 'of', lambda self, score_MB: seen.append(score_MB) or of(
      self, score_MB))
  config = make(fit=dict(steps=1, eval_every=1, sample_every=0),
                reward=RewardConfig((judge, judge), 'min', crop=False))
  rl.train(config, RED)
  assert checkpoint.best(config.workdir) == {}
  (score_MB,), (cut,) = seen, column(config, 'rollout_truncated')
  assert score_MB.shape == (2, 16) and np.ptp(score_MB[0]) > 0
  np.testing.assert_array_equal(*score_MB)
  if not cut:
    assert column(config, 'rollout/reward') == [pytest.approx(score_MB[0].mean())]
  shutil.copytree(judge, tmp_path / 'other')
  bpe.train(['some other words'], bpe.Config(vocabulary=280)).save(
      tmp_path / 'other' / 'tokenizer.json')
  with pytest.raises(InputError, match='another tokenizer than the reward model .*/other'):
    rl.train(make('second', reward=RewardConfig((judge, f'{tmp_path}/other'))), RED)


@pytest.mark.parametrize('changes, words', [
    (dict(fit=dict(batch_size=24)), '--fit.batch_size=24 does not divide the 16 rows'),
    (dict(reward=RewardConfig(kl_target=1.0)), 'needs --policy.kl=reward'),
    (dict(reward=RewardConfig(kl_target=1.0), policy=PolicyConfig(kl='reward', kl_coefficient=0.0)),
     'nothing comes of 0'),
    (dict(rl=dict(prompts=16, group=1), fit=dict(batch_size=16)), '--rl.group=1: advantages'),
    (dict(rl=dict(method='expert', choose='all'), policy=PolicyConfig(clip_high=0.3)),
     'the --policy flags say nothing to it'),
    (dict(reward=RewardConfig(('nowhere',))), 'nowhere holds no finished reward model'),
    (dict(task='aples'), 'aples is no task: give affine, apples')])
def test_bad_input_in_one_sentence(make, changes, words):
  with pytest.raises(InputError, match=words):
    rl.main(make(**changes))


@pytest.mark.slow
def test_stopped_in_the_middle_of_a_draw_and_resumed_is_bit_for_bit_the_whole_run(
    make, monkeypatch):
  """Two epochs of two minibatches: the second draw is half used when the run stops."""
  changes = dict(fit=dict(steps=8, eval_every=0, sample_every=0, batch_size=8), rl=dict(epochs=2, temperature=0.8),
                 policy=PolicyConfig(kl='reward'), reward=RewardConfig(kl_target=0.01))
  whole, parts = make('whole', **changes), make('parts', **changes)
  rl.train(whole, RED)
  original = loop.fit
  def interrupted(state, step, batches, **options):
    config = dataclasses.replace(options.pop('config'), steps=6)
    return original(state, step, batches, config=config, **options)
  monkeypatch.setattr(loop, 'fit', interrupted)
  rl.train(parts, RED)
  monkeypatch.setattr(loop, 'fit', original)
  rl.train(parts, RED)
  def of(config):
    rows = metrics.read_rows(pathlib.Path(config.workdir) / 'metrics.jsonl')
    return [{name: row[name] for name in row if 'second' not in name} for row in rows]
  assert of(whole) == of(parts)
  assert len(set(column(whole, 'rollout_kl_coefficient'))) == 2
  assert column(whole, 'ratio_max')[1] != 1.0  # off-policy by then
  assert max(column(whole, 'rollout_gap_max')) <= 1e-4
  jax.tree.map(np.testing.assert_array_equal, workdir.open_model(whole.workdir).params,
               workdir.open_model(parts.workdir).params)
