"""Tasks over rows of a file: knowledge of a world, GSM8K, multiple choice."""

import gzip
import json
import re
import string
from typing import Callable, Iterable, Iterator

from nanollm_jax import InputError
from nanollm_jax.tasks import answers
from nanollm_jax.tasks.styles import direct, style_named
from nanollm_jax.tasks.task import Example, Grade, Task, listed

_LONGEST_ANSWER = 60  # words: who lists half the world has not answered
_REFUSAL = re.compile(r"""\b(?:
    i\ (?:do\ not|don't|did\ not|didn't)\ (?:know|have|recall|remember)
  | i(?:'m|\ am)\ (?:not\ (?:sure|certain|aware|familiar|able)|unsure|unable|sorry)
  | i\ (?:cannot|can't|can\ not|could\ not|couldn't)\ (?:say|tell|answer|find|recall|help)
  | i(?:'ve|\ have)\ (?:never|not)\ heard
  | i\ have\ no\ (?:idea|information|knowledge|record|answer)
  | (?:is|are|was)\ (?:unknown|not\ known)\ to\ me
  | no\ idea)\b""", re.X)
_ANNOTATION = re.compile(r'<<([^<>=]*)=([^<>]*)>>')


def read_rows(path: str) -> Iterator[dict]:
  """The objects of a JSONL file, gzipped if its name ends in .gz. Raises InputError."""
  opened = gzip.open if str(path).endswith('.gz') else open
  try:
    with opened(path, 'rt', encoding='utf-8') as file:
      for number, line in enumerate(file, 1):
        if not line.strip():
          continue
        row = json.loads(line)
        if not isinstance(row, dict):
          raise InputError(f'{path}, line {number}, is no JSON object: mend it.')
        yield row
  except (OSError, UnicodeDecodeError, EOFError) as error:
    raise InputError(f'{path} cannot be read ({error}): give a JSONL file.') from error
  except json.JSONDecodeError as error:
    raise InputError(f'{path}, line {number}, is no JSON ({error.msg}): mend it.') from error


def refuses(text: str) -> bool:
  """Whether a text says that it does not know or cannot tell."""
  return bool(_REFUSAL.search(' '.join(text.lower().replace('’', "'").split())))


def knowledge(rows: Iterable[dict], split: str = '') -> Task:
  """Questions with short answers: {question, answer, aliases?, stratum?, relation?, problem?}.

  Right is a text that holds the answer or an alias as whole words, and, where rows have a
  `relation`, no other answer to a question of the same relation. A refusal is valid and scores 0.
  Rows with the same `problem` (else: the same question) are held out together; all rows are of
  `split` if one is given. kind: the stratum. Raises InputError for a row that cannot be used.
  """
  examples, relations, rivals = [], {}, {}
  for number, row in enumerate(rows, 1):
    where = f'row {number}'
    question, answer = _text(row, 'question', where), _text(row, 'answer', where)
    aliases = row.get('aliases') or ()
    if not isinstance(aliases, list | tuple) or not all(
        isinstance(one, str) and words_of(one) for one in (answer, *aliases)):
      raise InputError(f'{where}, has an answer or alias without a word: give texts, the '
                       'aliases as a list.')
    examples.append(Example(question, answer, str(row.get('problem') or question), tuple(aliases),
                            kind=str(row.get('stratum', ''))))
    if relation := row.get('relation'):
      relations[question] = relation
      rivals.setdefault(relation, set()).add(words_of(answer))

  def grade(example: Example, text: str) -> Grade:
    if refuses(text[:answers.LONGEST]):
      return Grade(0.0, True, 'refused')
    told = words_of(text[:answers.LONGEST])
    if not told or len(told) > _LONGEST_ANSWER:
      return Grade(0.0, False, 'too long' if told else 'no answer')
    right = {words_of(answer) for answer in (example.answer, *example.aliases)}
    if not any(_holds(told, answer) for answer in right):
      return Grade(0.0, True, 'wrong')
    known = (words_of(example.question), *right)
    others = rivals.get(relations.get(example.question), ())
    if any(_holds(told, other) and not any(_holds(one, other) for one in known)
           for other in others):
      return Grade(0.0, False, 'two answers')
    return Grade(1.0, True, 'right')

  return listed('knowledge', examples, grade, lambda example: f'{example.answer}.', split)


