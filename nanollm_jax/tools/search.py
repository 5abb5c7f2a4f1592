"""Search for the model: a few words go in, the best page or the best sentences of it come out."""

import collections
import json
import os
import pathlib
import re
import sqlite3
import textwrap
import threading
from typing import Iterable, Iterator

from nanollm_jax import InputError

_STOP_WORDS = frozenset("""
a about after all also am an and any are as at be because been before but by can could did do does
for from had has have he her hers him his how i if in into is it its me my no nor not of on or our
ours s she should so some such t than that the their them then there these they this those to too
us was we were what when where which who whom whose why will with would you your yours""".split())
_WORD = re.compile(r'[^\W_]+')
_FOUND = re.compile('\x02(.*?)\x03', re.DOTALL)  # how highlight() marks what the query asked for
_SENTENCE_END = re.compile(r'(?<=[.!?])\s+|\n+')


class Search:
  """A full-text index (SQLite FTS5, porter stems, BM25): call it with a query, get text back.

  The text is the k best pages, one a line, or 'Nothing found.'. Any word of the query may match,
  in a page's title or text; stop words do not count. Many threads may call at once.

  pages: (title, text) of each page, written to the index in place of what it held; None: it is
    taken as an earlier Search has left it at `path`
  path: file of the index; by default it lives in memory
  k: pages in an answer
  chars: the longest text shown of a page; of a longer page, the sentences that match best
  """

  def __init__(self, pages: Iterable[tuple[str, str]] | None = None,
               path: str | os.PathLike = ':memory:', k: int = 1, chars: int = 300):
    if k < 1 or chars < 20:
      raise InputError('the search tool needs k of 1 or more and chars of 20 or more.')
    self._k, self._chars = k, chars
    self._lock = threading.Lock()
    try:
      self._index = sqlite3.connect(path, check_same_thread=False)
      with self._index:
        if pages is not None:
          self._write(pages)
        self._index.execute('select title, text from words limit 0')
    except sqlite3.Error as error:
      if 'fts5' in str(error):
        raise InputError('the sqlite3 of this Python lacks FTS5 (ENABLE_FTS5), which search '
                         "needs: use python.org's, Debian's or conda's Python.") from error
      raise InputError(f'{path} cannot be used as a search index ({error}): give pages and the '
                       'path of a new file, or the path of an index made before.') from error

  def _write(self, pages: Iterable[tuple[str, str]]) -> None:
    self._index.execute('begin')  # so that a fault in the pages leaves an older index as it was
    for table in ('words', 'page'):
      self._index.execute(f'drop table if exists {table}')
    self._index.execute('create table page (title, text)')
    self._index.execute('create virtual table words using '
                        "fts5(title, text, content=page, tokenize='porter unicode61')")
    self._index.executemany('insert into page values (?, ?)',
                            ((_clean(title), _clean(text)) for title, text in pages))
    self._index.create_function('telling', 1, _telling, deterministic=True)
    self._index.execute('insert into words (rowid, title, text) '
                        'select rowid, telling(title), telling(text) from page')

  @classmethod
  def from_jsonl(cls, source: str | os.PathLike, text_field: str = 'text', **options) -> 'Search':
    """Indexes the rows of a JSON lines file by their `text_field`, and by 'title' if they have it.

    Raises InputError naming file and line.
    """
    return cls(_rows(pathlib.Path(source), text_field), **options)

  def __call__(self, query: str) -> str:
    words = [word for word in dict.fromkeys(_WORD.findall(query.lower()))
             if word not in _STOP_WORDS]
    asked = ' OR '.join(f'"{word}"' for word in words[:64])
    try:
      with self._lock:
        found = asked and self._index.execute(
            'select highlight(words, 1, char(2), char(3)) from words(?) '
            'order by rank, rowid limit ?', (asked, self._k)).fetchall()
    except sqlite3.Error as error:
      return f'Error: {error}'
    return '\n'.join(_best(marked, self._chars) for marked, in found) or 'Nothing found.'

  def close(self) -> None:
    """Closes the index."""
    self._index.close()


def _clean(text: str) -> str:
  """The text without control characters, which mark what is found, and halves of surrogates."""
  text = text.encode(errors='replace').decode()
  return re.sub(r'[\0-\x08\x0e-\x1f]', '', text)


def _telling(text: str) -> str:
  """The text with its stop words blotted out: 'Ines' has the stem 'in', which every page has.

  A word of private use takes their place, so that highlight() still counts right.
  """
  return _WORD.sub(lambda word: '\ue000' if word[0].lower() in _STOP_WORDS else word[0], text)


def _rows(path: pathlib.Path, text_field: str) -> Iterator[tuple[str, str]]:
  try:
    with path.open('rb') as file:
      for number, line in enumerate(file, 1):
        if line.strip():
          row = json.loads(line)
          yield str(row.get('title') or ''), row[text_field] + ''
  except OSError as error:
    raise InputError(f'{path} cannot be read ({error.strerror}): check the path of the pages to '
                     'search.') from error
  except ValueError as error:
    raise InputError(f'{path} line {number} is not JSON ({error}): mend or remove it.') from error
  except (KeyError, TypeError, AttributeError) as error:
    raise InputError(f'{path} line {number} has no text in a field {text_field!r}: name another '
                     'text_field, or mend the line.') from error


def _best(marked: str, chars: int) -> str:
  """Of a page with marked words, the first run of sentences with most of them, without the marks.

  A sentence that alone is too long counts as several.
  """
  pieces = [piece for sentence in _SENTENCE_END.split(marked)
            for piece in textwrap.wrap(' '.join(sentence.split()), chars, break_on_hyphens=False)]
  words = [[word.lower() for word in _FOUND.findall(piece)] for piece in pieces]
  pieces = [re.sub('[\x02\x03]', '', piece) for piece in pieces]
  best, most, end, room, held = '', -1, 0, chars + 1, collections.Counter()
  for start, piece in enumerate(pieces):
    while end < len(pieces) and len(pieces[end]) < room:
      room -= len(pieces[end]) + 1
      held.update(words[end])
      end += 1
    if len(+held) > most:
      best, most = ' '.join(pieces[start:end]), len(+held)
    room += len(piece) + 1
    held.subtract(words[start])
  return best
