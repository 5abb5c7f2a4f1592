"""Documents: a stream of texts and their split from txt, JSON lines and Parquet files."""

import collections
import glob
import hashlib
import io
import json
import os
import pathlib
import re
from typing import BinaryIO, Iterator, Sequence

from nanollm_jax import InputError

_MARK = b'<|endoftext|>'
_TEXT = re.compile(r'(dictionary<values=)?(large_|fixed_size_)?(string|binary)|null')  # in Parquet
_CUT, _LONGEST = 2_000, 100_000  # bytes of a .txt document: a blank line ends it after, at most
_ENDINGS = ('.txt', '.jsonl', '.jsonl.gz', '.jsonl.zst', '.parquet')


def find(patterns: Sequence[str]) -> list[pathlib.Path]:
  """Expands paths and globs, sorted within each and each file once.

  Raises InputError for a pattern that matches nothing and a file of no known format or no bytes.
  """
  if not patterns:
    raise InputError('there are no documents: give --documents or --data.documents files or globs '
                     'such as corpus/*.jsonl.gz.')
  found = {}
  for pattern in patterns:
    names = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
    if not names:
      raise InputError(f'{pattern} matches no file: check the path, or build the documents first.')
    for path in map(pathlib.Path, names):
      if path.is_dir() or not path.name.endswith(_ENDINGS):
        raise InputError(f'{path} is not a file this reads: give {", ".join(_ENDINGS)} files, '
                         'or a glob such as folder/*.jsonl.')
      if not path.stat().st_size:
        raise InputError(f'{path} is empty: remove it or build it again.')
      found[path] = None
  return list(found)


def read(patterns: Sequence[str], validation_fraction: float = 0.0,
         text_field: str = 'text') -> Iterator[tuple[str, str]]:
  """Streams (split, text) from files, split being 'train' or 'validation'.

  A .txt file is cut at lines `<|endoftext|>`, or else at blank lines, and its last fraction is
  for validation (nanoGPT's convention; no such line is divided); a document of another format
  goes where a hash of its text says. Empty and binary documents (NUL bytes, no UTF-8) are skipped
  and reported in a line.
  Raises InputError for files that cannot be read or hold no text; see `find`.
  """
  if not 0 <= validation_fraction < 1:
    raise InputError(f'the part held out for validation, {validation_fraction}, must be 0 or more '
                     'and less than 1.')
  return _read(find(patterns), validation_fraction, text_field)


def _read(paths: list[pathlib.Path], fraction: float, field: str) -> Iterator[tuple[str, str]]:
  counts = collections.Counter()
  for path in paths:
    before = counts['text']
    if path.suffix == '.txt':
      found = _txt(path, fraction)
    else:
      rows = (_parquet if path.suffix == '.parquet' else _jsonl)(path, field)
      found = (('', row) for row in rows)
    for split, raw in found:
      text = _text(raw)
      kind = 'binary' if text is None else 'text' if text.strip() else 'empty'
      counts[kind] += 1
      if kind == 'text':
        yield split or _split_of(text, fraction), text
    if counts['text'] == before:
      raise InputError(f'{path} holds no text, only empty or binary documents: leave it out.')
  if skipped := counts['empty'] + counts['binary']:
    print(f'documents: {counts["empty"]} empty and {counts["binary"]} binary of '
          f'{counts["text"] + skipped} skipped.')


def _text(raw: bytes | str) -> str | None:
  """The document as text that has a UTF-8 form, or None for binary."""
  try:
    text = raw.decode() if isinstance(raw, bytes) else raw
    text.encode()  # refuses the lone surrogates that JSON can spell
  except UnicodeError:
    return None
  return None if '\0' in text else text


def _split_of(text: str, fraction: float) -> str:
  digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
  return 'validation' if int.from_bytes(digest, 'big') < fraction * 2**64 else 'train'


def _txt(path: pathlib.Path, fraction: float) -> Iterator[tuple[str, bytes]]:
  size = path.stat().st_size
  with path.open('rb') as file:
    marked = any(line.strip() == _MARK for line in file)
    border = int(size * (1 - fraction))
    file.seek(border)
    border += next((k for k, byte in enumerate(file.read(4)) if byte & 0xC0 != 0x80), 0)
    border = _behind_mark(file, border) if marked else border
    for split, start, stop in (('train', 0, border), ('validation', border, size)):
      file.seek(start)
      yield from ((split, raw) for raw in _cut(file, stop, marked) if raw.strip())


def _behind_mark(file: BinaryIO, border: int) -> int:
  """The border, or the end of the mark's line that it stands in."""
  start = max(0, border - 100)  # a mark with the spaces around it is no longer
  file.seek(start)
  start += file.read(border - start).rfind(b'\n') + 1
  file.seek(start)
  line = file.readline()
  return start + len(line) if line.strip() == _MARK else border


def _cut(file: BinaryIO, stop: int, marked: bool) -> Iterator[bytes]:
  """Cuts file[here:stop] into documents; joined they are the file, but for the marks."""
  held, here = bytearray(), file.tell()
  while line := file.readline(stop - here):
    here += len(line)
    mark = line.strip() == _MARK
    if not mark:
      held += line
    if mark or len(held) > _LONGEST or (not marked and len(held) > _CUT and not line.strip()):
      yield bytes(held)
      held.clear()
  yield bytes(held)


def _jsonl(path: pathlib.Path, field: str) -> Iterator[bytes | str]:
  import pyarrow  # slow to import; it reads .gz and .zst of several members and sees cut ones
  number = 0
  try:
    with io.BufferedReader(pyarrow.input_stream(str(path))) as file:
      for number, line in enumerate(file, 1):
        if line.strip():
          yield _field(line, field, f'{path} line {number}')
  except OSError as error:
    raise InputError(f'{path} is cut short or damaged after line {number} ({error}): '
                     'fetch or build it again.') from error


def _field(line: bytes, field: str, where: str) -> bytes | str:
  try:
    row = json.loads(line.decode())
  except UnicodeDecodeError:
    return line  # binary, so it is counted and skipped
  except (ValueError, RecursionError) as error:
    raise InputError(f'{where} is not JSON ({error}): mend or remove the line.') from error
  if not isinstance(row, dict) or not isinstance(row.get(field), str | None) or field not in row:
    names = ', '.join(row) if isinstance(row, dict) else 'no fields'
    raise InputError(f'{where} has no text in a field {field!r} (it has: {names}): '
                     'name another text_field.')
  return row[field] or ''


def _parquet(path: pathlib.Path, field: str) -> Iterator[str]:
  import pyarrow.parquet
  try:
    file = pyarrow.parquet.ParquetFile(path)
    names = file.schema_arrow.names
    if field not in names:
      raise InputError(f'{path} has no column {field!r} (it has: {", ".join(names)}): '
                       'name another text_field.')
    kind = file.schema_arrow.field(field).type
    if not _TEXT.match(str(kind)):
      raise InputError(f'{path} holds no text in its column {field!r}, but {kind}: name another '
                       'text_field.')
    for batch in file.iter_batches(batch_size=1024, columns=[field]):
      yield from (text or '' for text in batch.column(0).to_pylist())
  except (pyarrow.ArrowException, OSError) as error:
    raise InputError(f'{path} is not a sound Parquet file ({error}): fetch it again.') from error
