"""The filter of URLs: lists of domains, hosts and URLs, and words that give a site away."""

import functools
import hashlib
import pathlib
import re
from typing import Iterable, Sequence

import numpy as np

from nanollm_jax import InputError

SOFT = 2  # so many soft words are one too many
_WORDS = pathlib.Path(__file__).with_name('blocked.txt')
_CUT = re.compile(r'[^a-z0-9]+')


class Blocked:
  """What is blocked: entries (a domain, a host or a URL each) and lists of words.

  Entries are kept as sorted 64-bit hashes, so that four million of them take 36 MB.
  """

  def __init__(self, entries: Iterable[str], words: dict[str, frozenset[str]]):
    self._entries = np.unique(np.fromiter(map(_digest, entries), np.uint64))
    self._hard, self._soft = words['hard'], words['soft']
    self._part = re.compile('|'.join(sorted(words['part'])) or r'(?!)')

  def reason(self, url: str) -> str:
    """Why the URL is blocked, or ''."""
    url = url.strip().lower()
    host = host_of(url)
    labels = host.split('.')
    parents = ['.'.join(labels[k:]) for k in range(len(labels))]
    if self._listed(parents):
      return 'domain'
    if self._listed([url]):
      return 'url'
    found = set(_CUT.split(url))
    if found & self._hard:
      return 'hard_word'
    if len(found & self._soft) >= SOFT:
      return 'soft_words'
    return 'part_of_word' if self._part.search(_CUT.sub('', url)) else ''

  def _listed(self, names: Sequence[str]) -> bool:
    if not len(self._entries):
      return False
    digests = np.fromiter(map(_digest, names), np.uint64)
    at = np.minimum(np.searchsorted(self._entries, digests), len(self._entries) - 1)
    return bool((self._entries[at] == digests).any())


def host_of(url: str) -> str:
  """The host in a URL, without user, port and a last dot."""
  rest = url.partition('://')[2] or url
  host = re.split(r'[/?#]', rest, maxsplit=1)[0].rpartition('@')[2]
  return re.sub(r':\d*$', '', host).rstrip('.').lower()


def _digest(name: str) -> int:
  return int.from_bytes(hashlib.blake2b(name.encode('utf-8', 'replace'), digest_size=8).digest())


@functools.cache
def blocked(lists: tuple[str, ...] = ()) -> Blocked:
  """What own lists (a domain, host or URL a line, # for comments) and blocked.txt block.

  Raises InputError for a file that cannot be read.
  """
  entries = []
  for path in lists:
    entries += [line.lower() for line in _lines(path)]
  found = {'hard': [], 'soft': [], 'part': []}
  for line in _lines(str(_WORDS)):
    kind, _, rest = line.partition(':')
    found[kind] += rest.split()
  return Blocked(entries, {kind: frozenset(some) for kind, some in found.items()})


def _lines(path: str) -> list[str]:
  try:
    text = pathlib.Path(path).read_text(encoding='utf-8')
  except (OSError, UnicodeError) as error:
    raise InputError(f'{path} cannot be read ({error}): give text files with an entry a line to '
                     '--web.blocklists.') from error
  return [line.strip() for line in text.splitlines() if line.strip() and line[0] != '#']
