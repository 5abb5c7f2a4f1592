"""Rollouts as batches: what the policy samples, judged and made into the rows of updates."""

import base64
import dataclasses
import io
import time
from typing import Any, Callable, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import training
from nanollm_jax import InputError, mesh as mesh_lib
from nanollm_jax.model.config import flops_per_token
from nanollm_jax.objectives import policy
from nanollm_jax.objectives.language import shift
from nanollm_jax.objectives.logprobs import logprobs
from nanollm_jax.sample import rollouts
from nanollm_jax.sample.engine import Engine, Sampling
from nanollm_jax.sample.rollouts import Group
from nanollm_jax.tasks import Task
from nanollm_jax.text import chat as chat_lib
from nanollm_jax.text.chat import Chat

TOLD = ('reward', 'zero_std', 'tokens', 'kl')  # what the terminal says of rollouts
Reward = Callable[[list[list[int]]], np.ndarray]  # ids of prompts with completions -> float [B]


@dataclasses.dataclass(frozen=True)
class RlConfig:
  """How rollouts are drawn and what is made of them.

  method: policy (gradients of rewards, see --policy), or expert (repeat the chosen ones, as SFT).
  prompts: different prompts of one draw.
  group: completions of each.
  choose: of the right completions of a prompt, which an expert repeats; best: the one of the
    highest reward, right or not.
  epochs: passes over what was drawn; more than 1, or a smaller --fit.batch_size, and later
    updates are off-policy.
  rounds: draws at most until each of the prompts' groups has rewards that differ; 1 takes all.
  truncated: a completion cut off by max_tokens gets zero (of a reward model: --reward.unfinished),
    or is left out (mask); soft: it gets 1 less than zero, and those that end within the last
    fifth of max_tokens lose up to 1, in proportion.
  max_tokens: of a completion.
  temperature: of rollouts and evaluations; the loss is of the same distribution.
  slots: completions that are decoded at one time.
  """
  method: Literal['policy', 'expert'] = 'policy'
  prompts: int = 32
  group: int = 16
  choose: Literal['random', 'all', 'shortest', 'best'] = 'random'
  epochs: int = 1
  rounds: int = 1
  truncated: Literal['zero', 'mask', 'soft'] = 'zero'
  max_tokens: int = 64
  temperature: float = 1.0
  slots: int = 128

  def __post_init__(self):
    for name in ('prompts', 'group', 'epochs', 'rounds', 'max_tokens', 'slots', 'temperature'):
      if getattr(self, name) <= 0:
        raise InputError(f'--rl.{name}={getattr(self, name)} must be above 0.')

  @property
  def rows(self) -> int:
    """Rows of one draw: an expert repeats one completion of a prompt, or all."""
    one = self.method == 'expert' and self.choose != 'all'
    return self.prompts * (1 if one else self.group)


@dataclasses.dataclass(frozen=True)
class RewardConfig:
  """A learned reward.

  init_from: the workdir of a reward model, or several: an ensemble; empty takes the grades of the
    task. Members that were pretrained apart err apart.
  ensemble: what several say together: the mean of their scores, or the min.
  caution: how many standard deviations of the members' scores are taken off.
  unfinished: the reward of a completion without an end.
  kl_target: nats a completion may drift from the start, held by adapting --policy.kl_coefficient
    (with --policy.kl=reward); 0 leaves the coefficient as it is.
  kl_horizon: completions over which the coefficient adapts.
  crop: what comes next gets the checkpoint that the task's grader found best, not the last.
  """
  init_from: tuple[str, ...] = ()
  ensemble: Literal['mean', 'min'] = 'mean'
  caution: float = 0.0
  unfinished: float = -1.0
  kl_target: float = 0.0
  kl_horizon: int = 10_000
  crop: bool = True

  def __post_init__(self):
    for name in ('caution', 'kl_target'):
      if getattr(self, name) < 0:
        raise InputError(f'--reward.{name}={getattr(self, name)} is negative.')
    if self.kl_horizon < 1:
      raise InputError(f'--reward.kl_horizon={self.kl_horizon}: give at least 1.')

  def of(self, score_MB: np.ndarray) -> np.ndarray:
    """float32 [B]: what M members say together."""
    together_B = score_MB.min(axis=0) if self.ensemble == 'min' else score_MB.mean(axis=0)
    return together_B - self.caution * score_MB.std(axis=0)


