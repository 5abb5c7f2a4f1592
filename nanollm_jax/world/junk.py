"""Pages that a filter should drop: each function makes the text of one kind, JUNK says how many.

A maker is called maker(rng, town) and returns the title, the blocks of the text (see html.py) and
its language. DROPS names the rule of the recipe that each kind is made for; another rule may well
drop it first.
"""

import random
import string

from nanollm_jax.world import html, words
from nanollm_jax.world.html import Block
from nanollm_jax.world.prose import forms, pick, say

Text = tuple[str, list[Block], str]
_FORMS, _TONGUES, _BOILERPLATE = forms('junk'), forms('languages'), forms('boilerplate')


def spam(rng: random.Random, town: str) -> Text:
  """Fluent advertising, which passes every rule about form."""
  return _paragraphs(rng, town, _FORMS['spam'], rng.randint(7, 12))


def adult(rng: random.Random, town: str) -> Text:
  """The words of an adult site: mild, and well formed."""
  return _paragraphs(rng, town, _FORMS['adult'] + _FORMS['spam'][:4], rng.randint(7, 10))


def malware(rng: random.Random, town: str) -> Text:
  """A site that wants something downloaded."""
  return _paragraphs(rng, town, _FORMS['malware'] + _FORMS['spam'][4:7], rng.randint(7, 9))


def foreign(rng: random.Random, town: str) -> Text:
  """A page in another language."""
  tongue = pick(rng, tuple(_TONGUES))
  blocks = _paragraphs(rng, town, _TONGUES[tongue], rng.randint(9, 14))[1]
  return town, blocks, tongue


def listing(rng: random.Random, town: str) -> Text:
  """A site's front page: headlines, each a link, and nothing to read."""
  lines = html.said(rng, 'headlines', rng.randint(6, 10), town, town)
  return f'Archive of {town}', [('li', line) for line in lines], 'en'


def teasers(rng: random.Random, town: str) -> Text:
  """Promises that end in three dots."""
  lines = html.said(rng, 'teasers', 9, town, town)
  return _title(rng, town), [('p', line) for line in lines], 'en'


def bullets(rng: random.Random, town: str) -> Text:
  """Nothing but lines that begin with a bullet."""
  lines = [say(rng, _FORMS['spam'], html.Gaps(rng, town)) for _ in range(rng.randint(12, 16))]
  return '\u2022 ' + _title(rng, town), [('p', '\u2022 ' + line) for line in lines], 'en'


def hashtags(rng: random.Random, town: str) -> Text:
  """Short cries with more tags than words."""
  def cry() -> str:
    gaps = html.Gaps(rng, town)
    return f'So happy with the {gaps["goods"]}! ' + ' '.join(
        f'#{gaps[name].lower().replace(" ", "")}' for name in ('goods', 'Town', 'animal', 'thing'))
  return _title(rng, town), [('p', cry()) for _ in range(rng.randint(8, 14))], 'en'


def link_farm(rng: random.Random, town: str) -> Text:
  """Hundreds of links to other farms."""
  def link() -> str:
    return say(rng, _FORMS['keywords'], html.Gaps(rng, town))
  return f'Links and more links {town}', [('li', link()) for _ in range(rng.randint(60, 150))], 'en'


def keywords(rng: random.Random, town: str) -> Text:
  """One thing for sale, named over and over."""
  gaps = html.Gaps(rng, town)
  lines = [' '.join(say(rng, _FORMS['keywords'], gaps) for _ in range(12)) + '.' for _ in range(7)]
  return f'{gaps["goods"]} {gaps["goods"]} {town}', [('p', line) for line in lines], 'en'


def gibberish(rng: random.Random, town: str) -> Text:
  """Letters that fell on the page."""
  def word() -> str:
    return ''.join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 9)))
  lines = [' '.join(word() for _ in range(20)) + '.' for _ in range(7)]
  return f'{word()} {word()} {word()}', [('p', line) for line in lines], 'und'


def salad(rng: random.Random, town: str) -> Text:
  """English words that were thrown together, without the small ones that make sentences."""
  pools = [words.WORDS[name] for name in ('animals', 'things', 'goods', 'qualities', 'pets')]
  lines = [' '.join(pick(rng, pick(rng, pools)) for _ in range(14)).capitalize() + '.'
           for _ in range(8)]
  return _title(rng, town), [('p', line) for line in lines], 'en'


def lorem(rng: random.Random, town: str) -> Text:
  """A page whose text was never filled in."""
  title, blocks, _ = _paragraphs(rng, town, _FORMS['lorem'], 5)
  blocks = [('p', _FORMS['lorem'][0][0]), *blocks]
  return title, blocks + _paragraphs(rng, town, _FORMS['spam'], 5)[1], 'la'


def short(rng: random.Random, town: str) -> Text:
  """Too few words to be of use."""
  return _paragraphs(rng, town, _FORMS['short'], rng.randint(1, 2))


def repetitive(rng: random.Random, town: str) -> Text:
  """The same paragraph again and again."""
  title, blocks, language = _paragraphs(rng, town, _FORMS['spam'], 3)
  return title, blocks[:1] * rng.randint(5, 9), language


def javascript(rng: random.Random, town: str) -> Text:
  """A page that only a browser could fill."""
  return _title(rng, town), [('p', say(rng, _FORMS['javascript'], {}))], 'en'


def code(rng: random.Random, town: str) -> Text:
  """A program where text should be."""
  def line() -> str:
    return say(rng, _FORMS['code'], html.Gaps(rng, town))
  return _title(rng, town), [('p', line()) for _ in range(rng.randint(14, 24))], 'und'


JUNK = {listing: 8, foreign: 14, spam: 5, adult: 5, malware: 4, link_farm: 4, keywords: 4,
        teasers: 3, bullets: 2, hashtags: 2, gibberish: 2, salad: 2, lorem: 3, short: 6,
        repetitive: 4, javascript: 3, code: 3}
DROPS = {listing: 'quality', foreign: 'language', spam: 'classifier', adult: 'url', malware: 'url',
         link_farm: 'repetition', keywords: 'repetition', teasers: 'quality', bullets: 'quality',
         hashtags: 'quality', gibberish: 'language', salad: 'quality', lorem: 'c4',
         short: 'quality', repetitive: 'repetition', javascript: 'quality', code: 'c4'}


def _paragraphs(rng: random.Random, town: str, lines, count: int) -> Text:
  """Some sentences, no two of one form, in paragraphs of three."""
  chosen = rng.sample(lines, min(count, len(lines)))
  told = [say(rng, (line,), html.Gaps(rng, town)) for line in chosen]
  blocks = [('p', ' '.join(told[at:at + 3])) for at in range(0, len(told), 3)]
  return _title(rng, town), blocks, 'en'


def _title(rng: random.Random, town: str) -> str:
  return say(rng, _BOILERPLATE['headlines'], html.Gaps(rng, town))
