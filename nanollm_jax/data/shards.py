"""Token shards: documents as token ids in checked, memory-mapped files.

A shard is a header of 4 KiB (JSON), then where each document ends (int64), then all tokens
(uint16 or uint32). Every document is [end] ids [end]: `<|endoftext|>` starts and stops it.
"""

import bisect
import collections
import functools
import itertools
import json
import os
import pathlib
import shutil
import time
import zlib
from typing import Any, Iterable

import numpy as np

from nanollm_jax import InputError
from nanollm_jax.data import documents as documents_lib

_MAGIC, _VERSION, _HEADER = 'nanollm_jax tokens', 1, 4096
_CHUNK = 256  # documents that are tokenised together


def write(out_dir: str | os.PathLike, documents: Iterable[tuple[str, str]], tokenizer: Any, *,
          workers: int = 1, shard_tokens: int = 1 << 24, key: Any = None) -> dict[str, Any]:
  """Tokenises (split, text) documents into shards `SPLIT-00000.tokens`, and lists them.

  Args:
    out_dir: the folder, made if missing.
    documents: what `documents.read` yields.
    tokenizer: has encode_batch(texts, threads), end, size and fingerprint.
    workers: threads of the tokenizer; the output does not depend on them.
    shard_tokens: a shard holds about so many.
    key: stands in manifest.json, to tell builds apart.

  Returns:
    {split: {'documents': n, 'tokens': n, 'bytes': n, 'shards': n}}, bytes being UTF-8 of text.
  """
  dtype = 'uint16' if tokenizer.size <= 1 << 16 else 'uint32'
  out_dir = pathlib.Path(out_dir)
  out_dir.mkdir(parents=True, exist_ok=True)
  held, splits = collections.defaultdict(list), collections.defaultdict(collections.Counter)

  def close(split: str) -> None:
    path = out_dir / f'{split}-{splits[split]["shards"]:05d}.tokens'
    _write_shard(path, held.pop(split), tokenizer.fingerprint)
    splits[split]['shards'] += 1

  stream = iter(documents)
  while chunk := list(itertools.islice(stream, _CHUNK)):
    batch = tokenizer.encode_batch([text for _, text in chunk], workers)
    for (split, text), ids in zip(chunk, batch):
      held[split].append(np.array([tokenizer.end, *ids, tokenizer.end], dtype))
      count = splits[split]
      count.update(documents=1, tokens=len(ids) + 2, bytes=len(text.encode()))
      if count['tokens'] >= shard_tokens * (count['shards'] + 1):
        close(split)
  for split in list(held):
    close(split)
  (out_dir / 'manifest.json').write_text(json.dumps({'key': key, 'splits': splits}, indent=1))
  return splits


def _write_shard(path: pathlib.Path, arrays: list[np.ndarray], fingerprint: str) -> None:
  ends = np.cumsum([len(array) for array in arrays], dtype=np.int64)
  payload = ends.astype('<i8').tobytes() + np.concatenate(arrays).tobytes()
  fields = {'magic': _MAGIC, 'version': _VERSION, 'dtype': str(arrays[0].dtype),
            'documents': len(ends), 'tokens': int(ends[-1]), 'tokenizer': fingerprint}
  path.write_bytes(_header(fields | {'crc32': _checksum(fields, payload)}) + payload)


def _header(fields: dict[str, Any]) -> bytes:
  return json.dumps(fields).encode().ljust(_HEADER)


def _checksum(fields: dict[str, Any], payload: bytes | np.ndarray) -> int:
  return zlib.crc32(payload, zlib.crc32(_header({**fields, 'crc32': 0})))


class Shards:
  """The documents of one split: a sequence of np.ndarray of token ids, memory-mapped.

  lengths: np.int64[documents], tokens of each document
  tokens: the sum of lengths
  """

  def __init__(self, parts: list[tuple[np.ndarray, np.ndarray]]):
    self._parts = parts  # (ends, tokens) of each shard
    self._firsts = np.cumsum([0] + [len(ends) for ends, _ in parts]).tolist()
    self.tokens = sum(len(tokens) for _, tokens in parts)

  @functools.cached_property
  def lengths(self) -> np.ndarray:
    return np.concatenate([np.diff(ends, prepend=0) for ends, _ in self._parts])

  def __len__(self) -> int:
    return self._firsts[-1]

  def __getitem__(self, index: int) -> np.ndarray:
    if not 0 <= index < len(self):
      raise IndexError(index)
    shard = bisect.bisect_right(self._firsts, index) - 1
    ends, tokens = self._parts[shard]
    row = index - self._firsts[shard]
    return tokens[ends[row - 1] if row else 0:ends[row]]


