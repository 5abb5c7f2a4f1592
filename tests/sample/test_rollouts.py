"""Rollouts without a model: what is judged, what a batch holds, what an expert repeats."""

import math
import threading

import numpy as np
import pytest

from nanollm_jax.sample import rollouts
from nanollm_jax.sample.engine import Completion, Sampling
from nanollm_jax.sample.rollouts import Group

END = 9


def made(length: int = 2, finished: bool = True, forced: tuple[int, ...] = ()) -> Completion:
  sampled = [at not in forced for at in range(length)]
  logprobs = [-0.5 * was for was in sampled] + [-0.25] * finished
  return Completion(list(range(1, length + 1)), logprobs, sampled, finished)


def group(rewards, lengths=None) -> Group:
  reward_R = np.array(rewards, np.float32)
  lengths = lengths or [2] * len(rewards)
  return Group([7, 8], [made(length) for length in lengths], reward_R, reward_R)


class Engine:
  """Yields completions last first; what it was asked is kept."""

  def completed(self, params, prompts, sampling, calls):
    self.asked = list(zip(prompts, sampling))
    for index in reversed(range(len(prompts))):
      yield index, made(index + 1)


def test_groups_are_judged_in_threads_and_what_raises_is_not_known():
  engine, threads = Engine(), set()
  def judge(p, completion):
    threads.add(threading.current_thread())
    if len(completion.ids) == 2:
      raise ZeroDivisionError
    return 10 * p + len(completion.ids)
  seeds = np.arange(6).reshape(2, 3)
  found = rollouts.sample(engine, None, [[7], [8]], Sampling(max_tokens=5), seeds, judge)
  assert [prompt for prompt, _ in engine.asked] == [[7]] * 3 + [[8]] * 3
  assert [one.seed for _, one in engine.asked] == list(range(6))
  assert {one.max_tokens for _, one in engine.asked} == {5}
  np.testing.assert_array_equal(found[0].score_R, [1, math.nan, 3])
  np.testing.assert_array_equal(found[1].reward_R, [14, 15, 16])
  assert [len(one.ids) for one in found[1].completions] == [4, 5, 6]
  assert threading.current_thread() not in threads


@pytest.mark.parametrize('rewards, expected', [
    ([0, 1], True), ([1, 1], False), ([math.nan, 1], False), ([math.nan] * 2, False),
    ([math.nan, 0, 0.5], True), ([math.inf, 1, 1], False)])
def test_informative(rewards, expected):
  assert rollouts.informative(group(rewards)) == expected


def test_a_batch_trains_what_was_sampled_and_the_end():
  one = Group([7, 8], [made(3, forced=(1,)), made(2, finished=False)], *[np.zeros(2)] * 2)
  batch = rollouts.batch([one], END, 64)
  assert {name: (value.shape, value.dtype.name) for name, value in batch.items()} == {
      name: ((2, 16), 'float32' if name == 'rollout_logprobs' else 'int32') for name in
      ('tokens', 'positions', 'segment_ids', 'loss_mask', 'rollout_logprobs')}
  zeros = [0] * 10
  assert batch['tokens'].tolist() == [[7, 8, 1, 2, 3, END, *zeros], [7, 8, 1, 2, 0, 0, *zeros]]
  assert batch['loss_mask'].tolist() == [[0, 0, 1, 0, 1, 1, *zeros], [0, 0, 1, 1, 0, 0, *zeros]]
  assert batch['positions'].tolist() == [[0, 1, 2, 3, 4, 5, *zeros], [0, 1, 2, 3, 0, 0, *zeros]]
  assert batch['segment_ids'].sum(axis=1).tolist() == [6, 4]
  assert batch['rollout_logprobs'][:, 2:6].tolist() == [[-.5, 0, -.5, -.25], [-.5, -.5, 0, 0]]


def test_rows_are_powers_of_two_long_or_as_the_context():
  width = lambda length: rollouts.batch([group([1], [length])], END, 40)['tokens'].shape[1]
  assert [width(length) for length in (1, 13, 14, 29, 30)] == [16, 16, 32, 32, 40]  # + 2 + end


def test_what_an_expert_repeats():
  rng = lambda: np.random.default_rng(0)
  some = group([0, 1, math.nan, 1, 0, 1], [1, 5, 1, 3, 1, 3])
  assert rollouts.chosen(some, 'all', rng()).tolist() == [1, 3, 5]
  assert rollouts.chosen(some, 'shortest', rng()).tolist() == [3]
  picked = {*np.concatenate([rollouts.chosen(some, 'random', np.random.default_rng(seed))
                             for seed in range(30)])}
  assert picked == {1, 3, 5}
  assert rollouts.chosen(group([-3, -1, math.nan]), 'best', rng()).tolist() == [1]
  for how in ('all', 'shortest', 'random', 'best'):
    assert rollouts.chosen(group([0, 0, math.nan]), how, rng()).tolist() == []


def test_what_is_long_is_fined_by_hand():
  most = 10  # the end token is one of them
  assert [rollouts.overlong(made(length), most) for length in (1, 7, 8, 9)] == [0, 0, -0.5, -1]
  assert rollouts.overlong(made(3, finished=False), most) == -1


def test_what_tools_told():
  assert rollouts.told(made(6, forced=(1, 2, 5))) == [[2, 3], [6]]
  assert rollouts.told(made(2)) == []


def test_numbers():
  first = group([0, 1, math.nan, 1])
  cut = Group([7], [made(1, finished=False), made(4, forced=(1, 2))] * 2,
              np.ones(4, np.float32), np.full(4, math.nan, np.float32))
  found = rollouts.numbers([first, cut])
  assert found['reward'] == pytest.approx(2 / 3)
  assert found['score'] == pytest.approx(6 / 7)
  assert found['zero_std'] == 0.5 and found['truncated'] == 2 / 8
  assert found['invalid'] == 3 / 8  # of the finished ones
  assert found['calls'] == 2 / 8 and found['tokens_max'] == 5
  assert found['tokens_min'] <= found['tokens_finished'] <= 5
  assert all(value == 0 for name, value in rollouts.numbers([group([math.nan])]).items()
             if name in ('reward', 'reward_std', 'score'))
