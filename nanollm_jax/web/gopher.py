"""Gopher's filters (arXiv:2112.11446, table A1): repetition and quality."""

import re

import numpy as np

from nanollm_jax.web.page import Page

LINES, LINE_CHARACTERS = 0.30, 0.20  # duplicates among lines and paragraphs: of number, of length
TOP = {2: 0.20, 3: 0.18, 4: 0.16}  # characters of the most frequent n-gram
AGAIN = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}  # of all n-grams seen before
STOP_WORDS = ('the', 'be', 'to', 'of', 'and', 'that', 'have', 'with')


def repetition(page: Page) -> str:
  """Why a page repeats itself too much, or ''."""
  text = page.text
  for name, parts in (('paragraphs', re.split(r'\n{2,}', text.strip())),
                      ('lines', re.split(r'\n+', text))):
    count, characters = duplicates(parts)
    if count / len(parts) > LINES:
      return f'duplicate_{name}'
    if characters / len(text) > LINE_CHARACTERS:
      return f'characters_of_duplicate_{name}'
  end_N = np.concatenate([[0], np.cumsum(page.length_U[page.id_N])])
  gram_M, at_M = page.id_N, np.arange(len(page.id_N))
  for n in range(2, 11):
    gram_M, at_M = _longer(gram_M, at_M, page.id_N, n)
    size_M = end_N[at_M + n] - end_N[at_M]  # characters of each n-gram
    if n in TOP and len(page.id_N) >= n:
      most = _top(gram_M, size_M + n - 1) if len(at_M) else end_N[n] + n - 1
      if most / len(text) > TOP[n]:
        return f'top_{n}_gram'
    if n in AGAIN and _again(gram_M, at_M, size_M, n, AGAIN[n] * len(text)):
      return f'repeated_{n}_grams'
  return ''


def duplicates(parts: list[str]) -> tuple[int, int]:
  """How many parts were there before, and their characters."""
  before, count, characters = set(), 0, 0
  for part in parts:
    if part in before:
      count += 1
      characters += len(part)
    before.add(part)
  return count, characters


def _longer(gram_M: np.ndarray, at_M: np.ndarray, id_N: np.ndarray,
            n: int) -> tuple[np.ndarray, np.ndarray]:
  """From ids and places of (n-1)-grams to those of n-grams that occur more than once."""
  inside_M = at_M + n <= len(id_N)
  gram_M, at_M = gram_M[inside_M], at_M[inside_M]
  if not len(at_M):
    return gram_M, at_M
  key_M = gram_M * (int(id_N.max()) + 1) + id_N[at_M + n - 1]
  _, gram_M, count_U = np.unique(key_M, return_inverse=True, return_counts=True)
  again_M = count_U[gram_M] > 1
  return gram_M[again_M], at_M[again_M]


def _top(gram_M: np.ndarray, size_M: np.ndarray) -> int:
  """Characters, spaces between words too, of all copies of the n-gram that is most frequent."""
  count_U = np.bincount(gram_M)
  first = int((count_U[gram_M] == count_U.max()).argmax())  # of several the one that came first
  return int(count_U.max() * size_M[first])


def _again(gram_M: np.ndarray, at_M: np.ndarray, size_M: np.ndarray, n: int, limit: float) -> bool:
  """Whether n-grams that came before have more characters than the limit, no word twice."""
  if size_M.sum() <= limit:  # an upper bound, which spares most pages the loop
    return False
  before, characters, free = set(), 0, 0
  for gram, at, size in zip(gram_M.tolist(), at_M.tolist(), size_M.tolist()):
    if at < free:
      continue
    if gram in before:
      characters += size
      free = at + n
    before.add(gram)
  return characters > limit


def quality(page: Page, letters: float = 0.8) -> str:
  """Why a page is not like prose, or ''; at least `letters` of its words have a letter."""
  count_U = np.bincount(page.id_N, minlength=len(page.words))
  total, word_U = len(page.id_N), count_U * ~page.symbol_U
  count = int(word_U.sum())
  if not 50 <= count <= 100_000:
    return 'few_words' if count < 50 else 'many_words'
  mean = (word_U * page.length_U).sum() / count
  if not 3 <= mean <= 10:
    return 'short_words' if mean < 3 else 'long_words'
  text, lines = page.text, [line.strip() for line in page.text.splitlines()]
  if text.count('#') / total > 0.1:
    return 'hashes'
  if (text.count('...') + text.count('…')) / total > 0.1:
    return 'ellipses'
  if sum(line.startswith(('•', '-')) for line in lines) / len(lines) > 0.9:
    return 'bullets'
  if sum(line.endswith(('...', '…')) for line in lines) / len(lines) > 0.3:
    return 'lines_of_ellipses'
  if (count_U * page.letters_U).sum() / total < letters:
    return 'words_without_letters'
  return '' if sum(word in page.words for word in STOP_WORDS) >= 2 else 'stop_words'
