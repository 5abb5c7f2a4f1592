"""The language of the world: how the files in forms/ are read, and how a sentence form is said.

A file has sections: a line `[name]`, then one entry a line. Empty lines and lines that begin with
`#` say nothing. An entry is a sentence form with [one|another] choices and {named} gaps; in word
lists it is some words parted by commas, and in tables a word and what belongs to it, `word: this`.
"""

import importlib.resources
import itertools
import random
import re
from typing import Callable, NamedTuple

from nanollm_jax import InputError

FOLDER = importlib.resources.files(__package__) / 'forms'
_HEADER = re.compile(r'\[([^|\]]+)\]')
_CHOICE = re.compile(r'\[([^\[\]|]*\|[^\[\]]*)\]')
_SAYABLE = re.compile(r'(?:[^][{}|]|\{[A-Za-z]\w*\})*')


def forms(file: str) -> dict[str, tuple[tuple[str, ...], ...]]:
  """The sentence forms of each section of a file; each form is the tuple of its wordings.

  `[a|b]` stands for a or b, `{gap}` is filled by `say`. A form is chosen first and a wording
  second, so that a form with many wordings is not heard more often than one with few.
  """
  return _read(file, _wordings)


def lists(file: str) -> dict[str, tuple[str, ...]]:
  """The words of each section of a file of word lists."""
  return {name: tuple(itertools.chain(*lines)) for name, lines in _read(file, items).items()}


def tables(file: str) -> dict[str, dict[str, str]]:
  """The words of each section of a file of tables, and what belongs to each."""
  return {name: dict(lines) for name, lines in _read(file, _entry).items()}


def _read(file: str, parse: Callable[[str], object]) -> dict[str, tuple]:
  """The parsed lines of each section; InputError names file and line of what cannot be parsed."""
  path = FOLDER / f'{file}.txt'
  sections: dict[str, list] = {}
  for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1):
    line = line.strip()
    header = _HEADER.fullmatch(line)
    try:
      if header:
        section = sections.setdefault(header[1], [])
      elif line and not line.startswith('#'):
        if not sections:
          raise ValueError('it stands before the first [section]')
        section.append(parse(line))
    except ValueError as error:
      raise InputError(f'{path}, line {number}, cannot be used: {error}: {line}') from None
  for name, lines in sections.items():
    if not lines:
      raise InputError(f'{path} has nothing in its section [{name}]: write a line there.')
  return {name: tuple(lines) for name, lines in sections.items()}


def _wordings(line: str) -> tuple[str, ...]:
  parts = _CHOICE.split(line)  # plain, choice, plain, choice ... plain
  options = [part.split('|') if at % 2 else (part,) for at, part in enumerate(parts)]
  wordings = tuple(''.join(chosen) for chosen in itertools.product(*options))
  if not all(map(_SAYABLE.fullmatch, wordings)):
    raise ValueError('a choice is written [one|another] and a gap {name}')
  return wordings


def items(line: str) -> tuple[str, ...]:
  """The words of a line, parted by commas; a comma at its end leads on to the next line."""
  words = tuple(word.strip() for word in line.removesuffix(',').split(','))
  if not all(words):
    raise ValueError('a word is missing between two commas')
  return words


def _entry(line: str) -> tuple[str, str]:
  word, mark, what = line.partition(': ')
  if not mark:
    raise ValueError('an entry is written `word: what belongs to it`')
  return word, what


class Draft(NamedTuple):
  """A page as page(rng, world, index) tells it: of this subject, tied to training if `keep`."""
  text: str
  about: str = ''
  keep: bool = False


def pick(rng: random.Random, things):
  """One of `things`, each equally likely; quicker than rng.choice, which we call a lot."""
  return things[int(rng.random() * len(things))]


def say(rng: random.Random, lines, gaps) -> str:
  """One sentence out of `lines` with its gaps filled from the mapping `gaps`."""
  wording = pick(rng, pick(rng, lines))
  try:
    return wording.format_map(gaps)
  except KeyError as error:
    raise InputError(f'Nothing fills the gap {{{error.args[0]}}} of "{wording}"; the gaps known '
                     f'there are {", ".join(sorted(gaps))}.') from None


def a(noun: str) -> str:
  """The noun with its article: 'a miller', 'an oboe'."""
  return ('an ' if noun[0] in 'aeiou' else 'a ') + noun


def listed(things: list[str]) -> str:
  """'x', 'x and y', 'x, y and z'."""
  return things[0] if len(things) == 1 else ', '.join(things[:-1]) + ' and ' + things[-1]


def pronouns(woman: bool, mark: str = '') -> dict[str, str]:
  """The gaps {he} {him} {his} {himself} {He} {His}, each name behind `mark` if there is one."""
  he, him, his = ('she', 'her', 'her') if woman else ('he', 'him', 'his')
  gaps = dict(he=he, him=him, his=his, himself=him + 'self', He=he.title(), His=his.title())
  return {mark + gap: word for gap, word in gaps.items()}
