"""Words of a page, their hashes and n-grams: what all filters count.

The split is that of spaCy's English rules (punctuation, contractions, units, hyphens and quotes
are words of their own), because the thresholds of the filters were chosen on such words. Each
run of characters between spaces is split once a process and then looked up.
"""

import functools
import hashlib
import re

import numpy as np

_QUOTE = r'\'"”“`‘´’‚,„»«「」『』（）〔〕【】《》〈〉〈〉⟦⟧'
_MARK = r'…,:;!?¿؟¡()\[\]{}<>_#*&。？！，、；：～·।،۔؛٪'
_ICON = (r'\u2190-\u21ff\u2300-\u23ff\u2460-\u27bf\u2900-\u2bff\u00a6\u00a9\u00ae\u00b0'
         r'\U0001f000-\U0001faff')
_MONEY = r'$£€¥฿₽﷼₴₠-₿'
_UNIT = ('km km² km³ m m² m³ dm dm² dm³ cm cm² cm³ mm mm² mm³ ha µm nm yd in ft kg g mg µg t lb oz '
         'm/s km/h kmh mph hPa Pa mbar mb MB kb KB gb GB tb TB T G M K %').split()
_LETTER = r'[^\W\d_]'
_PREFIX = re.compile(rf'§|%|=|—|–|\+(?![0-9])|\.\.+|[{_MARK}{_QUOTE}{_MONEY}{_ICON}]')
_SUFFIX = re.compile(
    rf'(?:\.\.+|[{_MARK}{_QUOTE}{_ICON}]|[\'’][sS]|—|–|(?<=[0-9])\+|(?<=°[FfCcKk])\.'
    rf'|(?<=[0-9])[{_MONEY}]|(?<=[0-9])(?:{"|".join(_UNIT)})'
    rf'|(?<=[0-9a-zß-ÿ%²\-+{_MARK}{_QUOTE}])\.|(?<=[A-Z][A-Z])\.)$')
_PLAIN = re.compile(r'[A-Za-z]{5}$')  # an end that is no suffix
_INFIX = re.compile(
    rf'\.\.+|…|[{_ICON}]|(?<=[0-9])[+\-*^](?=[0-9-])|(?<=[a-zß-ÿ{_QUOTE}])\.(?=[A-Z{_QUOTE}])'
    rf'|(?<={_LETTER}),(?={_LETTER})|(?<=[^\W_])(?:-|–|—|--|---|——|~)(?={_LETTER})'
    rf'|(?<=[^\W_])[:<>=/](?={_LETTER})')
_URL = re.compile(
    r'(?:(?:https?|ftp)://)?(?:\S+(?::\S*)?@)?'
    r'(?:[A-Za-z0-9\u00a1-\uffff][A-Za-z0-9\u00a1-\uffff_-]{0,62}\.)+'
    r'[a-z\u00a1-\uffff]{2,63}\.?(?::\d{2,5})?(?:[/?#]\S*)?')
_WHOLE = frozenset((
    'a.m. p.m. e.g. i.e. E.g. I.e. E.G. I.E. vs. v.s. Mr. Mrs. Ms. Dr. Prof. St. Mt. Inc. Co. co. '
    'Corp. Ltd. Bros. Jr. Jan. Feb. Mar. Apr. Jun. Jul. Aug. Sep. Sept. Oct. Nov. Dec. Adm. Gen. '
    'Gov. Rep. Rev. Sen. Messrs. Ph.D. D.C. N.Y. Id. Ill. Miss. and/or w/o C++ \'\' '
    '): :) :( 8) (: (; :] [: :x :X :o :O :0 :3 :1 =) (= =( ;) :-) :-( ;-) :D :P :p :/ ;D <3 ^_^ '
    ).split()) | {f'{letter}.' for letter in 'abcdefghijklmnopqrstuvwxyz'}
LONGEST = 1000  # characters between spaces; what is longer is no prose and is split simply
_LONG = re.compile(r'\w+|[^\w\s]')
_SHORT = re.compile(
    r'(?i)(can)(not)|(ai|are|ca|could|dare|did|does|do|had|has|have|is|might|must|need|ought|sha'
    r'|should|was|were|wo|would)(n[\'’]?t)|(i|you|he|she|it|we|they|that|this|there|these|those|who'
    r'|what|when|where|why|how)([\'’](?:s|re|ve|ll|d|m))|(i)(d|m|ve)|(that|there|what|he|she|who)(s)'
    r'|(you|they)(re|ve)|(gon)(na)|(got)(ta)')


def split(text: str) -> list[str]:
  """The words of a text in order; no word holds a space."""
  found = []
  for chunk in text.split():
    found += _chunk(chunk) if len(chunk) <= LONGEST else _LONG.findall(chunk)
  return found


@functools.lru_cache(1 << 17)
def _chunk(chunk: str) -> tuple[str, ...]:
  if chunk.isalpha() and chunk.isascii():
    return _parts(chunk) or (chunk,)
  before, after = [], []
  while chunk and chunk not in _WHOLE and not _parts(chunk):
    first = None if chunk[0].isalnum() else _PREFIX.match(chunk)
    if first:
      before.append(first[0])
      chunk = chunk[first.end():]
      if chunk in _WHOLE:
        break
    last = None if _PLAIN.search(chunk) else _SUFFIX.search(chunk, max(0, len(chunk) - 40))
    if last:
      after.append(last[0])
      chunk = chunk[:last.start()]
    if not first and not last:
      break
  found = []
  for word in (*before, *_inside(chunk), *reversed(after)):
    if found and found[-1] + word in _WHOLE:  # the two halves of a face
      found[-1] += word
    else:
      found.append(word)
  return tuple(found)


def _parts(chunk: str) -> tuple[str, ...]:
  short = len(chunk) < 12 and not chunk.isupper() and _SHORT.fullmatch(chunk)
  return tuple(filter(None, short.groups())) if short else ()


def _inside(chunk: str) -> tuple[str, ...]:
  if parts := _parts(chunk):
    return parts
  if not chunk or chunk in _WHOLE or chunk.isalpha() or '.' in chunk and _URL.fullmatch(chunk):
    return (chunk,) * bool(chunk)
  found, at = [], 0
  for infix in _INFIX.finditer(chunk):
    found += filter(None, (chunk[at:infix.start()], infix[0]))
    at = infix.end()
  return (*found, chunk[at:]) if at < len(chunk) else tuple(found)
