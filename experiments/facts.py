"""Facts to ask a model: from rows with questions, such as a world's, or from texts."""

import json
import re
from typing import Callable, Iterable, NamedTuple, Sequence

from nanollm_jax import InputError

_LONGEST = 2000  # characters of a text that a question is made from


class Fact(NamedTuple):
  """A question with what a judge needs to know.

  answer: '' if nobody can know it, so that whatever is told is wrong
  relation: what is asked for; facts of one relation have answers of one kind
  snippet: a text that tells the answer
  group: a word by which reports count
  about: whom; what is known of one fact about him says something of the others
  """
  question: str
  answer: str
  aliases: tuple[str, ...] = ()
  relation: str = ''
  snippet: str = ''
  group: str = ''
  about: str = ''


def facts_of(rows: Iterable[dict], held_out: bool = False) -> list[Fact]:
  """The facts of rows with a question, but none of split 'test', which is for evaluation.

  Nor are there friends of whom such a row asks. With held_out there are all.
  """
  rows = [row for row in rows if row.get('question')]
  tested = '\n'.join(row['question'] for row in rows if row.get('split') == 'test')
  return [fact_of(row) for row in rows if held_out or row.get('split') != 'test' and not (
      row.get('attribute') == 'friend' and row.get('answer') and row['answer'] in tested)]


def fact_of(row: dict) -> Fact:
  """A row {question, answer, aliases?, attribute? or relation?, stratum?, form?, snippet?}."""
  aliases = row.get('aliases') or []
  texts = [row.get('question'), row.get('answer'), row.get('snippet', '')]
  if not isinstance(aliases, list) or not all(isinstance(one, str) for one in (*texts, *aliases)):
    raise InputError(f'the row {json.dumps(row)[:80]} needs texts as question, answer and snippet, '
                     'and a list of texts as aliases.')
  told = row.get('snippet_answer', row['answer']) == row['answer']  # else the snippet contradicts
  group = row.get('stratum', '')
  return Fact(row['question'], row['answer'], tuple(aliases),
              row.get('attribute') or row.get('relation', ''), row.get('snippet', '') * told,
              row.get('form', group) if group == 'never_seen' else group, row.get('person', ''))


def written(rows: Iterable[dict],
            write: Callable[[Sequence[str]], Iterable[tuple[str, str] | None]]) -> list[Fact]:
  """Facts from rows {text}, of each of which `write` makes a question and its answer, or None."""
  texts = [row['text'] for row in rows if row.get('text') and not row.get('question')]
  if wrong := [text for text in texts if not isinstance(text, str)]:
    raise InputError(f'a row has {wrong[0]!r} as its text: give a text.')
  texts = [text[:_LONGEST] for text in texts]
  return [Fact(*found, snippet=text) for text, found in zip(texts, write(texts)) if found]


def gap(text: str) -> tuple[str, str] | None:
  """A sentence without its last name or number, and that word; None if no sentence has one."""
  for sentence in re.findall(r'[^.!?]+[.!?]', ' '.join(text.split())):
    words = sentence.split()
    for at in range(len(words) - 1, 2, -1):
      if found := re.fullmatch(r'([A-Z]\w+|\d+)(\W*)', words[at]):
        words[at] = '____' + found[2]
        return f'Which word is missing? {" ".join(words)}', found[1]
  return None
