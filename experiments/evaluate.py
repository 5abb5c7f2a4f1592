"""Evaluates a workdir: CORE, bits per byte of documents, generative tasks; each with its error.

python -m experiments.evaluate --init_from=runs/sft --tasks=apples,countdown
python -m experiments.evaluate --init_from=runs/pretrain --core='eval/*.jsonl.gz'
"""

import dataclasses
import itertools
import json
import math
import pathlib
import time
from typing import Any, Callable, Iterable, Iterator, Sequence

import jax
import numpy as np

from experiments import jokes, workdir
from nanollm_jax import InputError, flags, tasks
from nanollm_jax.data import documents
from nanollm_jax.eval import choice, core, generative
from nanollm_jax.eval.measure import Measure
from nanollm_jax.model import transformer
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.sample.engine import Engine, Sampling
from nanollm_jax.text import chat as chat_lib
from nanollm_jax.tools.python import Python
from nanollm_jax.tools.search import Search

Found = tuple[str, dict[str, Measure], list[dict[str, Any]]]  # of what, numbers, examples


@dataclasses.dataclass(frozen=True)
class Config:
  """Evaluation; evaluation.json and evaluation.jsonl in the workdir hold the last one.

  init_from: the workdir of a trained model, base or chat.
  step: which checkpoint; unset means the newest, or the best where one is said to be.
  core: files or globs of CORE items, NAME.jsonl or NAME.jsonl.gz, NAME as DCLM calls it.
  documents: files or globs of texts for bits per byte.
  tasks: generative tasks for a chat model, such as apples or knowledge:runs/world/questions.jsonl.
  tools: what it may call in them: python, search:PAGES.jsonl.
  examples: examples of each task at most.
  samples: answers to each question of a generative task; several give pass@k and maj@k.
  slots: answers that are generated at a time.
  one_by_one: every candidate and every answer on its own: the same choices, slower.
  """
  init_from: str = 'runs/sft'
  step: int | None = None
  core: tuple[str, ...] = ()
  documents: tuple[str, ...] = ()
  tasks: tuple[str, ...] = ()
  tools: tuple[str, ...] = ()
  examples: int = 200
  samples: int = 1
  slots: int = 256
  one_by_one: bool = False
  sample: Sampling = Sampling(max_tokens=256, temperature=0.0)

  def __post_init__(self):
    for name in ('examples', 'samples', 'slots'):
      if getattr(self, name) < 1:
        raise InputError(f'--{name}={getattr(self, name)}: give a positive number.')
    if self.samples > 1 and not self.sample.temperature:
      raise InputError(f'--samples={self.samples} are all one at temperature 0: give '
                       '--sample.temperature=1.')


class OneByOne:
  """The plain way, to compare with: a whole forward and all its logits for every request."""

  def __init__(self, config: ModelConfig):
    self.context = config.context
    model = transformer.Transformer(config)
    self._logits = jax.jit(lambda params, tokens: model.apply({'params': params}, tokens).logits())

  def score(self, params: Any, requests: Any) -> list[choice.Score]:
    scores = []
    for request in requests:
      rows = [self._row(params, prefix + window.inputs, window.targets)
              for prefix, windows in choice.windows_of([request], self.context).items()
              for window in windows]
      logprobs, greedy = (np.concatenate(parts) for parts in zip(*rows))
      scores.append(choice.Score(logprobs, bool(greedy.all())))
    return scores

  def _row(self, params: Any, ids: Any, targets: Any) -> tuple[np.ndarray, np.ndarray]:
    length = min(self.context, max(16, 1 << (len(ids) - 1).bit_length()))
    tokens = np.zeros((1, length), np.int32)
    tokens[0, :len(ids)] = ids
    logits = np.asarray(self._logits(params, tokens))[0, len(ids) - len(targets):len(ids)]
    logprobs = logits[np.arange(len(targets)), targets] - np.logaddexp.reduce(logits, axis=1)
    return logprobs, logits.argmax(1) == targets


def main(config: Config) -> None:
  if not (config.core or config.documents or config.tasks):
    raise InputError('nothing to evaluate: give --core, --documents or --tasks.')
  asked, core_asked = list(map(task_of, config.tasks)), core_tasks(config.core)
  if not (config.documents or asked or core_asked):
    raise InputError(f'--core={",".join(config.core)}: no file of it is a task of CORE.')
  tools = tools_of(config.tools)
  opened = workdir.open_model(config.init_from, step=config.step)
  folder = pathlib.Path(config.init_from)
  write(folder, {}, [])  # if it cannot be written, then at once
  scorer = choice.Scorer(opened.model)
  numbers, examples, start = {}, [], time.monotonic()
  print(f'{"task":32} {"measure":22} {"value":>8} {"stderr":>8} {"n":>6}')
  found = itertools.chain(
      of_documents(config, opened, scorer),
      of_core(config, core_asked, opened,
              OneByOne(opened.model) if config.one_by_one else scorer),
      of_tasks(config, asked, tools, opened))
  for name, measures, rows in found:
    for measure, (value, stderr, n) in measures.items():
      print(f'{name:32} {measure:22} {value:8.4f} {stderr:8.4f} {n:6}', flush=True)
      numbers[f'{name}/{measure}'] = dict(
          value=value, stderr=None if math.isnan(stderr) else stderr, n=n)
    examples += rows
    write(folder, numbers, examples)
  print(f'{time.monotonic() - start:.1f} s; wrote {folder}/evaluation.json and {len(examples)} '
        'examples to evaluation.jsonl')


