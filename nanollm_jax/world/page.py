"""Good pages: documents of the world gathered until there is text enough for the recipe's rules."""

import functools
import itertools
import random
import re
from typing import Callable, Iterable, Iterator, NamedTuple

from nanollm_jax.world import html
from nanollm_jax.world.config import WorldConfig
from nanollm_jax.world.corpus import Document
from nanollm_jax.world.facts import truth
from nanollm_jax.world.html import Block, Site
from nanollm_jax.world.prose import forms, lists, pick, say

THEMES = {'biography': 'people', 'town': 'people', 'story': 'stories', 'textbook': 'school'}
GAZETTE = 0.85  # of the people and stories: they carry all other kinds, which are too short
WAITING = 8  # documents of a theme, before a page is made of some of them
_FORMS, _SITES = forms('page'), lists('web')
_TOKEN, _WORD = re.compile(r"'?\w+|[^\w\s]"), re.compile(r"'?\d*[A-Za-z]\w*")


class Good(NamedTuple):
  """A page worth reading, before it is HTML; `documents` are places among those for training."""
  theme: str
  url: str
  site: Site
  title: str
  blocks: list[Block]
  documents: list[int]
  kinds: list[str]


def gathered(config: WorldConfig, documents: Iterable[Document]) -> Iterator[Good]:
  """The good pages: each is made of documents of one theme, and a gazette takes in any."""
  rng = random.Random(f'nanollm web pages {config.seed}')
  waiting = {theme: [] for theme in ('people', 'stories', 'school', 'gazette', 'short')}
  towns, numbers = [town.name for town in truth(config).towns], itertools.count()
  trained = (document for document in documents if document.split == 'train')
  for row, document in enumerate(trained):
    theme = THEMES.get(document.kind, 'short')
    if theme in ('people', 'stories') and rng.random() < GAZETTE:
      theme = 'gazette'
    waiting[theme].append((row, document))
    if theme != 'short' and len(waiting[theme]) >= WAITING:
      yield _gather(rng, config.seed, pick(rng, towns), theme, waiting, next(numbers))
  for theme in waiting:
    while waiting[theme]:
      yield _gather(rng, config.seed, pick(rng, towns), theme, waiting, next(numbers))


def _gather(rng: random.Random, seed: int, town: str, theme: str, waiting: dict[str, list],
            number: int) -> Good:
  """A page of some of the documents that wait, no two of which share a line; they wait no more.

  Short documents join a gazette as long as it stays readable.
  """
  name = 'gazette' if theme == 'short' else theme
  here = site(rng, seed, town, name)
  title = say(rng, _FORMS[name], html.Gaps(rng, town, site=here.name))
  blocks, rows, kinds = [], [], []

  def add(theme: str, most: int, fits: Callable[[list[Block]], bool]) -> None:
    for item in waiting[theme][:2 * WAITING]:
      row, document = item
      more = next((more for more in _blocks(document, divided=row % 2 == 0)
                   if not _lines(blocks) & _lines(more) and fits(blocks + more)), None)
      if more:
        waiting[theme].remove(item)
        blocks.extend(more)
        rows.append(row)
        kinds.append(document.kind)
        most -= 1
      if not most:
        break

  add(theme, rng.randint(2, 4), lambda more: True)
  if name != 'school' and not _readable(title, blocks):
    add(theme, 2, lambda more: not _readable(title, blocks))
  if theme == 'gazette':
    add('short', 6, lambda more: _readable(title, more))
  slug = re.sub(r'\W+', '-', title.lower()).strip('-')
  return Good(name, f'https://{here.host}/{name}/{slug}-{number}.html', here, title, blocks,
              rows, kinds)


def site(rng: random.Random, seed: int, town: str, theme: str) -> Site:
  """One of the town's sites; it always looks the same."""
  word = pick(rng, _SITES[f'{theme} sites'])
  own = random.Random(f'nanollm site {seed} {town} {word}')
  host = f'{town.lower()}-{word}.{pick(own, _SITES["endings"])}'
  return Site(host, f'{town} {word.title()}', town, own.randrange(html.DESIGNS))


def _blocks(document: Document, divided: bool) -> list[list[Block]]:
  """The ways in which the document can stand on a page: a word list is lines or a wide table.

  Long paragraphs are divided, or not.
  """
  lines = document.text.split('\n')
  head = [('h2', lines.pop(0))] if len(lines) > 1 and lines[0][-1] not in '.!?' else []
  if document.kind != 'language' or len(lines) == 1:
    if divided and document.kind != 'textbook':
      lines = [part for line in lines for part in _halves(line)]
    return [head + [('p', line) for line in lines]]
  table = head + [('td', '\t'.join(lines[at:at + 3])) for at in range(0, len(lines), 3)]
  if len(lines[0].split()) < 3:  # the recipe cuts lines of two words
    return [table]
  return [head + [('p', '\n'.join(lines))], table]


def _halves(paragraph: str) -> list[str]:
  """The paragraph, or if it is long two of it."""
  at = paragraph.find('. ', 200) + 1
  return [paragraph[:at], paragraph[at + 1:]] if at else [paragraph]


def _lines(blocks: list[Block]) -> set[str]:
  return {line for _, text in blocks for line in text.split('\n')}


@functools.lru_cache(4096)  # a text is tried on several pages
def _counts(text: str) -> tuple[int, ...]:
  """Characters, tokens, tokens with a letter, lines, short lines."""
  lines = text.split('\n')
  return (len(text), len(_TOKEN.findall(text)), len(_WORD.findall(text)), len(lines),
          sum(len(line) <= 30 for line in lines))


def _totals(title: str, blocks: list[Block]) -> tuple[int, ...]:
  return tuple(map(sum, zip(_counts(title), *(_counts(text) for _, text in blocks))))


def fault(title: str, blocks: list[Block]) -> str | None:
  """The rule of the recipe that a page cannot pass: letters, quality (too short), fineweb."""
  size, tokens, lettered, lines, short = _totals(title, blocks)
  if lettered < 0.8 * tokens:
    return 'letters'
  return 'quality' if size < 350 else 'fineweb' if short > 0.67 * lines else None


def _readable(title: str, blocks: list[Block]) -> bool:
  """Whether there is text enough, and sentences enough in it, to pass with something to spare."""
  size, tokens, lettered, lines, short = _totals(title, blocks)
  return size > 500 and lettered > 0.81 * tokens and short <= 0.6 * lines
