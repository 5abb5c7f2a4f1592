"""Shards of a crawl: found, filtered and finished one by one, with their files and counts.

A shard's files are written aside and renamed, the counts last: what a kill leaves half done is
done again, and no file depends on workers or on other shards but through deduplication.
"""

import collections
import dataclasses
import functools
import glob
import hashlib
import json
import os
import pathlib
from typing import Any, Callable, Iterable, Iterator, NamedTuple, Sequence

import numpy as np
import pyarrow
import pyarrow.parquet

from nanollm_jax import InputError
from nanollm_jax.text import known
from nanollm_jax.web import minhash, pii, warc
from nanollm_jax.web.pipeline import Document, WebConfig, judge

SHOWN, SNIPPET = 3, 300  # examples of each reason, and their characters
MANY = 20  # pages, of which extraction should find text on half
UNREAD = ('read', 'broken_record')
_ENDINGS = ('.warc', '.wet', '.warc.gz', '.wet.gz', '.html', '.htm')
_PASSED = pyarrow.schema([
    ('url', 'string'), ('id', 'string'), ('key', 'string'), ('text', 'string'),
    ('language', 'string'), ('language_score', 'float32'), ('quality', 'float32'),
    ('size', 'int64'), ('words', 'int64'), ('tokens', 'int64'),
    ('bands', pyarrow.list_(pyarrow.uint64()))])
_DROPPED = pyarrow.schema([
    ('url', 'string'), ('id', 'string'), ('key', 'string'), ('step', 'string'),
    ('reason', 'string'),
    ('language', 'string'), ('language_score', 'float32'), ('duplicate_of', 'string'),
    ('jaccard', 'float32'), ('text', 'string')])
DOCUMENTS = pyarrow.schema([
    ('url', 'string'), ('id', 'string'), ('key', 'string'), ('text', 'string'),
    ('language', 'string'),
    ('language_score', 'float32'), ('quality', 'float32'), ('words', 'int64'),
    ('tokens', 'int64'), ('addresses', 'int64')])


class Shard(NamedTuple):
  """An input and the name of its outputs."""
  path: str
  name: str


def find(patterns: Sequence[str]) -> list[Shard]:
  """The inputs of globs, each once, sorted by name. Raises InputError where there are none."""
  paths = {}
  for pattern in patterns:
    found = [pattern] if os.path.exists(pattern) else glob.glob(pattern, recursive=True)
    if not found:
      raise InputError(f'--web.warcs={pattern} matches no file: check the path.')
    paths |= {os.path.abspath(path): path for path in found}
  if not paths:
    raise InputError('there is no crawl: give --web.warcs files or globs such as crawl/*.warc.gz.')
  shards, names = [], collections.Counter()
  for path in sorted(paths.values(), key=lambda path: (os.path.basename(path), path)):
    if not os.path.isdir(path) and not path.endswith(_ENDINGS):
      raise InputError(f'--web.warcs={path} is not read: give {", ".join(_ENDINGS)} files or '
                       'folders of HTML.')
    name = os.path.basename(path.rstrip('/'))
    names[name] += 1
    shards.append(Shard(path, f'{name}-{names[name]}' if names[name] > 1 else name))
  return shards


class Counts:
  """Documents, bytes of responses, bytes of text, words and tokens by step and reason."""

  def __init__(self, counts: dict[str, list[int]] | None = None,
               examples: dict[str, list[list[str]]] | None = None):
    self.counts, self.examples = dict(counts or {}), dict(examples or {})

  def add(self, one: Document, tokens: int = 0) -> None:
    self._add(f'{one.step}/{one.reason}',
              [1, one.size, len(one.text.encode('utf-8', 'replace')), one.words, tokens],
              [[one.key, one.url, one.text[:SNIPPET]]])

  def __add__(self, other: 'Counts') -> 'Counts':
    made = Counts(self.counts, self.examples)
    for name, numbers in other.counts.items():
      made._add(name, numbers, other.examples[name])
    return made

  def _add(self, name: str, numbers: list[int], examples: list[list[str]]) -> None:
    self.counts[name] = [a + b for a, b in zip(self.counts.get(name, [0] * 5), numbers)]
    self.examples[name] = sorted(self.examples.get(name, []) + examples)[:SHOWN]

  def without_text(self, all_of_few: bool = False) -> str:
    """A sentence where extraction gave nothing for over half of many pages, else ''.

    Args:
      all_of_few: whether it is said of few pages too, if there is text on none.
    """
    tried = {name: numbers[0] for name, numbers in self.counts.items()
             if not name.startswith(('read/', 'url/'))}
    empty = {name: count for name, count in tried.items() if name.startswith('extract/')}
    of, found = sum(tried.values()), sum(empty.values())
    if found <= of / 2 or (of < MANY and not (all_of_few and found == of)):
      return ''
    reasons = ', '.join(f'{name.partition("/")[2]} {count}' for name, count in empty.items())
    return (f'extraction found no text on {found} of {of} pages ({reasons}): this is not the HTML '
            'that it can read, or resiliparse is broken')


