"""From web crawl to clean documents: FineWeb's recipe, with every page's fate told.

python -m experiments.filter_web --web.warcs='crawl/*.warc.gz' --workdir=runs/web
Then: python -m experiments.train_tokenizer --documents='runs/web/documents/*.parquet'
"""

import collections
import concurrent.futures
import dataclasses
import json
import multiprocessing
import os
import pathlib
import shutil
import threading
import time
from typing import Any, Iterator

from nanollm_jax import InputError, flags
from nanollm_jax.web import dedup, pipeline, shards as shards_lib
from nanollm_jax.web.pipeline import ORDER, WebConfig
from nanollm_jax.web.shards import Counts, Shard

NUMBERS = ('documents', 'bytes', 'text_bytes', 'words', 'tokens')


@dataclasses.dataclass(frozen=True)
class Config:
  """Web crawl to documents.

  workdir: for documents/*.parquet, dropped/*.parquet, funnel.json and report.html.
  keep_dropped: keep the text of dropped pages too, not only their fate.
  tokenizer: counts tokens if given: a tokenizer.json, a workdir that has one, gpt2, o200k_base ...
  ray: run on this Ray cluster (an address, auto or local) in place of this machine's processes.
  """
  workdir: str = 'runs/web'
  keep_dropped: bool = False
  tokenizer: str = ''
  ray: str = ''
  web: WebConfig = WebConfig()


