"""The pipeline on a Ray cluster: shards spread over its nodes, duplicates found by a shuffle.

Every node sees the folder of the run and the files that it reads. The functions are those of one
machine, and so is the result, document for document.
"""

import collections
import dataclasses
import functools
import os
import pathlib
import pickle
from typing import Any, Callable, Sequence

import numpy as np

from nanollm_jax import InputError
from nanollm_jax.text import known
from nanollm_jax.web import dedup, shards as shards_lib
from nanollm_jax.web.pipeline import WebConfig
from nanollm_jax.web.shards import Counts, Shard


def run(address: str, shards: Sequence[Shard], workdir: str, config: WebConfig, keep_dropped: bool,
        tokenizer: str) -> list[Counts]:
  """Filters, deduplicates and finishes all shards; returns what finish_shard counted of each.

  Raises InputError where ray is missing, the cluster does not answer or there is no text.
  """
  try:
    import ray
    import ray.data
  except ImportError as error:
    raise InputError('--ray needs ray, not installed here: pip install -e .[ray].') from error
  folder = str(pathlib.Path(workdir).resolve() / 'shards')
  out = str(pathlib.Path(workdir).resolve())
  shards, config, tokenizer = absolute(shards, config, tokenizer)
  try:
    ray.init(None if address == 'local' else address, log_to_driver=False, ignore_reinit_error=True)
  except (ConnectionError, ValueError) as error:
    raise InputError(f'--ray={address} does not answer ({error}): start a cluster with ray start '
                     '--head, or give local.') from error
  every = [shard._asdict() for shard in shards]
  each = functools.partial(_each, ray.data, every)
  each(shards_lib.filter_shard, folder, config, keep_dropped, tokenizer)
  shards_lib.check(folder, shards)
  met = ray.data.from_items(every, override_num_blocks=len(every)).flat_map(
      functools.partial(_bands, folder))
  pairs = set()
  if met.count():
    pairs = {(row['first'], row['second']) for row in
             met.groupby('band').map_groups(_pairs, batch_format='numpy').iter_rows()}
  keys = frozenset(key for pair in pairs for key in pair)
  shingles = dict(collections.ChainMap(*each(shards_lib.shingled, folder, keys))) if pairs else {}
  gone = dedup.duplicates(pairs, shingles.__getitem__)
  return each(shards_lib.finish_shard, folder, out, config, keep_dropped, tokenizer, gone)


def absolute(shards: Sequence[Shard], config: WebConfig,
             tokenizer: str) -> tuple[list[Shard], WebConfig, str]:
  """The same with the paths that every node needs, whose working folder is another."""
  def path(name: str) -> str:
    return os.path.abspath(name) if name else ''

  name, _, ranks = tokenizer.partition(':')
  if name not in known.KNOWN:
    tokenizer = path(tokenizer)
  elif ranks:
    tokenizer = f'{name}:{path(ranks)}'
  config = dataclasses.replace(
      config, blocklists=tuple(map(path, config.blocklists)), quality=path(config.quality))
  return [shard._replace(path=path(shard.path)) for shard in shards], config, tokenizer


def _each(data: Any, shards: list[dict[str, str]], work: Callable[..., Any],
          *args: Any) -> list[Any]:
  """work(shard, *args) of every shard on the cluster, in the order of the shards."""
  def one(row: dict[str, Any]) -> dict[str, Any]:
    try:
      made = work(Shard(row['path'], row['name']), *args)
    except InputError as error:
      made = error
    return {'name': row['name'], 'made': pickle.dumps(made)}

  rows = data.from_items(shards, override_num_blocks=len(shards)).map(one).take_all()
  made = {row['name']: pickle.loads(row['made']) for row in rows}
  for result in made.values():
    if isinstance(result, InputError):
      raise result
  return [made[shard['name']] for shard in shards]


def _bands(folder: str, row: dict[str, Any]) -> list[dict[str, str]]:
  keys, bands_NB = shards_lib.banded(folder, [Shard(row['path'], row['name'])])
  return [{'band': f'{band}:{value}', 'key': key} for key, bands_B in zip(keys, bands_NB.tolist())
          for band, value in enumerate(bands_B)]


def _pairs(group: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  found = list(dedup.pairs_in(group['key'].tolist()))
  return {name: np.array([pair[at] for pair in found], object)
          for at, name in enumerate(('first', 'second'))}
