"""Generative tasks: questions to a chat model, answers graded; pass@k and maj@k over samples."""

import collections
import dataclasses
import math
import random
from typing import Any, Hashable, Sequence

from nanollm_jax import InputError
from nanollm_jax.eval.measure import Measure, mean
from nanollm_jax.sample.engine import Engine, Sampling
from nanollm_jax.tasks import answers
from nanollm_jax.tasks.task import Example, Grade, Task


def evaluate(task: Task, engine: Engine, params: Any, chat: Any, *, examples: int = 200,
             samples: int = 1, sampling: Sampling = Sampling(), split: str = 'test',
             calls: Sequence[Any] = ()) -> tuple[dict[str, Measure], list[dict[str, Any]]]:
  """Asks the first `examples` questions of a task, `samples` times each, and grades the answers.

  Args:
    task: where questions and grades come from.
    engine: stops at the chat's end of turn.
    params: the model's parameters.
    chat: the renderer of conversations; graders see its visible text only.
    examples: questions at most; errors are taken over them, not over samples.
    samples: answers to a question; sample s draws with the seed sampling.seed + s.
    sampling: how answers are drawn.
    split: whose examples.
    calls: tools that the engine may run.

  Returns:
    name -> Measure, and a row for each answer. Measures: accuracy, also of each kind of problem;
    lenient accuracy where the task has it; shares of answers that are valid and that end by
    themselves; length in tokens; with several samples maj@k and, where every answer is right or
    wrong, pass@k, k = 1, 2, 4 .. samples.
    A question that the engine has no room for is left out; where there are such, too_long is
    their share. InputError where no question is left.
  """
  examples = min(examples, task.size(split)) if task.size else examples
  asked = [task.example(index, split) for index in range(examples)]
  prompts = [chat.prompt([{'role': 'user', 'content': one.question}]) for one in asked]
  fits = [len(prompt) < engine.length for prompt in prompts]
  if not any(fits):
    raise InputError(f'the task {task.name} has no {split} question in less than the context of '
                     f'{engine.length} tokens: give more rows or other ones, or a model with a '
                     'larger context.')
  each = [dataclasses.replace(sampling, seed=sampling.seed + n)  # no two share their noise
          for n in range(examples * samples)]
  kept = [n for n in range(examples * samples) if fits[n // samples]]
  found = {}
  for at, completion in engine.completed(params, [prompts[n // samples] for n in kept],
                                         [each[n] for n in kept], calls):
    index, sample = divmod(kept[at], samples)  # graded while the others go on
    example, text = asked[index], chat.visible(completion.ids)
    found[at] = dict(
        task=task.name, index=index, sample=sample, kind=example.kind, question=example.question,
        answer=example.answer, completion=text, **graded(task, example, text)._asdict(),
        finished=completion.finished, length=len(completion.ids))
    if task.lenient:
      found[at]['lenient'] = task.lenient(example, text).score
  rows = [found[at] for at in range(len(kept))]
  left_out = {} if all(fits) else {'too_long': mean([not fit for fit in fits])}
  return _numbers(task, rows, samples, sampling.seed) | left_out, rows


def graded(task: Task, example: Example, text: str) -> Grade:
  """What the task's grader says; not valid where it fails, or says no finite number."""
  try:
    grade = task.grade(example, text)
  except Exception as error:  # a grader meets whatever a model may say
    return Grade(0.0, False, f'the grader failed: {error!r}')
  return grade if math.isfinite(grade.score) else Grade(0.0, False, 'the score is not a number')


def _numbers(task: Task, rows: list[dict[str, Any]], samples: int, seed: int) -> dict[str, Measure]:
  questions = [rows[start:start + samples] for start in range(0, len(rows), samples)]
  over = lambda name, questions=questions: mean(
      [sum(row[name] for row in group) / samples for group in questions])
  numbers = {'accuracy': over('score')}
  for kind in sorted({row['kind'] for row in rows} - {''}):
    numbers[f'accuracy, {kind}'] = over(
        'score', [group for group in questions if group[0]['kind'] == kind])
  numbers |= {name: over(name) for name in ('lenient', 'valid', 'finished', 'length')
              if name in rows[0]}
  read = answers.number if task.lenient else str.casefold
  right_or_wrong = all(row['score'] in (0, 1) for row in rows)
  for k in (1 << i for i in range(samples.bit_length()) if samples > 1):
    if right_or_wrong:
      numbers[f'pass@{k}'] = mean([
          pass_at_k(samples, sum(row['score'] == 1 for row in group), k) for group in questions])
    numbers[f'maj@{k}'] = mean([maj_at_k(
        [answers.final(row['completion'], read)[0] if row['valid'] else None for row in group],
        [row['score'] for row in group], k, seed + index) for index, group in enumerate(questions)])
  return numbers


def pass_at_k(n: int, right: int, k: int) -> float:
  """The chance that k of n samples, `right` of them right, hold a right one (arXiv:2107.03374).

  1 - C(n - right, k) / C(n, k): unbiased, where 1 - (1 - right / n)^k is too low.
  """
  return 1 - math.comb(n - right, k) / math.comb(n, k)


def maj_at_k(answers: Sequence[Hashable | None], scores: Sequence[float], k: int,
             seed: int = 0, draws: int = 64) -> float:
  """The score of the commonest of k answers, averaged over `draws` drawings of k in random order.

  Of equally common ones the first drawn wins. None is an answer that cannot be read: it cannot
  win, and where there are only such the score is 0.
  """
  rng, total = random.Random(seed), 0.0
  for _ in range(draws):
    picked = rng.sample(range(len(answers)), k)
    votes = collections.Counter(answers[i] for i in picked if answers[i] is not None)
    if votes:
      winner = max(votes, key=votes.get)
      total += next(scores[i] for i in picked if answers[i] == winner)
  return total / draws

