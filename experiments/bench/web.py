"""How fast filter_web is on one core, part by part, and whether its filters decide as datatrove's.

python -m experiments.bench.web --bench.warcs='crawl/*-0000[01].warc.gz'

The side-by-side needs a Python that has datatrove[io,processing], spacy, aiohttp, lxml_html_clean
(0.8 GB): --bench.datatrove=folder/bin/python. Both are timed in CPU seconds, each in a process of
its own; given the text that trafilatura extracts, the decisions of both are compared page by page.
"""

import collections
import contextlib
import dataclasses
import glob
import json
import multiprocessing
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any, Iterator

from nanollm_jax import InputError, flags
from nanollm_jax.web import (c4, extract, fineweb, gopher, language, minhash, page, pii, pipeline,
                             shards as shards_lib, url)
from nanollm_jax.web.pipeline import Document, WebConfig


@dataclasses.dataclass(frozen=True)
class BenchConfig:
  """What is timed.

  warcs: the crawl.
  datatrove: a Python that has datatrove 0.10.1; no side-by-side if empty.
  pages: responses that datatrove gets at most, 0 for all.
  compared: texts and fates that datatrove left in an earlier run, or where this one leaves them.
  fates: a file of datatrove's fates (id, step) of a run with a cache of paragraphs, to compare too.
  out: a file to write the numbers to as JSON.
  """
  warcs: tuple[str, ...] = ()
  datatrove: str = ''
  pages: int = 0
  compared: tuple[str, ...] = ()
  fates: str = ''
  out: str = ''


@dataclasses.dataclass(frozen=True)
class Config:
  """The benchmark of web filtering."""
  bench: BenchConfig = BenchConfig()


PARTS = ((extract, 'text_of'), (language, 'identify'), (page, 'page_of'), (gopher, 'repetition'),
         (gopher, 'quality'), (c4, 'clean'), (fineweb, 'reason'), (minhash, 'shingles'),
         (minhash, 'bands'), (pii, 'mask'))