class Machine:
  """This machine's cores: a pool of processes that tell how far they are."""

  def __init__(self, workers: int):
    context = multiprocessing.get_context('spawn')
    self._pages = context.Value('q', 0)
    cores = getattr(os, 'sched_getaffinity', lambda _: range(os.cpu_count() or 1))  # as on a Mac
    self.workers = workers or len(cores(0))
    self._pool = concurrent.futures.ProcessPoolExecutor(
        self.workers, context, initializer=_share, initargs=(self._pages,))

  def run(self, title: str, work: Any, shards: list[Shard], *args: Any) -> list[Any]:
    """work(shard, *args) of every shard, in order; an InputError of one stops all."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    begun, before, size = time.monotonic(), self._pages.value, sum(map(_size, shards))
    futures = {self._pool.submit(work, shard, *args): shard for shard in shards}
    console = Console(highlight=False)
    with Progress(TextColumn(title), BarColumn(bar_width=20), TextColumn('{task.fields[numbers]}'),
                  TimeRemainingColumn(compact=True), console=console,
                  disable=not console.is_terminal) as progress:
      task, waiting = progress.add_task('', total=max(size, 1), numbers=''), set(futures)
      while waiting:
        ended, waiting = concurrent.futures.wait(
            waiting, 0.5, return_when=concurrent.futures.FIRST_COMPLETED)
        for future in ended:
          if error := future.exception():
            self._stop(waiting)
            raise _plainly(error, [futures[one].path for one in {future} | waiting]) from error
          progress.advance(task, _size(futures[future]))
        pages = self._pages.value - before
        progress.update(task, numbers=f'{pages:,} pages, '
                        f'{pages / (time.monotonic() - begun):.0f} pages/s')
    return [future.result() for future in futures]

  def _stop(self, waiting: set[Any]) -> None:
    for future in waiting:
      future.cancel()

  def __enter__(self) -> 'Machine':
    return self

  def __exit__(self, *_: Any) -> None:
    self._pool.shutdown(cancel_futures=True)


def _share(pages: Any) -> None:
  global _PAGES
  _PAGES = pages
  threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_with(parent: Any) -> None:
  parent.join()  # a pool's processes would outlive a killed run and wait for ever
  os._exit(1)


def _tell(pages: int) -> None:
  with _PAGES.get_lock():
    _PAGES.value += pages


def _filter(shard: Shard, *args: Any) -> None:
  shards_lib.filter_shard(shard, *args, tell=_tell)


def _size(shard: Shard) -> int:
  return os.path.getsize(shard.path)


def _plainly(error: BaseException, paths: list[str]) -> BaseException:
  if isinstance(error, concurrent.futures.process.BrokenProcessPool):
    return InputError(f'a worker died while it read one of {", ".join(paths[:4])}: run again with '
                      'fewer --web.workers if memory was short, or leave that file out.')
  return error


def main(config: Config) -> None:
  root, web = pathlib.Path(config.workdir), config.web
  flags.spare_model(root)
  shards = shards_lib.find(web.warcs)
  pipeline.check(web)
  flags.save(config, root)
  key = [shards_lib.key_of(shard, web, name=shard.name, dropped=config.keep_dropped,
                           tokenizer=config.tokenizer) for shard in shards]
  if (_funnel(root) or {}).get('key') == key:
    print(f'{root} is done already: delete its funnel.json to run again.')
    return
  (root / 'funnel.json').unlink(missing_ok=True)
  for name in ('documents', 'dropped'):
    (root / name).mkdir(parents=True, exist_ok=True)
    for path in (root / name).glob('*.parquet*'):
      path.unlink()
  (root / 'shards').mkdir(exist_ok=True)
  begun = time.monotonic()
  counts = (on_cluster if config.ray else on_machine)(config, shards)
  seconds = time.monotonic() - begun
  funnel = dict(key=key, steps=steps(counts, web), examples=counts.examples)
  labels = pathlib.Path(shards[0].path).parent / 'labels.jsonl'  # beside the world's web
  if labels.exists():
    funnel['labels'] = judged(labels, root)
  _show(root, funnel, seconds)
  (root / 'funnel.json').write_text(json.dumps(funnel, indent=1))
  shutil.rmtree(root / 'shards')
  print(f'wrote {root}/documents/*.parquet, funnel.json and report.html')


def on_machine(config: Config, shards: list[Shard]) -> Counts:
  """Pages in parallel, duplicates found in one place, documents in parallel again."""
  folder, web = str(pathlib.Path(config.workdir) / 'shards'), config.web
  with Machine(web.workers) as machine:
    machine.run('pages', _filter, shards, folder, web, config.keep_dropped, config.tokenizer)
    shards_lib.check(folder, shards)
    keys, bands_NB = shards_lib.banded(folder, shards)
    pairs = dedup.candidates(keys, bands_NB)
    met = frozenset(key for pair in pairs for key in pair)
    shingles = dict(collections.ChainMap(
        *machine.run('duplicates', shards_lib.shingled, shards, folder, met))) if pairs else {}
    gone = dedup.duplicates(pairs, shingles.__getitem__)
    finished = machine.run('documents', shards_lib.finish_shard, shards, folder, config.workdir,
                           web, config.keep_dropped, config.tokenizer, gone)
  return total(folder, shards, finished)


def total(folder: str, shards: list[Shard], finished: list[Counts]) -> Counts:
  """Adds up what all shards counted: what was dropped page by page, then the rest."""
  counts = sum(finished, Counts())
  for shard in shards:
    first = shards_lib.stored(pathlib.Path(folder), shard)
    dropped = {name: numbers for name, numbers in first['counts'].items() if name != 'kept/'}
    counts += Counts(dropped, first['examples'])
    if damaged := dropped.get('/'.join(shards_lib.UNREAD)):
      print(f'{shard.path}: {damaged[0]} broken record{"s" * (damaged[0] > 1)} passed over.')
  return counts


def on_cluster(config: Config, shards: list[Shard]) -> Counts:
  """The same on Ray."""
  from nanollm_jax.web import cluster
  return total(str(pathlib.Path(config.workdir) / 'shards'), shards, cluster.run(
      config.ray, shards, config.workdir, config.web, config.keep_dropped, config.tokenizer))


def steps(counts: Counts, web: WebConfig) -> list[dict[str, Any]]:
  """The funnel: what is left after each step that was run, and what it dropped, by reason."""
  by_step = collections.defaultdict(dict)
  for name, numbers in sorted(counts.counts.items()):
    step, _, reason = name.partition('/')
    by_step[step][reason] = numbers
  left = [sum(column) for column in zip(*counts.counts.values())]
  made = [dict(step='crawl', **dict(zip(NUMBERS, left)), dropped={})]
  run = {'read', 'extract', *web.steps} | ({'quality'} if web.quality else set())
  for step in filter(run.__contains__, ORDER):
    gone = by_step.get(step, {})
    left = [a - sum(column) for a, column in zip(left, zip(*gone.values()))] if gone else left
    made.append(dict(step=step, **dict(zip(NUMBERS, left)), dropped={
        reason: numbers[0] for reason, numbers in
        sorted(gone.items(), key=lambda item: (-item[1][0], item[0]))}))
  return made


def _funnel(root: pathlib.Path) -> dict[str, Any] | None:
  try:
    return json.loads((root / 'funnel.json').read_text())
  except (OSError, ValueError):
    return None


def fates(root: pathlib.Path) -> Iterator[dict[str, Any]]:
  """url, id, step, duplicate_of (a key) and text of every page, kept ones with step 'kept'."""
  import pyarrow.parquet
  for name in ('documents', 'dropped'):
    for path in sorted((root / name).glob('*.parquet')):
      for row in pyarrow.parquet.read_table(path).to_pylist():
        yield {'step': 'kept', 'duplicate_of': ''} | row


def judged(labels: pathlib.Path, root: pathlib.Path) -> dict[str, Any]:
  """How right the filters are, where the truth is known.

  A near duplicate counts as right if one of the pair is kept. Precision: of the pages that a step
  dropped, those that should go. Recall: of the pages of a label that should go (or stay), those
  that did.
  """
  try:
    truth = [json.loads(line) for line in labels.read_text().splitlines()]
    by_id = {row['id'] or row['url']: row for row in fates(root)}
    found = [(row, by_id.get(row.get('record') or row['url'])) for row in truth]
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise InputError(f'{labels} is not what experiments.build_world writes ({error}): build the '
                     'world again, or move the file away.') from error
  found = [(row, fate) for row, fate in found if fate]
  kept = {row['url'] for row, fate in found if fate['step'] == 'kept'}
  originals = {row['duplicate_of'] for row, _ in found if not row['keep']}
  wanted, by_label, by_step = {}, collections.defaultdict(list), collections.defaultdict(list)
  for row, fate in found:
    right = (fate['step'] == 'kept') == row['keep']
    if row.get('duplicate_of') and not row['keep']:
      right = not (row['url'] in kept and row['duplicate_of'] in kept)
    if fate['step'] == 'dedup' and row['keep']:  # its copy stays in its place
      right = row['url'] in originals
    by_label[row['label'], row['keep']].append((right, fate['step']))
    if fate['step'] != 'kept':
      by_step[fate['step']].append(right)
  secrets = [(address, fate['text']) for row, fate in found if fate['step'] == 'kept'
             for address in [*row.get('emails', ()), *row.get('ips', ())]]
  return dict(
      labels=[dict(label=label, should='stay' if keep else 'go', pages=len(rows),
                   recall=sum(right for right, _ in rows) / len(rows),
                   steps=' '.join(f'{step} {count}' for step, count in collections.Counter(
                       step for _, step in rows).most_common(3)))
              for (label, keep), rows in sorted(by_label.items())],
      steps=[dict(step=step, dropped=len(by_step[step]),
                  precision=sum(by_step[step]) / len(by_step[step]))
             for step in ORDER if step in by_step],
      addresses=dict(planted=len(secrets), left=sum(one in text for one, text in secrets)))


def _show(root: pathlib.Path, funnel: dict[str, Any], seconds: float) -> None:
  """Prints the funnel and writes the report."""
  from nanollm_jax import report
  rows = funnel['steps']
  print(f'{"after":<20}{"documents":>10}{"MB text":>9}{"tokens":>12}   dropped for')
  for row in rows:
    reasons = ', '.join(f'{reason} {count}' for reason, count in list(row['dropped'].items())[:3])
    print(f'{row["step"]:<20}{row["documents"]:>10,}{row["text_bytes"] / 1e6:>9.2f}'
          f'{format(row["tokens"], ",") if row["tokens"] else "not counted":>12}   {reasons}')
  print(f'{rows[0]["documents"] / max(seconds, 1e-9):.0f} pages/s')
  tables = {'Funnel': [row | {'dropped': ', '.join(
      f'{reason} {count}' for reason, count in row['dropped'].items())} for row in rows]}
  if labels := funnel.get('labels'):
    tables |= {'Right by label': labels['labels'], 'Right by step': labels['steps']}
    print(f'{"label":<20}{"should":>7}{"pages":>7}{"recall":>8}')
    for row in labels['labels']:
      print(f'{row["label"]:<20}{row["should"]:>7}{row["pages"]:>7}{row["recall"]:>8.1%}   '
            f'{row["steps"]}')
    for row in labels['steps']:
      print(f'{row["step"]:<20}{row["dropped"]:>14}{row["precision"]:>8.1%} precision')
    print('planted addresses left: {left} of {planted}'.format(**labels['addresses']))
  tables['Examples'] = [dict(fate=name, url=url, text=text) for name, shown in
                        sorted(funnel['examples'].items()) for _, url, text in shown]
  report.write(root, 'From crawl to documents', tables)


if __name__ == '__main__':
  flags.run(main, Config)
