"""C4's rules (arXiv:1910.10683) but that of terminal punctuation, as FineWeb keeps them."""

import functools
import re
import unicodedata

from nanollm_jax.web import words as words_lib

SENTENCES, WORDS, LONGEST = 5, 3, 1000  # at least a page, at least a line, characters of a word
_CITATION = re.compile(r'\[\d*\]|\[edit\]|\[citation needed\]')
_POLICY = re.compile('terms of use|privacy policy|cookie policy|uses? cookies|use of cookies')
_ENDS = frozenset('.!?։؟۔।॥。！？｡…') - {'…'}


def clean(text: str) -> tuple[str, str]:
  """(the lines that are worth it, ''), or (text, why the page is dropped)."""
  kept, sentences = [], 0
  for line in text.splitlines():
    line = line.strip()
    words = line.split()
    if any(len(word) > LONGEST for word in words) or len(words) < WORDS:
      continue
    line = _CITATION.sub('', line)
    lower = line.lower()
    if 'lorem ipsum' in lower:
      return text, 'lorem_ipsum'
    if 'javascript' in lower:
      continue
    if '{' in line:
      return text, 'curly_bracket'
    if _POLICY.search(lower):
      continue
    if sentences < SENTENCES:
      sentences += _sentences(line)
    kept.append(line)
  return ('\n'.join(kept).strip(), '') if sentences >= SENTENCES else (text, 'few_sentences')


def _sentences(line: str) -> int:
  """One more than the ends of sentences that a word follows."""
  count, ended = 1, False
  for word in words_lib.split(line):
    if word in _ENDS:
      ended = True
    elif ended and not _punctuation(word):
      count, ended = count + 1, False
  return count


@functools.lru_cache(1 << 16)
def _punctuation(word: str) -> bool:
  return all(unicodedata.category(character)[0] == 'P' for character in word)