def ours(paths: list[str], out: str) -> dict[str, Any]:
  """Filters and finishes files in this process: CPU seconds, of which each part, and memory."""
  spent: dict[str, float] = collections.Counter()
  for module, name in PARTS:
    setattr(module, name, _timed(getattr(module, name), f'{module.__name__.split(".")[-1]}', spent))
  language.identify('A sentence that loads the model.', 'en')
  url.blocked()
  spent.clear()
  config, pages = WebConfig(), 0
  for name in ('documents', 'dropped', 'shards'):
    (pathlib.Path(out) / name).mkdir()
  begun = time.process_time()
  for shard in shards_lib.find(paths):
    shards_lib.filter_shard(shard, f'{out}/shards', config, False, '')
    counts = shards_lib.stored(pathlib.Path(f'{out}/shards'), shard)['counts']
    pages += sum(numbers[0] for numbers in counts.values())
    shards_lib.finish_shard(shard, f'{out}/shards', out, config, False, '', {})
  total = time.process_time() - begun
  spent['reading, writing and the rest'] = total - sum(spent.values())
  return dict(pages=pages, cpu_seconds=total, pages_per_second=pages / total, parts=dict(spent),
              memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def _timed(work: Any, name: str, spent: dict[str, float]) -> Any:
  def timed(*args: Any, **options: Any) -> Any:
    since = time.process_time()
    try:
      return work(*args, **options)
    finally:
      spent[name] += time.process_time() - since
  return timed


def datatrove(config: BenchConfig, paths: list[str], out: str) -> dict[str, Any]:
  """The twin's numbers; its texts and fates go to the file `out`."""
  request = dict(warcs=paths, pages=[0, config.pages or sys.maxsize], out=out, texts='',
                 language_model=str(language.model_file()))
  twin = pathlib.Path(__file__).with_name('datatrove_twin.py')
  try:
    done = subprocess.run([config.datatrove, str(twin)], input=json.dumps(request) + '\n',
                          text=True, stdout=subprocess.PIPE, check=True)
  except (OSError, subprocess.CalledProcessError) as error:
    raise InputError(f'--bench.datatrove={config.datatrove} does not run datatrove ({error}): give '
                     'a Python that has datatrove[io,processing]==0.10.1, spacy, aiohttp and '
                     'lxml_html_clean.') from error
  made = json.loads(done.stdout.splitlines()[-1])
  total = sum(made['seconds'].values())
  return dict(pages=made['pages'], cpu_seconds=total, pages_per_second=made['pages'] / total,
              parts=made['seconds'], memory_mb=made['memory_mb'])


def agreement(paths: list[str], fates: str) -> dict[str, Any]:
  """Decisions on the same texts: of how many pages keep or drop agrees, and every difference."""
  rows = [json.loads(line) for path in paths for line in open(path)]
  steps = tuple(step for step in pipeline.STEPS if step not in ('url', 'dedup', 'pii'))
  config, other = WebConfig(steps=steps), {}
  if fates:
    other = {row['id']: row['step'] in ('kept', 'dedup') for row in map(json.loads, open(fates))}
  texts = [row for row in rows if row['text'] and row['step'] != 'url']
  right, same, with_fates, differences = 0, 0, [], []
  for row in texts:
    made = pipeline.judge_text(Document(row['url'], row['id'], '', '', '', row['text']), config)
    kept, theirs = made.step == 'kept', row['step'] == 'kept'
    right += kept == theirs
    same += made.step == _STEP.get(row['step'], row['step'])
    if row['id'] in other:
      with_fates.append(kept == other[row['id']])
    if kept != theirs:
      differences.append(dict(url=row['url'], ours=f'{made.step} {made.reason}'.strip(),
                              datatrove=f'{row["step"]} {row["reason"] or ""}'.strip()))
  return dict(pages=len(texts), agree=right / len(texts), same_step=same / len(texts),
              with_fates=sum(with_fates) / len(with_fates) if with_fates else None,
              differences=differences)


_STEP = {'lang': 'language', 'gopher_rep': 'gopher_repetition'}


def table(report: dict[str, Any]) -> Iterator[str]:
  """The report in words and columns."""
  for name in ('ours', 'datatrove'):
    if one := report.get(name):
      yield (f'{name:<10}{one["pages"]:>7} pages{one["cpu_seconds"]:>9.1f} CPU s'
             f'{one["pages_per_second"]:>8.1f} pages/s{one["memory_mb"]:>7.0f} MB')
      yield '          ' + ', '.join(f'{part} {seconds:.2f}' for part, seconds in sorted(
          one['parts'].items(), key=lambda item: -item[1]))
  if 'datatrove' in report:
    times = report['ours']['pages_per_second'] / report['datatrove']['pages_per_second']
    yield f'{times:.1f} times datatrove per core'
  if same := report.get('agreement'):
    yield (f'of {same["pages"]} texts keep/drop agrees on {same["agree"]:.2%}, the step on '
           f'{same["same_step"]:.2%}')
    if same['with_fates'] is not None:
      yield f'with the fates of the other run keep/drop agrees on {same["with_fates"]:.2%}'
    for one in same['differences']:
      yield f'  {one["ours"]} | {one["datatrove"]} | {one["url"]}'


def main(config: Config) -> None:
  config, report = config.bench, {}
  paths = [shard.path for shard in shards_lib.find(config.warcs)] if config.warcs else []
  with contextlib.ExitStack() as stack:
    compared = sorted(path for pattern in config.compared for path in glob.glob(pattern))
    out = stack.enter_context(tempfile.TemporaryDirectory())
    if paths:
      pool = stack.enter_context(multiprocessing.get_context('spawn').Pool(1))
      report['ours'] = pool.apply(ours, (paths, out))
    if config.datatrove:
      compared = [config.compared[0] if config.compared else f'{out}/compared.jsonl']
      report['datatrove'] = datatrove(config, paths, compared[0])
    if compared:
      report['agreement'] = agreement(compared, config.fates)
  print('\n'.join(table(report)))
  if config.out:
    pathlib.Path(config.out).write_text(json.dumps(report, indent=1))


if __name__ == '__main__':
  flags.run(main, Config)
