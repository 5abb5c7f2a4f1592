"""Writes the miniature internet: documents, truth, web, conversations, questions and index."""

import collections
import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import time
from typing import IO, Iterable, Iterator

from nanollm_jax import flags, world as world_lib
from nanollm_jax.world import conversation, joke, warc, web

RANKINGS, JOKES = 1000, 2000  # of jokes by the judges, and conversations in which one is told
PAGES_A_SHARD = 1500  # of the web


@dataclasses.dataclass(frozen=True)
class Config:
  """Builds the miniature internet.

  workdir: folder for train.jsonl, validation.jsonl, world.json, web/<shard>.warc.gz,
    web/labels.jsonl, web/blocklist.txt, chat/<kind>.jsonl, questions.jsonl, pages.jsonl,
    rankings.jsonl and run.flags
  """
  world: world_lib.WorldConfig = world_lib.WorldConfig()
  workdir: str = 'runs/world'


@contextlib.contextmanager
def replacing(path: pathlib.Path, mode: str = 'w') -> Iterator[IO]:
  """A file to write that takes the place of `path` only once it is whole."""
  unfinished = path.with_name(path.name + '.unfinished')
  try:
    text = {} if 'b' in mode else dict(encoding='utf-8', newline='\n')
    with open(unfinished, mode, **text) as file:
      yield file
    os.replace(unfinished, path)
  finally:
    unfinished.unlink(missing_ok=True)


def write(config: Config) -> tuple[dict, dict, dict]:
  """Writes documents, truth and web; returns documents and bytes a kind, one example of each."""
  workdir = pathlib.Path(config.workdir)
  counts, sizes, examples = collections.Counter(), collections.Counter(), {}
  with contextlib.ExitStack() as stack:
    split_files = {split: stack.enter_context(replacing(workdir / f'{split}.jsonl'))
                   for split in ('train', 'validation')}

    def written() -> Iterator[world_lib.Document]:
      for document in world_lib.documents(config.world):
        row = {'text': document.text, 'kind': document.kind, 'about': document.about}
        split_files[document.split].write(json.dumps(row, ensure_ascii=False) + '\n')
        for name in (document.kind, document.split):
          counts[name] += 1
          sizes[name] += len(document.text.encode())
        examples.setdefault(document.kind, document.text)
        yield document

    counts['pages'] = write_web(config, written())
    with replacing(workdir / 'world.json') as file:
      json.dump(world_lib.truth(config.world).to_json(), file, ensure_ascii=False)
  return counts, sizes, examples


def write_web(config: Config, documents: Iterable[world_lib.Document]) -> int:
  """Writes the pages that hold these documents, and the junk; returns how many responses."""
  folder = pathlib.Path(config.workdir) / 'web'
  for name in ('web-*.warc.gz', 'labels.jsonl', 'blocklist.txt'):
    for old in folder.glob(name):  # of another world
      old.unlink()
  if not config.world.web:
    return sum(0 for _ in documents)
  folder.mkdir(exist_ok=True)
  (folder / 'blocklist.txt').write_text('\n'.join([*web.blocklist(), '']), encoding='utf-8')
  number, stream = 0, web.pages(config.world, documents)
  with replacing(folder / 'labels.jsonl') as labels:
    while pages := list(itertools.islice(stream, PAGES_A_SHARD)):
      shard = f'web-{number // PAGES_A_SHARD:05}.warc.gz'
      with replacing(folder / shard, 'wb') as file:
        file.write(warc.warcinfo(shard))
        for page in pages:
          file.write(page.record())
          row = {'url': page.url, 'shard': shard, 'record': warc.record_id(page.url)}
          labels.write(json.dumps(row | page.label) + '\n')
      number += len(pages)
  return number


def write_chat(config: Config) -> collections.Counter:
  """Writes the conversations, questions and pages; returns how many rows are in each file."""
  workdir = pathlib.Path(config.workdir)
  (workdir / 'chat').mkdir(exist_ok=True)
  counts = collections.Counter()
  with contextlib.ExitStack() as stack:
    def write_rows(rows: Iterable[tuple[str, dict]], names: Iterable[str]) -> None:
      files = {name: stack.enter_context(replacing(workdir / f'{name}.jsonl')) for name in names}
      for name, row in rows:
        files[name].write(json.dumps(row, ensure_ascii=False) + '\n')
        counts[name] += 1

    write_rows(((f'chat/{kind}', {'messages': messages, 'source': kind})
                for kind, messages, _ in world_lib.conversations(config.world)),
               (f'chat/{kind.__name__}' for kind in conversation.KINDS))
    write_rows((('questions', row) for row in world_lib.questions(config.world)), ['questions'])
    write_rows((('pages', row) for row in world_lib.pages(config.world)), ['pages'])
  return counts


def write_jokes(config: Config) -> dict[str, int]:
  """Writes rankings of jokes and conversations with one; returns how many rows are in each file."""
  seed, workdir = config.world.seed, pathlib.Path(config.workdir)
  (workdir / 'chat').mkdir(exist_ok=True)
  told = ({'messages': joke.conversation(seed, n), 'source': 'joke'} for n in range(JOKES))
  ranked = (joke.ranking(seed, n) for n in range(RANKINGS))
  for name, rows in (('chat/joke', told), ('rankings', ranked)):
    with replacing(workdir / f'{name}.jsonl') as file:
      file.writelines(json.dumps(row) + '\n' for row in rows)
  return {'chat/joke': JOKES, 'rankings': RANKINGS}


def main(config: Config) -> None:
  flags.spare_model(config.workdir)
  flags.save(config, config.workdir)
  start = time.perf_counter()
  counts, sizes, examples = write(config)
  seconds = time.perf_counter() - start
  start = time.perf_counter()
  rows = write_chat(config) | write_jokes(config)
  chat_seconds = time.perf_counter() - start

  for kind, text in sorted(examples.items()):
    shown = ' / '.join(text.splitlines())
    print(f'{kind}: {shown[:300]}{" ..." if len(shown) > 300 else ""}\n')
  whole = sizes['train'] + sizes['validation']
  print(f'{"kind":<12}{"documents":>10}{"bytes":>12}{"share":>8}')
  for kind in [*sorted(examples), 'train', 'validation']:
    print(f'{kind:<12}{counts[kind]:>10}{sizes[kind]:>12}{sizes[kind] / whole:>8.1%}')
  print(f'{counts["train"] + counts["validation"]} documents, {whole / 1e6:.2f} MB in '
        f'{seconds:.1f} s ({whole / 1e6 / seconds:.1f} MB/s), written to {config.workdir}')
  print(f'{counts["pages"]} responses of web servers, in {config.workdir}/web')
  print(f'{", ".join(f"{name}.jsonl {count}" for name, count in sorted(rows.items()))} rows '
        f'in {chat_seconds:.1f} s')


if __name__ == '__main__':
  flags.run(main, Config)
