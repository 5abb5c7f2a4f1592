"""CORE (DCLM, arXiv:2406.11794): 22 tasks of three forms for base models, few-shot, in batches.

An item is `{query, choices, gold}` (multiple choice), `{context_options, continuation, gold}`
(schema) or `{context, continuation}` (language modelling), one a line of a JSONL file.
"""

import gzip
import json
import math
import pathlib
import random
import zlib
from typing import Any, NamedTuple, Sequence

from nanollm_jax import InputError
from nanollm_jax.eval.choice import Request, Score, Scorer
from nanollm_jax.eval.measure import Measure, mean

# name: file, shots, delimiter before the answer, score of guessing. From mlfoundations/dclm,
# eval/heavy.yaml and eval_meta_data.csv; the two odd baselines are DCLM's own.
_ANSWER = '\nAnswer: '
TASKS: dict[str, tuple[str, int, str, float]] = {
    'hellaswag_zeroshot': ('hellaswag', 0, ' ', 0.25),
    'jeopardy': ('jeopardy', 10, _ANSWER, 0.0),
    'bigbench_qa_wikidata': ('bigbench_qa_wikidata', 10, ' ', 0.0),
    'arc_easy': ('arc_easy', 10, _ANSWER, 0.25),
    'arc_challenge': ('arc_challenge', 10, _ANSWER, 0.25),
    'copa': ('copa', 0, ' ', 0.5),
    'commonsense_qa': ('commonsense_qa', 10, ' ', 0.403),
    'piqa': ('piqa', 10, _ANSWER, 0.5),
    'openbook_qa': ('openbook_qa', 0, ' ', 0.25),
    'lambada_openai': ('lambada_openai', 0, ' ', 0.0),
    'hellaswag': ('hellaswag', 10, ' ', 0.25),
    'winograd': ('winograd', 0, ' ', 0.5),
    'winogrande': ('winogrande', 0, ' ', 0.5),
    'bigbench_dyck_languages': ('bigbench_dyck_languages', 10, ' ', 0.0),
    'agi_eval_lsat_ar': ('agi_eval_lsat_ar', 3, ' ', 0.25),
    'bigbench_cs_algorithms': ('bigbench_cs_algorithms', 10, ' ', 0.0),
    'bigbench_operators': ('bigbench_operators', 10, ' ', 0.0),
    'bigbench_repeat_copy_logic': ('bigbench_repeat_copy_logic', 10, ' ', 0.0),
    'squad': ('squad', 10, ' ', 0.0),
    'coqa': ('coqa', 0, ' ', 0.0),
    'boolq': ('boolq', 10, _ANSWER, 0.62),
    'bigbench_language_identification': ('bigbench_language_identification', 10, ' ', 0.25),
}


class Task(NamedTuple):
  """Items of one file and how they are asked; `baseline` is the accuracy of guessing."""
  name: str
  items: list[dict[str, Any]]
  shots: int = 0
  delimiter: str = ' '
  baseline: float = 0.0


class Asked(NamedTuple):
  """An item as token ids: one request a candidate; the first `skip` scored tokens are common."""
  requests: list[Request]
  skip: int = 0


def load(path: str | pathlib.Path) -> list[Task]:
  """The CORE tasks of a file NAME.jsonl or NAME.jsonl.gz; any other NAME is asked without shots.

  Raises InputError where the file cannot be read or a line is no item.
  """
  path, number = pathlib.Path(path), 1
  items = []
  try:
    with gzip.open(path, 'rt') if path.suffix == '.gz' else path.open() as file:
      for number, line in enumerate(file, 1):
        items.append(json.loads(line))
        _check(items[-1], items[0])
    items[0]
  except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
    raise InputError(f'{path} line {number} is no CORE item ({error}): give {{query, choices, '
                     'gold}, {context_options, continuation, gold} or {context, continuation}.'
                     ) from error
  except (OSError, EOFError, zlib.error) as error:
    raise InputError(f'{path} cannot be read ({error}): give a .jsonl(.gz) file.') from error
  stem = path.name.removesuffix('.gz').removesuffix('.jsonl')
  tasks = [Task(name, items, *how) for name, (file, *how) in TASKS.items() if file == stem]
  guess = 0.0 if 'gold' not in items[0] else 1 / len(_candidates(items[0]))
  tasks = tasks or [Task(stem, items, baseline=guess)]
  for task in tasks:
    if len(items) <= task.shots:
      raise InputError(f'{path} has {len(items)} items, but {task.name} shows {task.shots} beside '
                       'the one asked: give a file with more.')
  return tasks


