"""What claims on reinforcement learning share: a tiny model that seldom does what it can; practice.

Six maps of a clock of 11 hours, one after the other: told step by step they are easy, at once they
are a guess (see think_tokens). The model learns the steps, and is then shown answers alone in seven
conversations of eight: so it mostly guesses, and is right about one time in seven.
"""

import contextlib
import dataclasses
import pathlib
import random
from typing import Any, Callable

import numpy as np

from experiments import rl
from experiments.lecture import arm
from experiments.rollouts import Reward
from nanollm_jax import metrics, tasks
from nanollm_jax.sample.engine import Sampling
from nanollm_jax.text import chat as chat_lib, known
from nanollm_jax.train.loop import FitConfig

MAPS = 6
TASK = tasks.affine(MAPS)
VALUES = tuple('ABCDEFGHIJK')
WORDS = 323  # a vocabulary in which each letter is one token
Turn = list[dict[str, str]]  # the parts of an assistant's turn


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


def _first(index: int, split: str) -> tasks.Example:
  example = TASK.example(index, split)
  return example._replace(answer=example.steps.split()[0])


def _nonsense(index: int, split: str) -> tasks.Example:
  drawn = random.Random(index).choices(VALUES, k=MAPS - 1)
  return TASK.example(index, split)._replace(steps=''.join(f' {value}' for value in drawn))


FIRST = TASK._replace(name='first_value', example=_first)  # what is asked for is the first value
NONSENSE = TASK._replace(name='nonsense', example=_nonsense)  # what is told is drawn at random


def told(example: tasks.Example, content: str | Turn) -> list[dict]:
  """A conversation: what was asked, and what the assistant said."""
  return [{'role': 'user', 'content': example.question}, {'role': 'assistant', 'content': content}]


def at_once(example: tasks.Example) -> str:
  """The answer alone, in the same form as behind steps."""
  return TASK.solve(example._replace(steps=''))


def mostly_answers(example: tasks.Example, number: int) -> str:
  """The steps and the answer in one conversation of eight, else the answer alone."""
  return at_once(example) if number % 8 else TASK.solve(example)


def start(config: Practice, task: tasks.Task = TASK,
          show: Callable[[tasks.Example, int], str | Turn] = mostly_answers) -> str:
  """The workdir of a model that learned the steps, and then what `show` says to each problem."""
  recipe, folder = config.teach, pathlib.Path(config.start) / task.name
  examples = [task.example(number, 'train') for number in range(recipe.conversations)]
  words = vocabulary(config)
  arm.fresh(folder / 'steps', [told(one, TASK.solve(one)) for one in examples], recipe, words)
  shown = [told(one, show(one, number)) for number, one in enumerate(examples)]
  arm.train(folder / show.__name__, shown, steps=config.forget, init_from=str(folder / 'steps'),
            learning_rate=recipe.learning_rate / 4, batch_size=recipe.batch_size, seed=recipe.seed)
  return str(folder / show.__name__)


def vocabulary(config: Practice) -> str:
  """The tokenizer of all starts on the clock."""
  return arm.vocabulary(config.start, arm.taught(TASK, 1000), WORDS)


def practise(folder: str | pathlib.Path, init_from: str, config: Practice, practice: rl.RlConfig,
             learning_rate: float, seed: int = 0, *, task: tasks.Task = TASK,
             reward: Reward | None = None, **others: Any) -> dict[str, list[tuple[int, Any]]]:
  """Reinforcement learning on a task; what is there is only read. Name -> [(update, number)].

  What the run prints goes to log.txt in the folder; `others` are fields of rl.Config.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  updates, look = (count * practice.epochs for count in (config.updates, config.eval_every))
  print(f'practice  {folder.name}: {updates} updates', flush=True)
  with open(folder / 'log.txt', 'a') as log, contextlib.redirect_stdout(log):
    rl.train(rl.Config(
        workdir=str(folder), init_from=init_from, task=task.name, rl=practice,
        eval_examples=config.examples, eval_samples=16,
        optim=dataclasses.replace(rl.Config().optim, learning_rate=learning_rate),
        fit=FitConfig(steps=updates, log_every=practice.epochs, eval_every=look, save_every=look,
                      sample_every=updates, seed=seed), **others), task, reward)
  found: dict[str, list[tuple[int, Any]]] = {}
  for row in metrics.read_rows(folder / 'metrics.jsonl'):
    for name, value in row.items():
      found.setdefault(name, []).append((row['step'] // practice.epochs, value))
  return found


def priced(task: tasks.Task, folder: str, price: Callable[[float, Turn], float]
           ) -> tuple[tasks.Task, Reward]:
  """The task, and a reward that sees whole turns: `price` of the grade and of the turn's parts."""
  chat, asked = chat_lib.Chat(known.from_name_or_file(folder)), {}

  def example(index: int, split: str) -> tasks.Example:
    found = task.example(index, split)
    return asked.setdefault(found.question, found)

  def worth(ids: list[int]) -> float:
    question = chat.parse(ids)[:1]
    made = ids[len(chat.prompt(question)):]
    grade = task.grade(asked[question[0]['content']], chat.visible(made))
    return price(grade.score, chat.parse_turn(made))

  return (task._replace(example=example),
          lambda rows: np.array([worth(ids) for ids in rows], np.float32))


def turns(answers: arm.Answers, params: Any, task: tasks.Task, trials: int,
          sampling: Sampling, tools: dict | None = None) -> list[tuple[tasks.Example, float, Turn]]:
  """The first test examples of a task, each with the grade and the parts of an answer to it."""
  asked = [task.example(index, 'test') for index in range(trials)]
  made = answers.ask(params, [told(one, '')[:1] for one in asked], tools=tools, sampling=[
      dataclasses.replace(sampling, seed=number) for number in range(trials)])
  return [(example, task.grade(example, answers.chat.visible(one.ids)).score,
           answers.chat.parse_turn(one.ids)) for example, one in zip(asked, made)]


def said(parts: Turn) -> str:
  """The text of a turn, without thoughts, calls and what tools answered."""
  return ''.join(part['text'] for part in parts if part['type'] == 'text')
