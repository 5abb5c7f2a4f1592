"""FineWeb's own filters, with the thresholds of its code.

For characters in duplicate lines the paper (arXiv:2406.17557) says 0.1 and the code 0.01; lines a
word are in the code only.
"""

from nanollm_jax.web import words as words_lib
from nanollm_jax.web.gopher import duplicates

PUNCTUATED, SHORT, SHORT_LENGTH = 0.12, 0.67, 30
DUPLICATE_CHARACTERS, NEWLINES = 0.01, 0.3
_ENDS = tuple('.!?‼‽⁇⁈⁉。！？．｡؟۔।॥։')


def reason(text: str) -> str:
  """Why a page is a list, a menu or boilerplate, or ''."""
  lines = [line for line in text.split('\n') if line.strip()]
  if not lines:
    return 'empty'
  if sum(line.endswith(_ENDS) for line in lines) / len(lines) < PUNCTUATED:
    return 'lines_without_punctuation'
  if sum(len(line) <= SHORT_LENGTH for line in lines) / len(lines) > SHORT:
    return 'short_lines'
  newlines = text.count('\n')
  if duplicates(lines)[1] / (len(text) - newlines) > DUPLICATE_CHARACTERS:
    return 'characters_of_duplicate_lines'
  return 'newlines' if newlines / len(words_lib.split(text)) > NEWLINES else ''