def write(folder: pathlib.Path, numbers: dict[str, Any], examples: list[dict[str, Any]]) -> None:
  """Writes what has been found so far; while that is nothing, what is there stays."""
  texts = {'evaluation.json': json.dumps(numbers, indent=1),
           'evaluation.jsonl': ''.join(json.dumps(row) + '\n' for row in examples)}
  try:
    for name, text in texts.items():
      aside = folder / f'{name}.partial'
      aside.write_text(text)
      aside.replace(folder / name) if numbers else aside.unlink()
  except OSError as error:
    if error.errno in flags.FULL:
      raise
    raise InputError(f'{error.filename} cannot be written ({error.strerror}): copy the workdir to '
                     'where you may write, and give that as --init_from.') from error


def of_documents(config: Config, opened: workdir.Opened, scorer: Any) -> Iterator[Found]:
  """Bits per byte, each document from its beginning in windows of the model's context."""
  if config.documents:
    texts = [text for _, text in itertools.islice(
        documents.read(config.documents), config.examples)]
    yield 'documents', choice.bits_per_byte(scorer, opened.params, opened.tokenizer, texts), []


def of_core(config: Config, asked: Sequence[core.Task], opened: workdir.Opened,
            scorer: Any) -> Iterator[Found]:
  """Tasks of CORE and others in its form, and the mean of the centred accuracies of CORE's."""
  centred = []
  for task in asked:
    measures, rows = core.evaluate(task, scorer, opened.params, opened.tokenizer, config.examples)
    centred += [measures['centred']] * (task.name in core.TASKS)
    yield task.name, measures, rows
  if centred:
    n = len(centred)
    stderr = math.sqrt(sum(one.stderr**2 for one in centred)) / n
    yield f'CORE ({n} of {len(core.TASKS)} tasks)', {
        'centred': Measure(sum(one.value for one in centred) / n, stderr, n)}, []


def core_tasks(patterns: Sequence[str]) -> list[core.Task]:
  """Those of the files or globs; what cannot be read is left out, and said to be."""
  found = []
  for path in documents.find(patterns) if patterns else []:
    try:
      found += core.load(path)
    except InputError as error:
      print(f'left out: {error}')
  return found


def of_tasks(config: Config, asked: Sequence[tasks.Task], tools: dict[str, Callable[[str], str]],
             opened: workdir.Opened) -> Iterator[Found]:
  """Generative tasks, asked as a user would."""
  if asked:
    chat = chat_lib.Chat(opened.tokenizer)
    calls = chat_lib.bind(chat, tools) if tools else ()
    engine = Engine(opened.model, [chat.end_of_turn, opened.tokenizer.end],
                    slots=1 if config.one_by_one else config.slots)
    for name, task in zip(config.tasks, asked):
      yield name, *generative.evaluate(
          task, engine, opened.params, chat, examples=config.examples,
          samples=config.samples, sampling=config.sample, calls=calls)


def task_of(name: str, split: str = 'test') -> tasks.Task:
  """A task by its name, NAME or NAME:DIFFICULTY; one over rows as NAME:FILE.

  All rows are of `split`; '' divides them by hash, and takes those of a world's training questions.
  """
  kind, _, detail = name.partition(':')
  drawn = {make.__name__: make for make in (
      tasks.affine, tasks.apples, tasks.chain, tasks.countdown, tasks.decimals, tasks.dots,
      tasks.letter_count, tasks.multiply, tasks.spelling)} | {'jokes': jokes.task}
  match kind, bool(detail):
    case 'gsm8k', True:
      return tasks.gsm8k(detail, split)
    case 'choice', True:
      return tasks.choice(tasks.read_rows(detail), split)
    case 'knowledge', True:
      return tasks.knowledge(_asked(tasks.read_rows(detail), split or 'train'), split)
    case _, False if kind in drawn:
      return drawn[kind]()
    case _, True if kind in drawn and detail.isdecimal():
      return drawn[kind](int(detail))
  raise InputError(f'{name} is no task: give {", ".join(drawn)}, each perhaps with its '
                   'difficulty as in multiply:3, or gsm8k, choice or knowledge with a file of '
                   'rows behind a colon.')


def _asked(rows: Iterable[dict[str, Any]], split: str) -> Iterator[dict[str, Any]]:
  """Of a world's questions those of a split that have an answer; no conversation told 'test'."""
  for row in rows:
    if row.get('answer') and row.get('split', split) == split:
      yield {'relation': row.get('attribute'), **row}


def tools_of(names: tuple[str, ...]) -> dict[str, Callable[[str], str]]:
  """The tools of --tools by the name that the protocol has for them."""
  found: dict[str, Callable[[str], str]] = {}
  for name in names:
    match name.partition(':'):
      case 'python', '', _:
        found['python'] = Python()
      case 'search', ':', path:
        found['search'] = Search.from_jsonl(path)
      case _:
        raise InputError(f'--tools has {name}: give python or search:PAGES.jsonl.')
  return found


if __name__ == '__main__':
  flags.run(main, Config)
