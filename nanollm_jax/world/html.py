"""How the web's pages look: blocks of text in one of five designs, with all that stands around."""

import functools
import random
from html import escape
from typing import NamedTuple

from nanollm_jax.world import words
from nanollm_jax.world.prose import forms, lists, pick, say

# A tag (h2, p, li, td) and its text; each line of a p ends in a <br>, a tab parts cells of a row.
Block = tuple[str, str]
_FORMS, _WORDS = forms('boilerplate'), lists('web')
_DRAWN = {
    'goods': lambda rng: pick(rng, words.WORDS['goods']),
    'animal': lambda rng: pick(rng, words.WORDS['animals']),
    'thing': lambda rng: pick(rng, words.WORDS['things']),
    'first': lambda rng: words.first_name(rng, rng.random() < 0.5),
    'second': lambda rng: words.first_name(rng, rng.random() < 0.5),
    'other': lambda rng: pick(rng, words.TOWNS),
    'user': lambda rng: f'guest{rng.randint(100, 999)}',
    'n': lambda rng: str(rng.randint(2, 99)),
    'year': lambda rng: str(rng.randint(2009, 2025)),
    'day': lambda rng: (f'{rng.randint(1, 28)} '
                        f'{pick(rng, words.MONTHS[pick(rng, words.SEASONS)])}')}
_RUNS = {'li': ('<ul>', '</ul>'), 'td': ('<table>', '</table>')}


class Site(NamedTuple):
  """A site: its host, its name, the town it is from and the number of its design."""
  host: str
  name: str
  town: str
  design: int


def render(rng: random.Random, site: Site, title: str, blocks: list[Block],
           language: str = 'en') -> str:
  """The page of a site: its blocks, and around them what no reader came for."""
  head = (f'<meta charset="utf-8">\n<title>{escape(title)} - {escape(site.name)}</title>\n'
          f'<meta name="viewport" content="width=device-width">\n{_STYLE}{_SCRIPT}')
  around = _around(rng, site)
  body = _DESIGNS[site.design](f'<h1>{escape(title)}</h1>', markup(blocks), around)
  return (f'<!DOCTYPE html>\n<html lang="{language}">\n<head>\n{head}\n</head>\n<body>\n{body}\n'
          '</body>\n</html>\n')


def markup(blocks: list[Block]) -> str:
  """The blocks as HTML; runs of li and of td get their list or table."""
  out, run = [], ''
  for tag, text in [*blocks, ('', '')]:
    if tag != run:
      out += [_RUNS[run][1]] if run in _RUNS else []
      out += [_RUNS[tag][0]] if tag in _RUNS else []
      run = tag
    if tag:
      inner = escape(text, quote=len(text) % 2 == 0).replace('\n', '<br>\n')
      if tag == 'td':
        inner = '</td><td>'.join(inner.split('\t'))
      out.append(f'<tr><td>{inner}</td></tr>' if tag == 'td' else f'<{tag}>{inner}</{tag}>')
  return '\n'.join(out)


class Gaps(dict):
  """What the sentences around a page and of junk pages speak of: what is asked for is drawn."""

  def __init__(self, rng: random.Random, town: str, **known: str):
    super().__init__(known, Town=town, town=town, open='{', close='}')
    self._rng = rng

  def __missing__(self, gap: str) -> str:
    self[gap] = _DRAWN[gap](self._rng)
    return self[gap]


def said(rng: random.Random, section: str, count: int, town: str, site: str) -> list[str]:
  """Some sentences of a section of the boilerplate, no two of one form."""
  lines = rng.sample(_FORMS[section], min(count, len(_FORMS[section])))
  return [say(rng, (line,), Gaps(rng, town, site=site)) for line in lines]


def links(texts: list[str]) -> str:
  """A list of links with these texts."""
  items = (f'<li><a href="/{text.lower().replace(" ", "-")[:40]}.html">{escape(text)}</a></li>'
           for text in texts)
  return '<ul>\n' + '\n'.join(items) + '\n</ul>'


