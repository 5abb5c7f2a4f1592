r"""The forms in which an answer is accepted: where it stands, and how a number may be written.

An answer X is asked for as `Answer: X.` It is also taken, in any case of letters, from `the answer
is X`, `answer = X`, `#### X`, `\boxed{X}`, and from a text that is nothing but X, with words like
`So it is` before. X ends with its sentence or line; signs of emphasis, quotes and mathematics
around it (`**X**`, `"X"`, `$X$`, `\(X\)`) do not count. Several answers must be the same, and one
that goes on, as in `3 or 4`, is another. `answer is` before words alone, as in `I hope this answer
is helpful`, gives none beside another form; alone, it does where the words can be read.

A number has ASCII digits, perhaps a sign (- or the minus U+2212), `$`, commas every three digits, a
decimal part, brackets, `x =` before it and up to three words behind it, as in `12 red apples`; 7.0
is 7. None is: 7/1, 3+4, 2**9, 1e999, inf, nan, 12%, 3 million, 3 squared, 3 cents where the
question has no cents, digits of other scripts (who asks in ASCII can expect it back, and
look-alikes must not pass), over 40 digits.
"""

import re
from fractions import Fraction
from typing import Callable, TypeVar

from nanollm_jax.tasks.task import Example, Grade

LONGEST = 20_000  # characters of a text that is read at all
_LONGEST_ANSWER = 200
_DIGITS = 40  # far under the length at which Python refuses to read an integer

_MARK = re.compile(r'(?<![\w/])answer\b[*_`]*\s*(?:(is\b\s*:?)|[:=])[*_`]*\s*|####\s*|'
                   r'(?=\\boxed\s*\{)', re.I)
# What an answer in prose has and other prose has not: a digit, or a letter that is no word.
_TOLD = re.compile(r"\d|(?<![\w'’])(?!I[\s'’]|a\s+(?!(?:or|and|not)\b)[a-z]{2})[^\W_](?!\w)")
_END = re.compile(r'\n|[.!?]+(?=\W|$)')
_LEAD = re.compile(r"^(?:(?:so|thus|hence|therefore|it is|it's|that is|that's|there are)\b[,:]?\s+"
                   r'|=\s*)+', re.I)
_LEFT = re.compile(r"""^(?:[\s*_`"']|\\[(\[]|\$(?=[\\$])|\\(?=\$))+""")
_RIGHT = re.compile(r"""(?:[\s*_`"'.,:!$]|\\[)\]])+$""")
_WRAP = re.compile(r'\\(?:boxed\s*|text)\{([^{}]*)\}')
_NUMBER = re.compile(
    r'(?:[a-z]\s*=\s*)?([-+]?)\$?([-+]?)((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)'
    r'((?:\s+[a-z]+){0,3})', re.I)
_NOT_UNITS = frozenset(
    'hundred thousand million billion trillion dozen score percent half third quarter or and to '
    'point minus plus times divided over is not but e hundreds thousands millions billions '
    'trillions dozens tenth tenths hundredth hundredths thousandth thousandths'.split())
_POWERS = frozenset('squared cubed factorial'.split())  # of the number, if right behind it
_CENTS = re.compile(r'\bcents?\b', re.I)
_ANY_NUMBER = re.compile(r'(?<![\w.])-?\$?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?(?!\w)',
                         re.A)
_LETTERS = re.compile(r'[a-z]+|[a-z](?:[\s,-]+[a-z])+', re.I)

Value = TypeVar('Value')
Read = Callable[[str], Value | None]  # what an answer says; None if it is not one


def number(text: str) -> Fraction | None:
  """The exact value of a number in an accepted form."""
  found = _NUMBER.fullmatch(text.strip(' ()[]').replace('\u2212', '-'))
  if not found or found[1] and found[2] or len(found[3]) > _DIGITS:
    return None
  words = found[4].lower().split()
  if _NOT_UNITS & set(words) or _POWERS & set(words[:1]):
    return None
  return Fraction(found[1] + found[2] + found[3].replace(',', ''))


def letters(text: str) -> str | None:
  """Letters in one word or parted by spaces, commas or hyphens, as one small word."""
  return re.sub('[^a-z]', '', text.lower()) if _LETTERS.fullmatch(text) else None


def final(text: str, read: Read) -> tuple[Value | None, str]:
  """The one answer that a text gives, and ''; or None, and why there is none."""
  if len(text) > LONGEST:
    return None, 'too long'
  places = _places(text, read)
  values = {place: read(_bare(place)) for place in places}
  for place, value in values.items():
    words = _bare(place).split() if value is None else ()
    if words and read(_bare(words[0])) is not None:
      several = len({read(_bare(word)) for word in words} - {None}) > 1
      return None, 'two answers' if several else 'unclear answer'
  if len(set(values.values()) - {None}) > 1:
    return None, 'two answers'
  value = values[places[-1]]
  return value, 'no answer' if value is None else ''


def grade(text: str, read: Read, right: Callable[[Value], bool]) -> Grade:
  """Grades the one answer of a text."""
  value, reason = final(text, read)
  if value is None:
    return Grade(0.0, False, reason)
  return Grade(1.0, True, 'right') if right(value) else Grade(0.0, True, 'wrong')


def grade_number(example: Example, text: str) -> Grade:
  """Grades a text whose one answer must be the number `example.answer`."""
  cents = _CENTS.search(example.question)
  read = lambda answer: number(answer) if cents or not _CENTS.search(answer) else None
  return grade(text, read, lambda value: value == number(example.answer))


def grade_letters(example: Example, text: str) -> Grade:
  """Grades a text whose one answer must be the letters `example.answer`."""
  return grade(text, letters, lambda value: value == letters(example.answer))


def grade_last_number(example: Example, text: str) -> Grade:
  """Grades leniently: by the last number in the text, whatever stands around it."""
  found = _ANY_NUMBER.findall(text[-LONGEST:].replace('\u2212', '-'))
  return grade(found[-1] if found else '', number, lambda value: value == number(example.answer))


def from_mark(text: str) -> str:
  """What is read at all of a text: from its first answer's mark on, or all of it."""
  text = text[:LONGEST]
  mark = _MARK.search(text)
  return text[mark.end():] if mark else text


def _places(text: str, read: Read) -> list[str]:
  """What stands where answers stand; the whole text if there is no such place."""
  marks = list(_MARK.finditer(text))
  if not marks:
    return [_LEAD.sub('', _bare(_cut(text.strip())))]
  explicit = not all(mark[1] for mark in marks)
  places = [_place(text, mark.end()) for mark in marks]
  return [place for place, mark in zip(places, marks) if not mark[1] or _TOLD.search(place)
          or not explicit and _begins(place, read)] or places


def _place(text: str, at: int) -> str:
  """The rest of a sentence or line."""
  end = _END.search(text, at, at + _LONGEST_ANSWER + 1)
  return text[at:end.start()] if end else _cut(text[at:])


def _begins(place: str, read: Read) -> bool:
  """Whether an answer can be read in a place or in its first word."""
  return any(read(_bare(part)) is not None for part in (place, *_bare(place).split()[:1]))


def _cut(text: str) -> str:
  """At most 200 characters, and then a sign that more came, so that no short answer is read."""
  return text if len(text) <= _LONGEST_ANSWER else text[:_LONGEST_ANSWER] + '…'


def _bare(answer: str) -> str:
  """An answer without emphasis, quotes, mathematics and stops around it."""
  before = None
  while answer != before:
    before = answer
    answer = _WRAP.sub(r'\1', _RIGHT.sub('', _LEFT.sub('', answer)))
  return answer