def key_of(shard: Shard, config: WebConfig, tokenizer: str = '', **more: Any) -> dict[str, Any]:
  """What the output of a shard follows from, with files by their content."""
  fixed = dataclasses.asdict(dataclasses.replace(
      config, warcs=(), workers=0, blocklists=tuple(map(_content, config.blocklists)),
      quality=_content(config.quality))) | dict(more, tokenizer=_content(tokenizer))
  return _state(pathlib.Path(shard.path)) | json.loads(json.dumps(fixed))


def _state(path: pathlib.Path) -> dict[str, Any]:
  """What changes with a file, or with the pages of a folder."""
  if not path.is_dir():
    stat = path.stat()
    return {'size': stat.st_size, 'time': stat.st_mtime_ns}
  digest = hashlib.blake2b(digest_size=16)
  for page in warc.pages(path):
    stat = page.stat() if page.exists() else page.lstat()
    one = page.relative_to(path).as_posix(), stat.st_size, stat.st_mtime_ns
    digest.update(repr(one).encode())
  return {'pages': digest.hexdigest()}


def _content(name: str) -> str:
  """The hash of a file, or of the tokenizer.json in a folder; the name where it is of neither."""
  path = os.path.join(name, 'tokenizer.json') if os.path.isdir(name) else name
  try:
    stat = os.stat(path)
    return _hash(os.path.abspath(path), stat.st_size, stat.st_mtime_ns)
  except OSError:
    return name


@functools.cache
def _hash(path: str, size: int, time: int) -> str:
  """The hash of a file as it was at a time, so that it is read once for all shards."""
  return hashlib.blake2b(pathlib.Path(path).read_bytes(), digest_size=16).hexdigest()


def filter_shard(shard: Shard, folder: str, config: WebConfig, keep_dropped: bool, tokenizer: str,
                 tell: Callable[[int], None] = lambda pages: None) -> None:
  """Runs the steps of each page and writes NAME.passed.parquet, NAME.dropped.parquet, NAME.json.

  Raises InputError where extraction gives nothing for over half of many pages.
  """
  root, key = pathlib.Path(folder), key_of(shard, config, dropped=keep_dropped, tokenizer=tokenizer)
  if (stored(root, shard) or {}).get('key') == key:
    return
  encode = known.from_name_or_file(tokenizer).encode if tokenizer else lambda text: ()
  counts = Counts()
  with (_Table(root / f'{shard.name}.passed.parquet', _PASSED) as passed,
        _Table(root / f'{shard.name}.dropped.parquet', _DROPPED) as dropped):
    for number, record in enumerate(warc.read(shard.path), 1):
      one = judge(record, config)
      one = one._replace(key=f'{one.key}/{shard.name}/{number}')  # of records that come twice too
      tokens = len(encode(one.text))
      counts.add(one, tokens)
      if one.step == 'kept':
        passed.add(one._asdict() | {'tokens': tokens})
      else:
        text = one.text if keep_dropped else ''
        dropped.add(one._asdict() | {'duplicate_of': '', 'jaccard': 0.0, 'text': text})
      if number % 20 == 0:
        tell(20)
    tell(number % 20 if counts.counts else 0)
    if sentence := counts.without_text():
      raise InputError(f'{shard.path}: {sentence}; nothing was written for this file.')
  _write(root / f'{shard.name}.json', json.dumps(dict(
      key=key, counts=counts.counts, examples=counts.examples)))


def stored(folder: pathlib.Path, shard: Shard) -> dict[str, Any] | None:
  """What filter_shard wrote of a shard last, if it is whole."""
  try:
    return json.loads((folder / f'{shard.name}.json').read_text())
  except (OSError, ValueError):
    return None


