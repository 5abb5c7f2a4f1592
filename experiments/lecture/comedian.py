"""What claims on jokes share: a tiny model that tells jokes, and one that judges them.

The judge begins as the teller and learns from rankings of five jokes, as people who are not quite
of one mind would put them in order. The world knows how good each joke really is.
"""

import contextlib
import dataclasses
import pathlib
from typing import Any, NamedTuple, Sequence

from experiments import jokes, reward_model, rl, workdir
from experiments.lecture import arm
from nanollm_jax import metrics
from nanollm_jax.data.rankings import RankingDataConfig
from nanollm_jax.eval.measure import Measure, mean
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.objectives.reward import RewardConfig as Loss
from nanollm_jax.sample.engine import Sampling
from nanollm_jax.train.loop import FitConfig
from nanollm_jax.world import joke

TOKENS = 48  # of a joke at most
FRESH = 10**6  # the first seed of jokes that no checkpoint was chosen by
TELLER = arm.Recipe(conversations=10_000, steps=400, model=ModelConfig(
    depth=2, width=64, heads=2, context=96))


@dataclasses.dataclass(frozen=True)
class Judging:
  """How a judge is made.

  rankings: of five jokes each, held-out ones among them.
  held_out: the share of their prompts that is.
  steps: updates.
  batch_size: rankings of an update.
  """
  rankings: int = 1000
  held_out: float = 0.2
  steps: int = 400
  batch_size: int = 16
  learning_rate: float = 2e-3


def teller(folder: str | pathlib.Path, recipe: arm.Recipe) -> str:
  """The workdir, in a folder, of a model that has read jokes and nothing else."""
  told = [joke.conversation(recipe.seed, number) for number in range(recipe.conversations)]
  folder = pathlib.Path(folder)
  arm.fresh(folder / 'teller', told, recipe, arm.vocabulary(folder, told[:5000], 704))
  return str(folder / 'teller')


def judge(folder: str | pathlib.Path, start: str, config: Judging, seed: int = 0
          ) -> reward_model.Config:
  """The run of a reward model that began as the teller in `start`; it prints to log.txt."""
  path = arm.written(pathlib.Path(folder) / 'rankings.jsonl',
                     (joke.ranking(seed, number) for number in range(config.rankings)))
  made = reward_model.Config(
      workdir=str(folder), init_from=start,
      data=RankingDataConfig((str(path),), validation_fraction=config.held_out),
      reward_model=Loss('plackett_luce'),
      optim=dataclasses.replace(reward_model.Config().optim, learning_rate=config.learning_rate),
      fit=FitConfig(steps=config.steps, batch_size=config.batch_size, save_every=0, seed=seed,
                    eval_every=max(1, config.steps // 3), sample_every=config.steps))
  print(f'judge     {config.rankings:,} rankings, {config.steps} steps', flush=True)
  with open(path.with_name('log.txt'), 'a') as log, contextlib.redirect_stdout(log):
    reward_model.main(made)
  return made


def please(folder: str | pathlib.Path, start: str, judges: Sequence[str], updates: int,
           learning_rate: float, kl: float = 0.0, seed: int = 0) -> list[dict[str, Any]]:
  """Reinforcement learning of the teller in `start` for its judges; the rows of its numbers."""
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  print(f'practice  {folder.name}: {updates} updates', flush=True)
  with open(folder / 'log.txt', 'a') as log, contextlib.redirect_stdout(log):
    rl.main(rl.Config(
        workdir=str(folder), init_from=start, task='jokes',
        rl=rl.RlConfig(prompts=16, group=8, max_tokens=TOKENS, slots=128),
        reward=rl.RewardConfig(tuple(judges)),
        policy=rl.PolicyConfig(kl='reward' if kl else 'none', kl_coefficient=kl),
        eval_examples=128, eval_samples=1,
        optim=dataclasses.replace(rl.Config().optim, learning_rate=learning_rate),
        fit=FitConfig(steps=updates, log_every=1, eval_every=5, sample_every=updates,
                      save_every=0, seed=seed)))
  return metrics.read_rows(folder / 'metrics.jsonl')


class Heard(NamedTuple):
  """Jokes: rows as of `generative.evaluate`, with gold and judge; the means of both."""
  rows: list[dict[str, Any]]
  gold: Measure
  judge: Measure


class Audience:
  """Hears what models of one shape tell to prompts held out, and knows what it is worth."""

  def __init__(self, opened: workdir.Opened, score: reward_model.Score):
    self._answers, self._score = arm.Answers(opened, slots=128), score

  def hear(self, params: Any, prompts: int, each: int = 1) -> Heard:
    """So many jokes to each of so many prompts, those of a prompt in a row."""
    task = jokes.task(seed=1)
    again = task._replace(example=lambda index, split: task.example(index // each, split))
    rows = self._answers.graded(params, again, prompts * each,
                                sampling=Sampling(TOKENS, seed=FRESH))
    said = self._score([self._answers.chat.render([
        {'role': 'user', 'content': row['question']},
        {'role': 'assistant', 'content': row['completion']}]).ids for row in rows])
    for row, value in zip(rows, said):
      row |= {'gold': jokes.BEST * row['score'], 'judge': float(value)}
    return Heard(rows, mean([row['gold'] for row in rows]), mean([row['judge'] for row in rows]))