def _around(rng: random.Random, site: Site) -> dict[str, str]:
  """What stands around the text: the same on all pages of the site, but for the news of the day."""
  drawn = Gaps(rng, site.town)
  return {**_furniture(site), 'date': f'{drawn["day"]} {drawn["year"]}',
          'related': links(_some(rng, site, 'headlines', 2, 6)),
          'adverts': _paragraphs(_some(rng, site, 'adverts', 1, 2)),
          'comments': _paragraphs(_some(rng, site, 'comments', 0, 4))}


@functools.lru_cache(1024)
def _furniture(site: Site) -> dict[str, str]:
  rng = random.Random(f'nanollm furniture {site.host}')
  return {'site': escape(site.name), 'menu': links(rng.sample(_WORDS['menu'], rng.randint(4, 8))),
          'tags': links(rng.sample(_WORDS['tags'], 3)),
          'print': links(rng.sample(_WORDS['small print'], rng.randint(2, 5))),
          **{name: _paragraphs(_some(rng, site, name, 1, 1))
             for name in ('cookies', 'newsletter', 'footers')}}


def _some(rng: random.Random, site: Site, section: str, least: int, most: int) -> list[str]:
  return said(rng, section, rng.randint(least, most), site.town, site.name)


def _paragraphs(texts: list[str]) -> str:
  return '\n'.join(f'<p>{escape(text)}</p>' for text in texts)


def _news(head: str, text: str, around: dict[str, str]) -> str:
  return '''<div id="cookie-banner" class="cookie-consent" role="dialog">{cookies}</div>
<header class="site-header"><a class="logo" href="/">{site}</a>
<nav aria-label="main">{menu}</nav></header>
<main>
<article>
{head}
<p class="byline"><time>{date}</time></p>
{text}
</article>
<section class="comments" id="comments">{comments}</section>
</main>
<aside class="sidebar"><div class="advert">{adverts}</div>{related}</aside>
<footer class="site-footer">{print}{footers}</footer>'''.format(head=head, text=text, **around)


def _blog(head: str, text: str, around: dict[str, str]) -> str:
  return '''<div id="wrapper">
<div id="header"><div class="blog-title">{site}</div></div>
<div id="navigation" class="menu">{menu}</div>
<div id="content">
<div class="post hentry">
{head}
<div class="entry-content">
{text}
</div>
<div class="post-meta">{date} {tags}</div>
</div>
<div id="comments" class="comments-area">{comments}</div>
</div>
<div id="sidebar" class="widget-area"><div class="widget newsletter">{newsletter}</div>
<div class="widget ad-box">{adverts}</div></div>
<div id="footer">{footers}</div>
</div>'''.format(head=head, text=text, **around)


def _old(head: str, text: str, around: dict[str, str]) -> str:
  return '''<table width="800" border="0" cellpadding="4">
<tr><td colspan="2" bgcolor="#003366"><font color="white" size="5">{site}</font></td></tr>
<tr><td width="150" valign="top" class="navbar">{menu}</td>
<td valign="top">
{head}
{text}
</td></tr>
<tr><td colspan="2" class="footer" align="center">{footers}</td></tr>
</table>'''.format(head=head, text=text, **around)


def _plain(head: str, text: str, around: dict[str, str]) -> str:
  return '{head}\n{text}\n<hr>\n<footer>{footers}</footer>'.format(head=head, text=text, **around)


def _app(head: str, text: str, around: dict[str, str]) -> str:
  return '''<script type="application/ld+json">{{"@type": "Article", "by": "{site}"}}</script>
<div class="app">
<div role="banner" class="topbar"><span class="brand">{site}</span></div>
<div role="navigation" class="nav-drawer">{menu}</div>
<div role="main" class="content">
{head}
{text}
<div class="share-buttons"><a href="#">Share</a> <a href="#">Print</a></div>
</div>
<div role="complementary" class="related-posts"><h4>Read more</h4>{related}</div>
<div class="popup newsletter" style="display: none">{newsletter}</div>
<div role="contentinfo" class="footer">{print}{footers}</div>
</div>
<noscript>Please enable JavaScript for comments.</noscript>'''.format(
    head=head, text=text, **around)


_STYLE = '<style>body { font: 16px serif; } .advert { float: right; }</style>\n'
_SCRIPT = '<script>window.seen = (window.seen || 0) + 1; if (seen > 3) { ask(); }</script>'
_DESIGNS = (_news, _blog, _old, _plain, _app)
DESIGNS = len(_DESIGNS)
