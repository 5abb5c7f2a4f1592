"""What claims on reinforcement learning share: a tiny model that seldom does what it can; practice.

Six maps of a clock of 11 hours, one after the other: told step by step they are easy, at once they
are a guess (see think_tokens). The model learns the steps, and is then shown answers alone in seven
conversations of eight: so it mostly guesses, and is right about one time in seven.
"""

import contextlib
import dataclasses
import pathlib
import random
from typing import Any

from experiments import rl
from experiments.lecture import arm
from nanollm_jax import metrics, tasks
from nanollm_jax.train.loop import FitConfig

MAPS = 6
TASK = tasks.affine(MAPS)
GUESSES = tasks.affine(MAPS, MAPS)  # the same problems, no value told before the answer
VALUES = ' A', ' B', ' C', ' D', ' E', ' F', ' G', ' H', ' I', ' J', ' K'


@dataclasses.dataclass(frozen=True)
class Practice:
  """The start and how it is practised on.

  start: where the models go that claims begin with.
  teach: how the steps are learned.
  forget: updates in which mostly answers alone are shown.
  updates: of reinforcement learning.
  eval_every: updates between two looks at held-out problems.
  examples: held-out problems, each asked 16 times.
  """
  start: str = 'runs/practice'
  teach: arm.Recipe = arm.Recipe(steps=750)
  forget: int = 250
  updates: int = 60
  eval_every: int = 10
  examples: int = 200


def start(config: Practice, sense: bool = True) -> str:
  """The workdir of the start; without `sense` the steps it is taught are drawn at random."""
  rng = random.Random(0)

  def taught(example: tasks.Example) -> list[dict]:
    if not sense:
      example = example._replace(steps=''.join(rng.choices(VALUES, k=MAPS - 1)))
    return [{'role': 'user', 'content': example.question},
            {'role': 'assistant', 'content': TASK.solve(example)}]

  recipe, folder = config.teach, pathlib.Path(config.start) / ('sense' if sense else 'no_sense')
  steps = [taught(TASK.example(k, 'train')) for k in range(recipe.conversations)]
  answers = arm.taught(GUESSES, recipe.conversations)
  words = arm.vocabulary(config.start, arm.taught(TASK, 1000), 323)  # each letter is one token
  arm.fresh(folder / 'steps', steps, recipe, words)
  mixed = [answers[k] if k % 8 else steps[k] for k in range(recipe.conversations)]
  arm.train(folder / 'mixed', mixed, steps=config.forget, init_from=str(folder / 'steps'),
            learning_rate=recipe.learning_rate / 4, batch_size=recipe.batch_size, seed=recipe.seed)
  return str(folder / 'mixed')


def practise(folder: str | pathlib.Path, init_from: str, config: Practice, practice: rl.RlConfig,
             learning_rate: float, seed: int = 0) -> dict[str, list[tuple[int, Any]]]:
  """Reinforcement learning on the task; what is there is only read. Name -> [(update, number)].

  What the run prints goes to log.txt in the folder.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  updates = config.updates * practice.epochs
  print(f'practice  {folder.name}: {updates} updates', flush=True)
  with open(folder / 'log.txt', 'a') as log, contextlib.redirect_stdout(log):
    rl.main(rl.Config(
        workdir=str(folder), init_from=init_from, task=f'affine:{MAPS}', rl=practice,
        eval_examples=config.examples, eval_samples=16,
        optim=dataclasses.replace(rl.Config().optim, learning_rate=learning_rate),
        fit=FitConfig(steps=updates, log_every=practice.epochs,
                      eval_every=config.eval_every * practice.epochs, sample_every=updates,
                      save_every=0, seed=seed)))
  found: dict[str, list[tuple[int, Any]]] = {}
  for row in metrics.read_rows(folder / 'metrics.jsonl'):
    for name, value in row.items():
      found.setdefault(name, []).append((row['step'] // practice.epochs, value))
  return found
