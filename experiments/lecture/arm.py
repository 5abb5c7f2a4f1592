"""An arm of a claim: a model finetuned on some conversations, and answers asked of it.

Arms of one claim share base, seed, steps and batch; only their conversations differ.
"""

import contextlib
import dataclasses
import json
import pathlib
import shutil
import re
from typing import Any, Iterable, Sequence

from experiments import sft, workdir
from nanollm_jax.data.conversations import ChatDataConfig
from nanollm_jax.eval import generative
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.sample.engine import Engine, Sampling
from nanollm_jax.tasks import Task
from nanollm_jax.text import bpe, chat as chat_lib
from nanollm_jax.train.loop import FitConfig


def train(folder: str | pathlib.Path, conversations: Sequence[list[dict]], *, steps: int,
          init_from: str = '', tokenizer: str = 'runs/tokenizer', model: ModelConfig = ModelConfig(),
          learning_rate: float = 1e-3, batch_size: int = 16, seed: int = 0) -> workdir.Opened:
  """Finetunes a model (a fresh one without init_from); an arm that is there is only opened.

  What the run prints goes to log.txt in the folder, its numbers to metrics.jsonl.
  """
  folder = pathlib.Path(folder)
  rows = written(folder / 'conversations.jsonl', ({'messages': one} for one in conversations))
  config = sft.Config(
      workdir=str(folder), init_from=init_from, tokenizer=tokenizer, prompts=(), model=model,
      data=ChatDataConfig((str(rows),), validation_fraction=0.0),
      optim=dataclasses.replace(sft.Config().optim, learning_rate=learning_rate),
      fit=FitConfig(steps=steps, batch_size=batch_size, eval_every=0, sample_every=0,
                    save_every=0, seed=seed))
  print(f'arm       {folder.name}: {len(conversations):,} conversations, {steps} steps', flush=True)
  with open(folder / 'log.txt', 'a') as log, contextlib.redirect_stdout(log):
    sft.main(config)
  return workdir.open_model(str(folder))


def written(path: str | pathlib.Path, rows: Iterable[dict]) -> pathlib.Path:
  """Writes rows; where a run in this folder learned other ones, it is thrown away first."""
  path = pathlib.Path(path)
  text = ''.join(json.dumps(row) + '\n' for row in rows)
  if path.exists() and path.read_text() != text:
    shutil.rmtree(path.parent)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)
  return path


def taught(task: Task, count: int) -> list[list[dict]]:
  """The first training examples of a task as conversations, each asked and solved."""
  examples = (task.example(index, 'train') for index in range(count))
  return [[{'role': 'user', 'content': example.question},
           {'role': 'assistant', 'content': task.solve(example)}] for example in examples]


def vocabulary(folder: str | pathlib.Path, conversations: Iterable[list[dict]], size: int) -> str:
  """A tokenizer of the arms' own, trained on some conversations; the folder that holds it."""
  texts = [text for messages in conversations for message in messages
           for text in (message['role'], *_texts(message['content']))]
  bpe.train(texts, bpe.Config(vocabulary=size)).save(pathlib.Path(folder) / 'tokenizer.json')
  return str(folder)


def _texts(content: str | list[dict]) -> list[str]:
  return [content] if isinstance(content, str) else [part['text'] for part in content]


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What all tiny arms of a claim share.

  conversations: different problems to learn from.
  steps: updates.
  batch_size: rows of model.context tokens, each full of conversations.
  trials: held-out problems that are asked.
  tokens: of an answer at most.
  """
  conversations: int = 20_000
  steps: int = 800
  batch_size: int = 32
  learning_rate: float = 4e-3
  seed: int = 0
  trials: int = 500
  tokens: int = 40
  model: ModelConfig = ModelConfig(depth=2, width=64, heads=2, context=64)


def fresh(folder: str | pathlib.Path, conversations: Sequence[list[dict]], recipe: Recipe,
          words: str) -> workdir.Opened:
  """A tiny model that has learned nothing but some conversations, with the tokenizer `words`."""
  return train(folder, conversations, steps=recipe.steps, tokenizer=words, model=recipe.model,
               learning_rate=recipe.learning_rate, batch_size=recipe.batch_size, seed=recipe.seed)


def compare(folder: str, arms: dict[str, Task], recipe: Recipe, words: str,
            tools: dict | None = None) -> dict[str, list[dict]]:
  """Trains a fresh model on each task and grades its answers, of which one is printed.

  Rows by arm, as of `generative.evaluate`.
  """
  found, answers = {}, None
  for name, task in arms.items():
    opened = fresh(pathlib.Path(folder) / re.sub(r'\W+', '_', name),
                   taught(task, recipe.conversations), recipe, words)
    answers = answers or Answers(opened, slots=64)
    found[name] = answers.graded(opened.params, task, recipe.trials, tools=tools,
                                 sampling=Sampling(recipe.tokens, temperature=0.0))
    one = found[name][0]
    print(f'  {one["question"]!r} -> {one["completion"]!r}; right is {one["answer"]}', flush=True)
  return found


class Answers:
  """Asks models of one shape; compiled once for all arms of a claim."""

  def __init__(self, opened: workdir.Opened, slots: int = 32):
    self.chat = chat_lib.Chat(opened.tokenizer)
    self._engine = Engine(opened.model, [self.chat.end_of_turn, opened.tokenizer.end], slots=slots)

  def ask(self, params: Any, conversations: Sequence[list[dict] | str], *, tools: dict | None = None,
          sampling: Sampling = Sampling(max_tokens=120, temperature=0.0)) -> list[Any]:
    """The engine's completions of conversations that end with the user.

    One that ends with the assistant is gone on with; one that is a string is the beginning of a
    document, for a base model.
    """
    calls = chat_lib.bind(self.chat, tools) if tools else ()
    encode, end = self.chat.tokenizer.encode, self.chat.tokenizer.end
    prompts = [
        [end, *encode(one)] if isinstance(one, str) else
        self.chat.prompt(one[:-1]) + encode(one[-1]['content']) if one[-1]['role'] == 'assistant' else
        self.chat.prompt(one) for one in conversations]
    return self._engine.generate(params, prompts, sampling, calls)

  def texts(self, params: Any, conversations: Sequence[list[dict]], **options: Any) -> list[str]:
    """What a user sees of the completions."""
    return [self.chat.visible(made.ids) for made in self.ask(params, conversations, **options)]

  def graded(self, params: Any, task: Task, trials: int, *, tools: dict | None = None,
             sampling: Sampling = Sampling(max_tokens=120, temperature=0.0)) -> list[dict]:
    """The first test examples of a task, answered: a row each, as of `generative.evaluate`."""
    calls = chat_lib.bind(self.chat, tools) if tools else ()
    return generative.evaluate(task, self._engine, params, self.chat, examples=trials,
                               sampling=sampling, calls=calls)[1]
