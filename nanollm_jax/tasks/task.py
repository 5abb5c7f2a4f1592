"""What a task is, and how its problems are divided into train and test."""

import hashlib
import random
from typing import Callable, Iterable, NamedTuple

from nanollm_jax import InputError

SPLITS = ('train', 'test')


class Example(NamedTuple):
  """A question with its answer, as the grader and the oracle need it.

  problem: canonical key of what is held out together; its hash decides the split
  aliases: answers that are as good
  steps: how the answer is reached; code: a Python expression whose value is the answer
  kind: the stratum or sort of the problem, for reports that tell them apart
  """
  question: str
  answer: str
  problem: str
  aliases: tuple[str, ...] = ()
  steps: str = ''
  code: str = ''
  kind: str = ''


class Grade(NamedTuple):
  """score: 1.0 right, 0.0 wrong; valid: there is one answer in an accepted form, or a refusal."""
  score: float
  valid: bool
  reason: str


class Task(NamedTuple):
  """Problems without end, or the rows of a file over and over, and who judges and solves them.

  example: (index, split) to an Example, always the same one; raises InputError for an empty split
  grade: an Example and the visible text of an assistant's turn to a Grade
  solve: the oracle, an Example to the content of an assistant's turn that grades 1.0
  lenient: grades by the last number anywhere in the text; None where that makes no sense
  size: the rows of a split; None if the task has no end
  """
  name: str
  example: Callable[[int, str], Example]
  grade: Callable[[Example, str], Grade]
  solve: Callable[[Example], str | list[dict]]
  lenient: Callable[[Example, str], Grade] | None = None
  size: Callable[[str], int] | None = None


def split_of(problem: str) -> str:
  """'test' for about one problem in five, by a hash of its key alone, else 'train'."""
  return SPLITS[hashlib.sha256(problem.encode()).digest()[0] % 5 == 0]


def drawn(name: str, seed: int, make: Callable[[random.Random], Example]
          ) -> Callable[[int, str], Example]:
  """The `example` of a task whose problems `make` draws: again until one is of the split."""
  def example(index: int, split: str) -> Example:
    rng = random.Random(f'{name} {seed} {_checked(split)} {index}')
    for _ in range(1000):
      found = make(rng)
      if split_of(found.problem) == split:
        return found
    raise InputError(f'{name} has no problem in the split {split!r} at this difficulty: raise it.')

  return example


def listed(name: str, examples: Iterable[Example], grade, solve, split: str = '', lenient=None
           ) -> Task:
  """A task over given examples, in order; all are of `split`, or divided by hash if it is ''."""
  parts = {part: [] for part in SPLITS}
  for example in examples:
    parts[_checked(split) if split else split_of(example.problem)].append(example)

  def at(index: int, split: str) -> Example:
    if not parts[_checked(split)]:
      raise InputError(f'{name} has no row in the split {split!r}: give it more rows, or the '
                       'split to put them all into.')
    return parts[split][index % len(parts[split])]

  return Task(name, at, grade, solve, lenient, lambda split: len(parts[_checked(split)]))


def _checked(split: str) -> str:
  if split not in SPLITS:
    raise InputError(f'{split!r} is no split: say train or test.')
  return split
