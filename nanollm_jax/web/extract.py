"""Text of a page: bytes to characters, HTML to its main content, by resiliparse."""

import codecs
import re

from nanollm_jax import InputError
from nanollm_jax.web.warc import Record

try:
  from resiliparse.extract.html2text import extract_plain_text
  from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5
except ImportError:  # an extra; see `check`
  extract_plain_text = detect_encoding = map_encoding_to_html5 = None

DEEPEST = 10_000  # tags inside each other; the parser's time grows as their square
_META = re.compile(rb'<meta[^>]{0,200}?charset\s*=\s*["\']?\s*([\w.:-]{2,40})', re.I)
_TAG = re.compile(r'<(/?)([a-zA-Z][a-zA-Z0-9]*+)[^<>]*?(/?)>')
_VOID = frozenset('area base br col embed hr img input link meta source track wbr p li'.split())


def check() -> None:
  """Raises InputError where the parser is not installed."""
  if extract_plain_text is None:
    raise InputError('reading web pages needs resiliparse, which is not installed here: '
                     'pip install -e .[web].')


def text_of(record: Record) -> tuple[str, str]:
  """(text, '') of a page, or ('', reason) where there is none to be had."""
  characters = decode(record.body, record.charset)
  if characters is None:
    return '', 'charset'
  characters = characters.replace('\0', '')
  if record.plain:
    text = characters
  elif _depth(characters) > DEEPEST:
    return '', 'too_deep'
  else:
    text = extract_plain_text(characters, main_content=True, alt_texts=False)
  text = tidy(text)
  return (text, '') if text else ('', 'no_text')


def decode(body: bytes, charset: str = '') -> str | None:
  """Bytes as characters: UTF-8 if they are, else as declared, else as guessed; None if binary."""
  if body[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
    charset = 'utf-16'
  else:
    try:
      return body.decode('utf-8-sig')
    except UnicodeDecodeError:
      pass
  meta = _META.search(body[:4096])
  in_page = meta[1].decode('ascii', 'replace') if meta else ''
  for name in filter(None, (charset, in_page, detect_encoding(body))):
    try:
      codec = codecs.lookup(name).name
      if codec != 'utf-8' and (_standard(name) or _standard(codec)):
        return body.decode(_WEB.get(codec, name))
    except (LookupError, UnicodeError, ValueError):
      continue
  text = body.decode('utf-8', 'replace')
  return text if text.count('\ufffd') <= 0.02 * len(text) else None


_WEB = {'iso8859-1': 'cp1252', 'ascii': 'cp1252'}  # what browsers take these names for


def _standard(name: str) -> bool:
  """Whether the WHATWG's encoding standard has the name, so that a page may be written in it."""
  return map_encoding_to_html5(name, fallback_utf8=False) is not None


def _depth(html: str) -> int:
  """How many tags are open at once, at most, if those that need no end are left out."""
  if html.count('<') < DEEPEST:
    return 0
  depth = deepest = 0
  for tag in _TAG.finditer(html):
    if not tag[3] and tag[2].lower() not in _VOID:
      depth = max(0, depth + (-1 if tag[1] else 1))
      deepest = max(deepest, depth)
  return deepest


def tidy(text: str) -> str:
  """Lines without spaces at their ends, and no empty ones: a paragraph is a line."""
  return '\n'.join(filter(None, map(str.strip, text.splitlines())))