def check(folder: str | pathlib.Path, shards: Sequence[Shard]) -> None:
  """Looks at what filter_shard counted of all shards.

  Raises InputError where there is no response, or no text on over half of the pages.
  """
  counts = Counts()
  for shard in shards:
    first = stored(pathlib.Path(folder), shard)
    counts += Counts(first['counts'], first['examples'])
  if not counts.counts:
    raise InputError(f'there is no response in {", ".join(shard.path for shard in shards[:4])}: '
                     'give --web.warcs files with responses or texts, or folders of HTML.')
  if sentence := counts.without_text(all_of_few=True):
    raise InputError(f'{sentence}; leave such pages out of --web.warcs, or mend resiliparse, '
                     f'delete {folder} and run again.')


class _Table:
  """A Parquet file that appears under its name once it is whole."""

  def __init__(self, path: pathlib.Path, schema: pyarrow.Schema):
    self._path, self._schema, self._rows = path, schema, []
    self._aside = path.with_name(f'{path.name}.unfinished')

  def __enter__(self) -> '_Table':
    self._file = pyarrow.parquet.ParquetWriter(self._aside, self._schema, compression='zstd')
    return self

  def add(self, row: dict[str, Any]) -> None:
    self._rows.append({name: _plain(row[name]) for name in self._schema.names})
    if len(self._rows) == 1000:
      self._flush()

  def _flush(self) -> None:
    self._file.write_table(pyarrow.Table.from_pylist(self._rows, self._schema))
    self._rows = []

  def __exit__(self, kind: type | None, *_: Any) -> None:
    if kind is None:
      self._flush()
    self._file.close()
    if kind is None:
      self._aside.replace(self._path)


def _plain(value: Any) -> Any:
  """Text without the lone surrogates that no file holds."""
  return value.encode('utf-8', 'replace').decode() if isinstance(value, str) else value


def _write(path: pathlib.Path, text: str) -> None:
  aside = path.with_name(f'{path.name}.unfinished')
  aside.write_text(text)
  aside.replace(path)


def rows(folder: str | pathlib.Path, shard: Shard, part: str = 'passed',
         columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
  """The rows that a shard has in one of its files."""
  file = pyarrow.parquet.ParquetFile(pathlib.Path(folder) / f'{shard.name}.{part}.parquet')
  for batch in file.iter_batches(batch_size=500, columns=columns):
    yield from batch.to_pylist()


def banded(folder: str, shards: Iterable[Shard]) -> tuple[list[str], np.ndarray]:
  """Keys and bands, uint64[N, 14], of all documents that have any."""
  found = [(row['key'], row['bands']) for shard in shards
           for row in rows(folder, shard, columns=['key', 'bands']) if row['bands']]
  return [key for key, _ in found], np.array(
      [bands for _, bands in found], np.uint64).reshape(len(found), minhash.BANDS)


def shingled(shard: Shard, folder: str, keys: frozenset[str]) -> dict[str, np.ndarray]:
  """The shingles of those documents of a shard that are in `keys`."""
  return {row['key']: minhash.shingles(row['text'])
          for row in rows(folder, shard, columns=['key', 'text']) if row['key'] in keys}


def finish_shard(shard: Shard, folder: str, out: str, config: WebConfig, keep_dropped: bool,
                 tokenizer: str, gone: dict[str, tuple[str, float]]) -> Counts:
  """Writes documents/NAME.parquet and dropped/NAME.parquet; counts what was kept and deduplicated.

  Args:
    gone: the duplicates: key -> (key of the one that stays, similarity).
  """
  root, counts = pathlib.Path(out), Counts()
  encode = known.from_name_or_file(tokenizer).encode if tokenizer else lambda text: ()
  with (_Table(root / 'documents' / f'{shard.name}.parquet', DOCUMENTS) as documents,
        _Table(root / 'dropped' / f'{shard.name}.parquet', _DROPPED) as dropped):
    for row in rows(folder, shard, 'dropped'):
      dropped.add(row)
    for row in rows(folder, shard):
      one = Document(**{name: row[name] for name in Document._fields if name in row},
                     step='kept', reason='')
      if one.key in gone:
        first, alike = gone[one.key]
        one = one._replace(step='dedup', reason='exact' if alike == 1 else 'near')
        counts.add(one, row['tokens'])
        dropped.add(row | dict(step='dedup', reason=one.reason, duplicate_of=first, jaccard=alike,
                               text=one.text if keep_dropped else ''))
        continue
      text, addresses = pii.mask(one.text) if 'pii' in config.steps else (one.text, 0)
      tokens = len(encode(text)) if addresses else row['tokens']
      counts.add(one._replace(text=text), tokens)
      documents.add(row | dict(text=text, addresses=addresses, tokens=tokens))
  return counts