def open_shards(folder: str | os.PathLike, split: str, fingerprint: str) -> Shards:
  """Opens the shards of a split and checks every byte of them.

  Raises InputError for shards that are missing, cut short, altered, of another version, or made
  with a tokenizer of another fingerprint.
  """
  folder = pathlib.Path(folder)
  count = _manifest(folder).get('splits', {}).get(split)
  if count is None:
    raise InputError(f'{folder} lists no {split} shards in a manifest.json: {_rebuild(folder)}.')
  return Shards([_open_shard(folder / f'{split}-{number:05d}.tokens', fingerprint)
                 for number in range(count['shards'])])


def _rebuild(folder: pathlib.Path) -> str:
  return f'delete {folder} and run again to rebuild it'


def _open_shard(path: pathlib.Path, fingerprint: str) -> tuple[np.ndarray, np.ndarray]:
  if not path.exists():
    raise InputError(f'{path} is missing: {_rebuild(path.parent)}.')
  data = np.memmap(path, np.uint8, mode='r') if path.stat().st_size else np.zeros(0, np.uint8)
  try:
    fields = dict(json.loads(data[:_HEADER].tobytes()))
  except (ValueError, TypeError):
    fields = {}
  if fields.get('magic') == _MAGIC and fields.get('version') != _VERSION:
    raise InputError(f'{path} has version {fields.get("version")} and this code reads {_VERSION}: '
                     f'{_rebuild(path.parent)}.')
  if fields.get('crc32') != _checksum(fields, data[_HEADER:]):
    raise InputError(f'{path} is cut short, altered or no token shard (its checksum does not '
                     f'match): {_rebuild(path.parent)}.')
  if fields['tokenizer'] != fingerprint:
    raise InputError(f'{path} was made with another tokenizer ({fields["tokenizer"][:8]}, not '
                     f'{fingerprint[:8]}): give that --tokenizer, or {_rebuild(path.parent)}.')
  data = np.asarray(data)  # still mapped, without the cost of a memmap at every slice
  border = _HEADER + 8 * fields['documents']
  return data[_HEADER:border].view('<i8'), data[border:].view(fields['dtype'])


def _manifest(folder: pathlib.Path) -> dict[str, Any]:
  try:
    return json.loads((folder / 'manifest.json').read_text())
  except (OSError, ValueError):
    return {}


def prepare(config: Any, tokenizer: Any, workdir: str | os.PathLike) -> dict[str, Shards]:
  """Builds `workdir/tokens` unless it is there for these sources, settings and tokenizer.

  Sources are told apart by path, size and time of change. An interrupted build leaves nothing
  that is taken for a whole one. Call it from one process of a job, then from the others.

  Args:
    config: a `pipeline.DataConfig`.
    tokenizer: see `write`.
    workdir: the folder of the run.

  Returns {'train': Shards} and, if any document is for validation, {'validation': Shards}.
  Raises InputError; see `documents.read` and `open_shards`.
  """
  folder = pathlib.Path(workdir) / 'tokens'
  key = {'version': _VERSION, 'documents': _stamps(config.documents),
         'validation': _stamps(config.validation) if config.validation else [],
         'validation_fraction': config.validation_fraction, 'text_field': config.text_field,
         'tokenizer': tokenizer.fingerprint}
  if _manifest(folder).get('key') != key:
    _build(folder, key, config, tokenizer)
  return {split: open_shards(folder, split, tokenizer.fingerprint)
          for split in _manifest(folder)['splits']}


def _stamps(patterns: tuple[str, ...]) -> list[list[Any]]:
  stats = {str(path): path.stat() for path in documents_lib.find(patterns)}
  return [[path, stat.st_size, stat.st_mtime_ns] for path, stat in stats.items()]


def _build(folder: pathlib.Path, key: dict[str, Any], config: Any, tokenizer: Any) -> None:
  began, partial = time.time(), folder.with_name('tokens.partial')
  shutil.rmtree(partial, ignore_errors=True)
  field = config.text_field
  stream = documents_lib.read(config.documents, config.validation_fraction, field)
  if config.validation:
    held_out = documents_lib.read(config.validation, text_field=field)
    stream = itertools.chain(stream, (('validation', text) for _, text in held_out))
  splits = write(partial, stream, tokenizer, workers=config.workers, key=key)
  if 'train' not in splits:
    raise InputError('no document is left for training: lower --data.validation_fraction.')
  shutil.rmtree(folder, ignore_errors=True)
  partial.replace(folder)
  seconds = time.time() - began
  for split, count in splits.items():
    print(f'{split}: {count["documents"]:,} documents, {count["tokens"]:,} tokens, '
          f'{count["bytes"] / count["tokens"]:.2f} bytes a token')
  size = sum(count['bytes'] for count in splits.values()) / 1e6
  print(f'tokenised {size:.1f} MB in {seconds:.1f} s ({size / seconds:.1f} MB/s): {folder}')
