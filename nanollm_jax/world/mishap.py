"""What goes wrong on the way of a page, and the answers of servers that are no pages at all.

A mishap is called mishap(rng, html) and returns how the page differs: its text survives. A
non-page is called answer(rng, url) and returns body, mime, status, content_type and location.
"""

import json
import random
import re
import zlib

LATIN = 'text/html; charset=windows-1252'
_CLOSING = re.compile(r'</(p|li|td|tr|article|main|body|html)>')


def unclosed(rng: random.Random, html: str) -> dict:
  """Tags that nobody closed."""
  return dict(body=_CLOSING.sub(lambda tag: tag[0] if rng.random() < 0.3 else '', html).encode())


def shouted(rng: random.Random, html: str) -> dict:
  """Upper-case tags, attributes without quotes, a stray end tag."""
  html = re.sub(r'<(/?)(p|div|h1|h2|ul|li|body|html)\b',
                lambda tag: f'<{tag[1]}{tag[2].upper()}', html)
  return dict(body=html.replace('</H1>', '</H1></B></FONT>').replace('="footer"', '=footer')
              .encode())


def nested(rng: random.Random, html: str) -> dict:
  """Three thousand divs around the text."""
  html = html.replace('<body>', '<body>' + '<div>' * 3000)
  return dict(body=html.replace('</body>', '</div>' * 3000 + '</body>').encode())


def nul_bytes(rng: random.Random, html: str) -> dict:
  """NUL bytes between the words."""
  return dict(body=html.replace('<p>', '<p>\0').replace('. ', '.\0 ').encode())


def windows_1252(rng: random.Random, html: str) -> dict:
  """An old encoding, rightly declared."""
  html = _typographic(html).replace('charset="utf-8"', 'charset="windows-1252"')
  return dict(body=html.encode('cp1252'), content_type=LATIN)


def wrong_charset(rng: random.Random, html: str) -> dict:
  """Windows-1252 that calls itself UTF-8."""
  return dict(body=_typographic(html).encode('cp1252'))


def cut_utf8(rng: random.Random, html: str) -> dict:
  """A page that ends within a character of its footer."""
  body = _typographic(html).encode()
  end = body.rfind('\u00a9'.encode())
  return dict(body=body[:end + 1])


def untyped(rng: random.Random, html: str) -> dict:
  """Neither server nor crawler says what this is."""
  return dict(body=html.encode(), mime=None, content_type=None)


MISHAPS = {unclosed: 4, shouted: 3, nested: 1, nul_bytes: 2, windows_1252: 3, wrong_charset: 2,
           cut_utf8: 2, untyped: 3}


def json_data(rng: random.Random, url: str) -> dict:
  """An answer for programs."""
  rows = [{'id': n, 'value': rng.random()} for n in range(rng.randint(3, 40))]
  return dict(body=json.dumps({'rows': rows}).encode(), mime='application/json',
              content_type='application/json')


def pdf(rng: random.Random, url: str) -> dict:
  """The bytes of a paper."""
  stream = zlib.compress(rng.randbytes(rng.randint(300, 3000)))
  body = b'%%PDF-1.4\n1 0 obj << /Length %d >> stream\n%s\nendstream endobj\n%%%%EOF\n' % (
      len(stream), stream)
  return dict(body=body, mime='application/pdf', content_type='application/pdf')


def image(rng: random.Random, url: str) -> dict:
  """A picture; the server says it were a page."""
  return dict(body=b'\x89PNG\r\n\x1a\n' + rng.randbytes(rng.randint(200, 2000)), mime='image/png')


def redirect(rng: random.Random, url: str) -> dict:
  """The page has moved."""
  location = url.replace('://', '://www.')
  body = f'<html><body><p>Moved to <a href="{location}">{location}</a>.</p></body></html>'
  return dict(body=body.encode(), status=301, location=location)


def not_found(rng: random.Random, url: str) -> dict:
  """There is no such page."""
  body = ('<html><head><title>404 Not Found</title></head><body><h1>Not Found</h1>\n'
          '<p>The page that you are looking for was not found on this server.</p></body></html>')
  return dict(body=body.encode(), status=404)


def robots(rng: random.Random, url: str) -> dict:
  """What crawlers may read."""
  body = f'User-agent: *\nCrawl-delay: {rng.randint(1, 30)}\nDisallow: /private/\n'
  return dict(body=body.encode(), mime='text/plain', content_type='text/plain')


def empty(rng: random.Random, url: str) -> dict:
  """A page without a byte."""
  return dict(body=b'')


NO_PAGES = {json_data: 2, pdf: 2, image: 2, redirect: 3, not_found: 3, robots: 2, empty: 2}
DROPS = {redirect: 'status', not_found: 'status', empty: 'extraction'}  # the others: by their type


def _typographic(html: str) -> str:
  """With real apostrophes, dashes and copyright signs, which are no ASCII."""
  html = html.replace("'", '\u2019').replace('&#x27;', '\u2019').replace('(c) ', '\u00a9 ')
  return html.replace(' - ', ' \u2013 ').replace('Copyright ', '\u00a9 ')
