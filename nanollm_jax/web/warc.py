"""Records of a crawl: responses in WARC files, texts in WET files, pages in folders of HTML."""

import hashlib
import pathlib
import re
import zlib
from typing import BinaryIO, Iterator, NamedTuple

LARGEST = 16 << 20  # bytes of a page; a longer one is passed over
_CHUNK, _HEAD = 1 << 18, 1 << 16  # bytes read at a time, and of a record's head at most
_HTML = ('text/html', 'application/xhtml+xml')
_SNIFF = re.compile(rb'\s*(?:<\?xml[^>]*>\s*)?(?:<!--(?:(?!-->).)*-->\s*)*'
                    rb'<(?:!doctype html|html|head|body)', re.I | re.S)
_CHUNKED = re.compile(rb'[0-9A-Fa-f]+\s*[;\r]')
_LENGTH = re.compile(r'[0-9]{1,18}')


class Record(NamedTuple):
  """A page: its bytes (HTML, or UTF-8 text if `plain`), or the reason why it was passed over."""
  url: str
  id: str
  body: bytes
  charset: str = ''
  plain: bool = False
  reason: str = ''


class Damage(Exception):
  """Bytes that cannot be unpacked or are no record."""


def read(path: str | pathlib.Path) -> Iterator[Record]:
  """Yields the pages of a .warc, .wet (.gz or not) or .html file, or of a folder of HTML files.

  What cannot be used comes too, with a reason and no body; after damage reading goes on at the
  next record that is sound.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    for page in pages(path):
      yield _file(page, page.relative_to(path).as_posix())
  elif path.suffix in ('.html', '.htm'):
    yield _file(path, path.name)
  else:
    with path.open('rb') as file:
      yield from _records(_Unpacked(file))


def pages(folder: pathlib.Path) -> list[pathlib.Path]:
  """The HTML files below a folder, with links that lead nowhere, sorted."""
  return sorted(page for page in folder.rglob('*.htm*') if page.is_file() or not page.exists())


def _file(path: pathlib.Path, name: str) -> Record:
  try:
    if path.stat().st_size > LARGEST:
      return Record(f'file:{name}', '', b'', reason='too_large')
    body = path.read_bytes()
  except OSError:
    return Record(f'file:{name}', '', b'', reason='unreadable')
  return Record(f'file:{name}', hashlib.blake2b(body, digest_size=16).hexdigest(), body)


class _Unpacked:
  """The bytes of a file, unpacked if it is gzip of one or of many members."""

  def __init__(self, file: BinaryIO):
    self._file, self._raw, self._held = file, b'', bytearray()
    self._raw = file.read(_CHUNK)
    self.packed = self._raw[:2] == b'\x1f\x8b'
    self._inflate = None

  def _more(self) -> bool:
    """Adds bytes to those held; False at the end of the file."""
    if not self._raw:
      self._raw = self._file.read(_CHUNK)
    if not self._raw:
      if self._inflate:
        self._inflate = None
        raise Damage('truncated')
      return False
    if not self.packed:
      self._held += self._raw
      self._raw = b''
      return True
    if not self._inflate:
      self._inflate = zlib.decompressobj(31)
    try:
      self._held += self._inflate.decompress(self._raw, _CHUNK)
    except zlib.error as error:
      self._raw, self._inflate = self._raw[1:], None
      raise Damage('gzip') from error
    if self._inflate.eof:
      self._raw, self._inflate = self._inflate.unused_data.lstrip(b'\0'), None
    else:
      self._raw = self._inflate.unconsumed_tail
    return True

  def head(self) -> bytes | None:
    """The bytes up to an empty line, or None at the end of the file."""
    start = 0
    while True:
      if not start:
        while self._held[:1] in (b'\r', b'\n'):
          del self._held[:len(self._held) - len(self._held.lstrip(b'\r\n'))]
      end = self._held.find(b'\r\n\r\n', max(0, start - 3))
      if end >= 0:
        found = bytes(self._held[:end])
        del self._held[:end + 4]
        return found
      start = len(self._held)
      if start > _HEAD:
        raise Damage('no record')
      if not self._more():
        if self._held:
          self._held.clear()
          raise Damage('truncated')
        return None

  def take(self, count: int, most: int) -> bytes:
    """The next `count` bytes, of which only the first `most` are kept."""
    kept = bytearray()
    while True:
      part = self._held[:count]
      del self._held[:count]
      kept += part[:most - len(kept)]
      count -= len(part)
      if not count:
        return bytes(kept)
      if not self._more():
        raise Damage('truncated')

  def resume(self) -> bool:
    """Goes on at the next gzip member, or the next line that begins a record; False if none."""
    mark = b'\x1f\x8b\x08' if self.packed else b'WARC/1.'
    held = self._raw if self.packed else bytes(self._held)
    self._held.clear()
    while True:
      at = held.find(mark)
      if at >= 0:
        self._raw, self._inflate = held[at:], None
        return True
      more = self._file.read(_CHUNK)
      if not more:
        self._raw, self._inflate = b'', None
        return False
      held = held[-len(mark) + 1:] + more


def _records(stream: _Unpacked) -> Iterator[Record]:
  while True:
    try:
      head = stream.head()
      if head is None:
        return
      first, fields = _fields(head)
      if not first.startswith('WARC/') or not _LENGTH.fullmatch(fields.get('content-length', '')):
        raise Damage('no record')
      size, kind = int(fields['content-length']), fields.get('warc-type', '')
      body = stream.take(size, LARGEST + _HEAD if kind in ('response', 'conversion', '') else 0)
    except Damage as damage:
      yield Record('', '', b'', reason='broken_record')
      if not stream.resume():
        return
      continue
    if kind in ('response', 'conversion', ''):
      yield _record(kind, size, fields, body)


def _fields(head: bytes) -> tuple[str, dict[str, str]]:
  first, *lines = re.sub(r'\r?\n[ \t]+', ' ', head.decode('utf-8', 'replace')).splitlines() or ['']
  pairs = (line.partition(':') for line in lines)
  return first, {name.strip().lower(): value.strip() for name, _, value in pairs}


def _record(kind: str, size: int, fields: dict[str, str], body: bytes) -> Record:
  url = fields.get('warc-target-uri', '').strip('<>')
  blank = Record(url, fields.get('warc-record-id', ''), b'')
  payload = fields.get('warc-identified-payload-type', '').lower()
  if not kind:
    return blank._replace(reason='no_type')
  if not url:
    return blank._replace(reason='no_url')
  if size > LARGEST:
    return blank._replace(reason='too_large')
  if kind == 'conversion':
    return blank._replace(body=body, charset='utf-8', plain=True)
  head, found, body = body.partition(b'\r\n\r\n')
  status, http = _fields(head)
  if not found or not status.startswith('HTTP/'):
    return blank._replace(reason='no_http')
  code = status.split(' ')[1:2]
  if code != ['200']:
    return blank._replace(reason='redirect' if code and code[0][:1] == '3' else 'status')
  kind, _, rest = http.get('content-type', '').partition(';')
  if not payload:
    payload = kind.strip().lower() or ('text/html' if _SNIFF.match(body[:4096]) else '')
  if payload not in _HTML:
    return blank._replace(reason='not_html')
  try:
    body = _decoded(http, body)
  except (ValueError, zlib.error):
    return blank._replace(reason='broken_body')
  charset = re.search(r'charset\s*=\s*["\']?([\w.:-]+)', rest, re.I)
  return blank._replace(body=body, charset=charset[1] if charset else '')


def _decoded(http: dict[str, str], body: bytes) -> bytes:
  """The body without transfer and content encodings, which most crawlers have taken off."""
  if http.get('transfer-encoding', '').lower() == 'chunked' and _CHUNKED.match(body):
    body = b''.join(_chunks(body))
  if http.get('content-encoding', '').lower() in ('gzip', 'deflate') and body[:1] in b'\x1f\x78':
    unpack = zlib.decompressobj(47)
    body = unpack.decompress(body, LARGEST)
  return body


def _chunks(body: bytes) -> Iterator[bytes]:
  """The parts of a chunked body. Raises ValueError for a size that is no hexadecimal number."""
  at = 0
  while True:
    end = body.index(b'\r\n', at) + 2
    if not _CHUNKED.match(body, at, end):
      raise ValueError('no size of a chunk')
    size = int(body[at:end].partition(b';')[0], 16)
    if not size:
      return
    yield body[end:end + size]
    at = end + size + 2