def gsm8k(path: str, split: str = '', *, style: str = 'steps') -> Task:
  """GSM8K's word problems: JSONL {question, answer}, the answer with `<<1+2=3>>3` and `#### 3`.

  The style 'tool' turns each annotation into a call of Python. Strict grading takes the forms of
  `answers`, `#### 3` among them; `lenient` takes the last number. Rows are all of `split`, or
  divided by hash. Raises InputError.
  """
  tell = _calls if style == 'tool' else _without_calls(style_named(style))
  examples = []
  for number, row in enumerate(read_rows(path), 1):
    where = f'{path}, row {number}'
    question = _text(row, 'question', where)
    steps, _, answer = _text(row, 'answer', where).rpartition('####')
    if answers.number(answer) is None:
      raise InputError(f'{where}, has no number behind #### in its answer: add it.')
    examples.append(Example(question, answer.strip(), question, steps=steps.strip()))
  return listed('gsm8k', examples, answers.grade_number, tell, split, answers.grade_last_number)


def choice(rows: Iterable[dict], split: str = '') -> Task:
  """Multiple choice: {question, choices, answer}, the answer an index from 0 or a letter.

  Right is the letter, alone or with the words of its choice behind it, not with those of another.
  Raises InputError.
  """
  examples = []
  for number, row in enumerate(rows, 1):
    question = _text(row, 'question', f'row {number}')
    choices, at = row.get('choices'), row.get('answer')
    if isinstance(at, str) and len(at) == 1:
      at = string.ascii_uppercase.find(at.upper())
    if (not isinstance(choices, list) or not 2 <= len(choices) <= 26 or isinstance(at, bool)
        or not isinstance(at, int) or not 0 <= at < len(choices)):
      raise InputError(f'row {number} must have 2 to 26 choices and as answer the index or letter '
                       'of one.')
    asked = '\n'.join([question, *map('{}. {}'.format, string.ascii_uppercase, choices)])
    examples.append(Example(f'{asked}\nAnswer with the letter.', string.ascii_uppercase[at], asked))
  return listed('choice', examples, _grade_choice, direct, split)


def _grade_choice(example: Example, text: str) -> Grade:
  offered = [_plain(line) for line in example.question.splitlines()]
  belied = _belied(answers.from_mark(text).upper(), offered)

  def read(answer: str) -> str | None:
    found = re.fullmatch(r'\(?([A-Z])(?:[).:]+ *(.*))?', _plain(answer))
    if not found or found[1] in belied:
      return None
    letter, words = found[1], found[2]
    return letter if any(line == f'{letter}. {words}' if words else line.startswith(f'{letter}. ')
                         for line in offered) else None

  return answers.grade(text, read, lambda letter: letter == example.answer)


def _belied(text: str, offered: list[str]) -> set[str]:
  """The letters behind which the words of another choice stand."""
  choices = sorted((line[3:] for line in offered if re.match(r'[A-Z]\. .', line)), key=len)
  others = '|'.join(map(re.escape, reversed(choices)))
  found = re.findall(
      rf'\b([A-Z])(?=[*_)]*[).:])[*_).:]*+ *({others})(?=[*_]*(?:[.!?,\n]|$))', text)
  return {letter for letter, words in found if words and f'{letter}. {words}' not in offered}


def _plain(line: str) -> str:
  return ' '.join(line.upper().split()).rstrip('.')


def words_of(text: str) -> tuple[str, ...]:
  """The words and numbers of a text, without case, punctuation and apostrophes."""
  return tuple(re.findall(r'\w+', text.casefold().replace("'", '').replace('’', '')))


def _holds(words: tuple[str, ...], part: tuple[str, ...]) -> bool:
  return any(words[at:at + len(part)] == part for at in range(len(words) - len(part) + 1))


def _text(row: dict, key: str, where: str) -> str:
  if not isinstance(row.get(key), str) or not row[key].strip():
    raise InputError(f'{where}, has no text as {key!r}: give it one.')
  return row[key].strip()


def _without_calls(tell: Callable) -> Callable[[Example], str]:
  return lambda example: tell(example._replace(steps=_ANNOTATION.sub('', example.steps)))


def _calls(example: Example) -> list[dict[str, str]]:
  """The steps with a call of Python, and what it gives, at each annotation; then the answer."""
  parts, at = [], 0
  for found in _ANNOTATION.finditer(example.steps):
    parts += [{'type': 'text', 'text': example.steps[at:found.start()]},
              {'type': 'tool_call', 'name': 'python', 'text': found[1]},
              {'type': 'tool_output', 'text': found[2]}]
    at = found.end()
  return parts + [{'type': 'text', 'text': f'{example.steps[at:]} {direct(example)}'}]