class Rollouts:
  """Batches that the policy draws itself: those of step t follow from the seed, t and params."""

  def __init__(self, config: Any, task: Task, reward: Reward | None, chat: Chat,
               engine: Engine, calls: Any, run: training.Run, reference: Any):
    self._config, self._task, self._reward, self._chat = config, task, reward, chat
    self._engine, self._calls, self._run = engine, calls, run
    self._reference = reference

    def own(params, batch):  # each token's log-probability, at the token's own place
      out = run.apply(params, batch['tokens'], batch['positions'], batch['segment_ids'])
      found_BT = logprobs(out.hidden_BTD, out.head_VD, shift(batch['tokens']),
                          temperature=config.rl.temperature)
      return jnp.pad(found_BT[:, :-1], ((0, 0), (1, 0))) * batch['loss_mask']

    self._logprobs = jax.jit(own, out_shardings=mesh_lib.sharding(run.mesh))  # all of us read all
    self._length = float(optax.global_norm(reference))  # by which it is known again
    self._coefficient = config.policy.kl_coefficient
    self._rows: dict[str, np.ndarray] = {}  # what was drawn
    self._order: list[list[int]] = []  # of updates to come the rows that each takes
    self._numbers: dict[str, float] = {}

  def draw(self, state: Any) -> dict[str, np.ndarray]:
    """The rows of the next update; draws new ones where those there have been used."""
    if not self._order:
      self._roll(int(state.step), state.params)
    rows = self._order.pop(0)
    batch = {name: values[rows] for name, values in self._rows.items()}
    tokens, length = batch['tokens'].size, batch['tokens'].shape[1]  # as long as it must be
    self._run.log.resize(tokens, tokens * flops_per_token(self._config.model, length))
    self._drawn = time.perf_counter()
    return self._ours(batch)

  def numbers(self, step: int, _: Any) -> dict[str, float]:
    """What the newest draw was like, and the seconds of drawing, judging and this update."""
    seconds = {'update_seconds': time.perf_counter() - self._drawn}
    return {f'rollout{"/" if name in TOLD else "_"}{name}': value
            for name, value in (self._numbers | seconds).items()}

  def get_state(self) -> dict[str, Any]:
    held = io.BytesIO()
    if self._order:
      np.savez_compressed(held, **self._rows)
    numbers = {name: value for name, value in self._numbers.items() if 'second' not in name}
    return {'coefficient': self._coefficient, 'order': self._order, 'numbers': numbers,
            'reference': self._length, 'rows': base64.b64encode(held.getvalue()).decode()}

  def set_state(self, state: dict[str, Any]) -> None:
    if not np.isclose(state['reference'], self._length, rtol=1e-5):
      raise InputError(f'--init_from={self._config.init_from} holds another model than this run '
                       'began as, and KL is measured from that: give the one it began as, or '
                       'another --workdir to begin anew.')
    self._coefficient, self._order, self._numbers = (
        state[name] for name in ('coefficient', 'order', 'numbers'))
    if self._order:
      self._rows = dict(np.load(io.BytesIO(base64.b64decode(state['rows']))))

  def close(self) -> None:
    pass

  def _roll(self, step: int, params: Any) -> None:
    """Draws groups and makes of them rows, and the order in which updates take these."""
    config, rl, begun = self._config, self._config.rl, time.perf_counter()
    groups, drawn, useful, self._too_long = [], 0, 0, 0
    while not drawn or drawn < rl.rounds * rl.prompts and not rollouts.informative(groups[-1]):
      rng = np.random.default_rng([config.fit.seed, step, drawn])
      found = self._sample(params, rng)
      drawn, useful = drawn + len(found), useful + sum(map(rollouts.informative, found))
      groups = sorted(groups + found, key=rollouts.informative, reverse=True)[:rl.prompts]
    sampled = time.perf_counter()
    self._rows = rollouts.batch(groups, self._chat.end_of_turn, config.model.context)
    self._numbers = rollouts.numbers(groups) | {
        'accepted': useful / drawn, 'too_long': float(self._too_long),
        'calls_failed': self._failed(groups),
        'kl_coefficient': self._coefficient}
    self._numbers['kl'] = self._teach(groups, params)
    if rl.method == 'expert':
      self._repeat(groups, rng)
    order = np.arange(config.rl.rows)
    for _ in range(rl.epochs):
      if config.fit.batch_size < len(order):
        rng.shuffle(order)
      self._order += order.reshape(-1, config.fit.batch_size).tolist()
    self._numbers |= {'prompts_per_second': drawn / (sampled - begun),
                      'draw_seconds': sampled - begun,
                      'teach_seconds': time.perf_counter() - sampled}

  def _sample(self, params: Any, rng: np.random.Generator) -> list[Group]:
    """Groups of as many training problems as a draw has, with their rewards."""
    rl, task, chat = self._config.rl, self._task, self._chat
    examples, prompts = [], []
    while len(prompts) < rl.prompts:
      size = task.size('train') if task.size else 0
      example = task.example(int(rng.integers(size or 2**31)), 'train')
      prompt = chat.prompt([{'role': 'user', 'content': example.question}])
      if len(prompt) < self._config.model.context:
        examples.append(example)
        prompts.append(prompt)
        continue
      self._too_long += 1
      if self._too_long > 100 * rl.prompts:
        raise InputError(f'--task={task.name}: hardly a question is shorter than the context of '
                         f'{self._config.model.context} tokens: take an easier task, or a model '
                         'with a larger context.')
    groups = rollouts.sample(
        self._engine, params, prompts, Sampling(rl.max_tokens, rl.temperature),
        rng.integers(2**32, size=(rl.prompts, rl.group)),
        lambda p, made: task.grade(examples[p], chat.visible(made.ids)).score, self._calls)
    return [group._replace(reward_R=reward_R)
            for group, reward_R in zip(groups, self._rewards(groups))]

  def _rewards(self, groups: list[Group]) -> np.ndarray:
    """[P, R]: the grades, or the rewards of a model; and what truncated completions get."""
    reward_PR = np.stack([group.score_R for group in groups])
    unfinished = np.nan if self._config.rl.truncated == 'mask' else 0.0
    if self._reward:
      whole = [rollouts.ids(group.prompt, one, self._chat.end_of_turn)
               for group in groups for one in group.completions]
      reward_PR = np.asarray(self._reward(whole), np.float32).reshape(reward_PR.shape)
      unfinished += self._config.reward.unfinished
    finished_PR = [[one.finished for one in group.completions] for group in groups]
    reward_PR = np.where(finished_PR, reward_PR, np.float32(unfinished))
    if self._config.rl.truncated == 'soft':
      reward_PR += np.array([[rollouts.overlong(one, self._config.rl.max_tokens)
                              for one in group.completions] for group in groups], np.float32)
    return reward_PR

  def _failed(self, groups: list[Group]) -> float:
    """How many calls of a completion were answered with an error, on average."""
    made = [one for group in groups for one in group.completions]
    return sum(self._chat.text(ids).startswith(chat_lib.ERROR)
               for one in made for ids in rollouts.told(one)) / len(made)

  def _teach(self, groups: list[Group], params: Any) -> float:
    """Writes into the rows what the objective needs; returns the mean KL from the start."""
    config, rows = self._config, self._rows
    reward_B = np.concatenate([group.reward_R for group in groups])
    rows['ref_logprobs'] = self._of_all(self._reference)
    if config.rl.method == 'policy' and config.rl.epochs * config.rl.rows > config.fit.batch_size:
      rows['old_logprobs'] = self._of_all(params)
    drawn = rows['rollout_logprobs'], rows['ref_logprobs'], rows['loss_mask']
    drift = -float(np.mean(policy.kl_in_reward(np.zeros_like(reward_B), *drawn, 1.0)))
    if config.policy.kl == 'reward':
      reward_B = policy.kl_in_reward(reward_B, *drawn, self._coefficient)
    reward_PR = np.reshape(reward_B, (len(groups), -1))
    if config.reward.kl_target:
      self._coefficient = policy.adapted(self._coefficient, drift, reward_PR.size,
                                         config.reward.kl_target, config.reward.kl_horizon)
    known_PR = np.isfinite(reward_PR)
    advantage_PR = np.asarray(policy.advantages(reward_PR, known_PR, config.policy.advantage))
    rows['loss_mask'] = rows['loss_mask'] * known_PR.reshape(-1, 1)
    rows['advantages'] = advantage_PR.reshape(-1, 1) * rows['loss_mask'].astype(np.float32)
    self._numbers |= {'advantage_min': float(advantage_PR.min()),
                      'advantage_max': float(advantage_PR.max())}
    return drift

  def _of_all(self, params: Any) -> np.ndarray:
    """Log-probabilities of all rows, as many at a time as an update has."""
    size = self._config.fit.batch_size
    parts = ({name: values[at:at + size] for name, values in self._rows.items()}
             for at in range(0, len(self._rows['tokens']), size))
    return np.concatenate([
        self._logprobs(params, self._run.put(self._ours(part))) for part in parts])

  def _ours(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """This process's slice of rows: every process draws all of them, over all devices."""
    index, count = mesh_lib.share(self._run.mesh)
    return {name: np.split(values, count)[index] for name, values in batch.items()}

  def _repeat(self, groups: list[Group], rng: np.random.Generator) -> None:
    """Keeps of the rows those that the expert repeats; empty rows fill up."""
    R = self._config.rl.group
    kept = np.concatenate([p * R + rollouts.chosen(group, self._config.rl.choose, rng)
                           for p, group in enumerate(groups)])
    empty = ((0, self._config.rl.rows - len(kept)), (0, 0))
    self._rows = {name: np.pad(self._rows[name][kept], empty)
                  for name in ('tokens', 'positions', 'segment_ids', 'loss_mask')}
    self._numbers['repeated'] = float(len(kept))
