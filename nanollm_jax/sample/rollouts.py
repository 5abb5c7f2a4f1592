"""Rollouts: groups of completions, judged while others are decoded, and the batch made of them."""

import concurrent.futures
import dataclasses
import itertools
import math
from typing import Any, Callable, NamedTuple, Sequence

import numpy as np

from nanollm_jax.sample.engine import Completion, Engine, Sampling

SHORTEST_ROW = 16  # rows are powers of two long: a handful of programs serves all batches


class Group(NamedTuple):
  """R completions of one prompt.

  score_R: what they were judged to be worth, NaN where they could not be
  reward_R: what is learned from: the same, or what another network says; nothing of NaN
  """
  prompt: list[int]
  completions: list[Completion]
  score_R: np.ndarray
  reward_R: np.ndarray


def sample(engine: Engine, params: Any, prompts: Sequence[list[int]], sampling: Sampling,
           seed_PR: np.ndarray, judge: Callable[[int, Completion], float],
           calls: Sequence[Any] = ()) -> list[Group]:
  """Completes each of P prompts R times and judges each completion as soon as it is done.

  Args:
    engine: stops at the end of a turn.
    params: of the policy.
    prompts: ids.
    sampling: how all are drawn, but for the seed.
    seed_PR: a seed for each completion.
    judge: the score of a completion of prompt p, called in threads; NaN where it raises.
    calls: tools that the engine may run.
  """
  P, R = seed_PR.shape

  def judged(index: int, completion: Completion) -> float:
    try:
      return float(judge(index // R, completion))
    except Exception:  # one bad answer or grader never ends a run; it is counted as invalid
      return math.nan

  rows: list[Any] = [None] * (P * R)
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    for index, completion in engine.completed(
        params, [prompt for prompt in prompts for _ in range(R)],
        [dataclasses.replace(sampling, seed=int(seed)) for seed in seed_PR.flat], calls):
      rows[index] = completion, pool.submit(judged, index, completion)
  groups = []
  for p, prompt in enumerate(prompts):
    completions, scores = zip(*rows[p * R:(p + 1) * R])
    score_R = np.array([score.result() for score in scores], np.float32)
    groups.append(Group(prompt, list(completions), score_R, score_R))
  return groups


def informative(group: Group) -> bool:
  """Whether the known rewards of a group differ: else every advantage is 0."""
  known = group.reward_R[np.isfinite(group.reward_R)]
  return len(known) > 0 and bool(known.min() < known.max())


def ids(prompt: list[int], completion: Completion, end: int) -> list[int]:
  """A prompt and its completion as the model sees them, with the `end` that was sampled."""
  return prompt + completion.ids + [end] * completion.finished


def batch(groups: Sequence[Group], end: int, context: int) -> dict[str, np.ndarray]:
  """Arrays [P R, T], a row for each completion, padded to a power of two or the context.

  int32 tokens, positions, segment_ids and loss_mask: 1 for what was sampled, the end token too, 0
  for prompts and for what tools said; float32 rollout_logprobs, the engine's.
  """
  rows = [(group.prompt, one) for group in groups for one in group.completions]
  longest = max(len(ids(*row, end)) for row in rows)
  shape = len(rows), min(max(SHORTEST_ROW, 1 << (longest - 1).bit_length()), context)
  made = {name: np.zeros(shape, np.int32)
          for name in ('tokens', 'positions', 'segment_ids', 'loss_mask')}
  made['rollout_logprobs'] = np.zeros(shape, np.float32)
  for at, (prompt, one) in enumerate(rows):
    whole, after = ids(prompt, one, end), slice(len(prompt), len(prompt) + len(one.logprobs))
    made['tokens'][at, :len(whole)] = whole
    made['positions'][at, :len(whole)] = np.arange(len(whole))
    made['segment_ids'][at, :len(whole)] = 1
    made['loss_mask'][at, after] = one.sampled + [True] * one.finished
    made['rollout_logprobs'][at, after] = one.logprobs
  return made


def overlong(completion: Completion, most: int) -> float:
  """What a completion near the limit of `most` tokens is fined: 0 to -1 over its last fifth.

  -1 where it is cut off (soft overlong punishment: DAPO, 2503.14476, eq. 13).
  """
  if not completion.finished:
    return -1.0
  margin = most / 5
  return -max(0.0, len(completion.logprobs) - (most - margin)) / margin


def chosen(group: Group, how: str, rng: np.random.Generator) -> np.ndarray:
  """Which completions of a group an expert would repeat, as indices.

  Of those right (reward above 0) all, a random one or the shortest; 'best' is the one of the
  highest reward where rewards differ.
  """
  if how == 'best':
    return np.nanargmax(group.reward_R)[None] if informative(group) else np.array([], int)
  right = np.flatnonzero(group.reward_R > 0)
  if how == 'random':
    right = rng.permutation(right)
  elif how == 'shortest':
    right = right[np.argsort([len(group.completions[r].ids) for r in right], kind='stable')]
  return right if how == 'all' else right[:1]


def numbers(groups: Sequence[Group]) -> dict[str, float]:
  """What is worth watching of a draw; shares are of completions, but zero_std is of groups.

  invalid: those that end, but whose reward is not known; zero_std: no two rewards differ.
  """
  reward, score = (np.concatenate([getattr(group, name) for group in groups])
                   for name in ('reward_R', 'score_R'))
  made = [one for group in groups for one in group.completions]
  finished = np.array([one.finished for one in made])
  lengths = np.array([len(one.logprobs) for one in made])
  known = reward[np.isfinite(reward)]
  found = {'reward': np.mean(known) if len(known) else 0.0,
           'reward_std': np.std(known) if len(known) else 0.0,
           'score': np.mean(score[np.isfinite(score)]) if np.isfinite(score).any() else 0.0,
           'zero_std': np.mean([not informative(group) for group in groups]),
           'invalid': np.mean(finished & ~np.isfinite(reward)), 'truncated': np.mean(~finished),
           'tokens': np.mean(lengths), 'tokens_min': np.min(lengths), 'tokens_max': np.max(lengths),
           'tokens_finished': np.mean(lengths[finished]) if finished.any() else 0.0,
           'calls': np.mean([len(told(one)) for one in made])}
  return {name: float(value) for name, value in found.items()}


def told(completion: Completion) -> list[list[int]]:
  """What tools answered, each time: runs of tokens that were not sampled."""
  runs = itertools.groupby(zip(completion.ids, completion.sampled), key=lambda pair: pair[1])
  return [[token for token, _ in run] for sampled, run in runs if not sampled]
