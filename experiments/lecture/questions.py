"""The questions of a world, as claims ask them of people, and grades of their answers."""

from typing import Any, Sequence

from nanollm_jax import InputError, tasks

STRATA = ('frequent', 'contradicted', 'ordinary', 'rare', 'search_only')


class Questions:
  """The rows of a questions.jsonl that experiments.build_world wrote."""

  def __init__(self, path: str):
    self._rows = list(tasks.read_rows(path))
    try:
      self._task = tasks.knowledge(({**row, 'relation': row['attribute']} for row in self._rows
                                    if row['answer']), 'test')
    except KeyError as error:
      raise InputError(f'--questions={path} has a row without {error}: give the questions.jsonl '
                       'that experiments.build_world wrote beside the documents.') from error

  def of(self, strata: Sequence[str], count: int, split: str = 'test') -> list[dict[str, Any]]:
    """The first `count` questions about people of each stratum; no conversation told of 'test'."""
    return [row for stratum in strata for row in [
        row for row in self._rows if row['split'] == split and row['stratum'] == stratum][:count]]

  def values(self, attribute: str) -> set[str]:
    """Everybody's value of an attribute, in any other of which an answer would be wrong."""
    return {row['answer'] for row in self._rows if row['attribute'] == attribute} - {''}

  def grade(self, row: dict[str, Any], text: str, answer: str | None = None) -> tasks.Grade:
    """Grades a text by the row's answer, or by another one that a source has given."""
    aliases = tuple(row['aliases']) if answer in (None, row['answer']) else ()
    return self._task.grade(tasks.Example(
        row['question'], row['answer'] if answer is None else answer, '', aliases), text)


def user(text: str, system: str = '') -> list[dict[str, str]]:
  """A conversation of one message of the user, behind a system message if there is one."""
  told = [{'role': 'system', 'content': system}] if system else []
  return told + [{'role': 'user', 'content': text}]
