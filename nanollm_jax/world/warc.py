"""WARC 1.0, the file format of web archives: each record is a gzip member of its own."""

import base64
import gzip
import hashlib
import uuid

DATE = '2026-01-01T00:00:00Z'  # one day for all: the same seed gives the same bytes
_STATUS = {200: 'OK', 301: 'Moved Permanently', 404: 'Not Found'}
_NAMESPACE = uuid.UUID('6e616e6f-6c6c-5d6a-8178-000000000000')


def record_id(name: str) -> str:
  """The WARC-Record-ID of what has this name, always the same."""
  return f'<urn:uuid:{uuid.uuid5(_NAMESPACE, name)}>'


def warcinfo(filename: str) -> bytes:
  """The record that opens a file."""
  block = ('software: nanollm_jax miniature internet\r\nformat: WARC File Format 1.0\r\n'
           'description: made-up pages; nothing in this file was fetched from any site\r\n')
  return _record({'WARC-Type': 'warcinfo', 'WARC-Record-ID': record_id(filename),
                  'WARC-Date': DATE, 'WARC-Filename': filename,
                  'Content-Type': 'application/warc-fields'}, block.encode())


def response(url: str, body: bytes, mime: str | None, status: int = 200,
             content_type: str | None = None, location: str | None = None) -> bytes:
  """What a server answered: `mime` is what the crawler saw, `content_type` what the server said.

  Without a mime the record does not say what its body is.
  """
  http = [f'HTTP/1.1 {status} {_STATUS[status]}', f'Content-Length: {len(body)}',
          'Server: miniature']
  http += [f'Content-Type: {content_type}'] if content_type else []
  http += [f'Location: {location}'] if location else []
  block = '\r\n'.join([*http, '', '']).encode() + body
  digest = hashlib.sha1(body).digest()
  said = {'WARC-Identified-Payload-Type': mime} if mime else {}
  return _record({'WARC-Type': 'response', 'WARC-Record-ID': record_id(url), 'WARC-Date': DATE,
                  'WARC-Target-URI': url, **said,
                  'WARC-Payload-Digest': 'sha1:' + base64.b32encode(digest).decode(),
                  'Content-Type': 'application/http; msgtype=response'}, block)


def _record(headers: dict[str, str], block: bytes) -> bytes:
  lines = ['WARC/1.0', *(f'{name}: {value}' for name, value in headers.items()),
           f'Content-Length: {len(block)}', '', '']
  return gzip.compress('\r\n'.join(lines).encode() + block + b'\r\n\r\n', 6, mtime=0)