def evaluate(task: Task, scorer: Scorer, params: Any, tokenizer: Any,
             examples: int) -> tuple[dict[str, Measure], list[dict[str, Any]]]:
  """Accuracy and centred accuracy of the first `examples` items, and a row for each.

  Multiple choice also gets lm-eval's acc (most probable choice) and acc_norm (per character).
  """
  indices = range(min(examples, len(task.items)))
  asked = [ask(task, index, tokenizer, scorer.context) for index in indices]
  flat = iter(scorer.score(params, [request for one in asked for request in one.requests]))
  rows = [dict(task=task.name, index=index, **judge(
      task.items[index], [next(flat) for _ in one.requests], one.skip))
          for index, one in zip(indices, asked)]
  accuracy = mean([row['right'] for row in rows])
  numbers = {'accuracy': accuracy, 'centred': Measure(
      (accuracy.value - task.baseline) / (1 - task.baseline),
      accuracy.stderr / (1 - task.baseline), accuracy.n)}
  harness = {name: mean([row[name] for row in rows]) for name in ('acc', 'acc_norm')
             if name in rows[0]}
  return numbers | harness, rows


def texts(task: Task, index: int) -> tuple[list[str], list[str]]:
  """How the candidates read up to the answer, each way once, and with it; shots are other items."""
  others = [other for other in range(len(task.items)) if other != index]
  shots = []
  for other in random.Random(1234 + index).sample(others, task.shots):
    item = task.items[other]
    context, answer = _candidates(item)[item.get('gold', 0)]
    shots.append(f'{context}{task.delimiter}{answer}\n\n')
  stems = [(''.join(shots) + context + task.delimiter, answer)
           for context, answer in _candidates(task.items[index])]
  # The space before an answer belongs to its first token, so no stem may end in it.
  return (list(dict.fromkeys(stem.rstrip() for stem, _ in stems)),
          [stem + answer for stem, answer in stems])


def ask(task: Task, index: int, tokenizer: Any, context: int) -> Asked:
  """An item as requests; all its candidates see equally much of what stands before them."""
  stems, wholes = ([[tokenizer.end, *ids] for ids in tokenizer.encode_batch(group)]
                   for group in texts(task, index))
  skip = 0
  shortest = min(map(len, wholes))
  if 'context_options' in task.items[index]:
    suffix = min(_common([ids[::-1] for ids in wholes]), shortest - 1)
    starts = [len(ids) - suffix for ids in wholes]
  else:
    starts = [min(_common([*stems, *wholes]), shortest - 1)] * len(wholes)
    skip = min(_common(wholes), shortest - 1) - starts[0] if len(wholes) > 1 else 0
  room = max(1, context + 1 - max(len(ids) - start for ids, start in zip(wholes, starts)))
  return Asked([(ids[:start][-room:], ids[start:]) for ids, start in zip(wholes, starts)], skip)


def judge(item: dict[str, Any], scores: Sequence[Score], skip: int) -> dict[str, Any]:
  """The choice made, by the highest mean log-probability of the tokens that tell them apart."""
  if 'gold' not in item:
    return dict(right=scores[0].greedy, logprobs=[scores[0].total])
  best = lambda values: max(range(len(values)), key=values.__getitem__)
  means = [math.fsum(score.logprobs[skip:]) / len(score.logprobs[skip:]) for score in scores]
  totals = [score.total for score in scores]
  row = dict(gold=item['gold'], choice=best(means), right=best(means) == item['gold'])
  if 'choices' in item:
    by_length = [total / max(1, len(text)) for total, text in zip(totals, item['choices'])]
    row |= dict(acc=best(totals) == item['gold'], acc_norm=best(by_length) == item['gold'])
  return row | dict(logprobs=totals)


def _check(item: dict[str, Any], first: dict[str, Any]) -> None:
  """ValueError, or another, where an item cannot be asked, or is of another form than the first."""
  made, gold = _candidates(item), item.get('gold', 0)
  if not all(isinstance(text, str) for pair in made for text in pair):
    raise ValueError('its parts are no texts')
  if type(gold) is not int or not 0 <= gold < len(made) or 'gold' in item and len(made) < 2:
    raise ValueError(f'gold is {gold}, of {len(made)} candidates')
  for key in ('choices', 'context_options', 'gold'):
    if (key in item) != (key in first):
      raise ValueError(f'{key} is not in all lines')


def _candidates(item: dict[str, Any]) -> list[tuple[str, str]]:
  """(context, answer) of each candidate; a language modelling item has one."""
  if 'choices' in item:
    return [(item['query'], choice) for choice in item['choices']]
  if 'context_options' in item:
    return [(context, item['continuation']) for context in item['context_options']]
  return [(item['context'].strip(), item['continuation'])]


def _common(rows: Sequence[Sequence[int]]) -> int:
  """How many first ids all rows share."""
  shared = 0
  for ids in zip(*rows):
    if len(set(ids)) > 1:
      break
    shared += 1
  return shared
