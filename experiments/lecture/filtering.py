"""The lecture: of the raw web little is worth learning from; filters make the better model.

Tiny models of equal compute read the miniature internet's pages raw, filtered, and filtered and
deduplicated. They are measured on its clean documents, of which validation ones are on no page,
and on sentences about people that must be ended rightly (one of four endings; chance 25%).
python -m experiments.lecture.filtering
"""

import contextlib
import dataclasses
import json
import pathlib
import random
from typing import Any, Sequence

import numpy as np

from experiments import filter_web, pretrain, workdir
from experiments.lecture import arm, claim
from nanollm_jax import InputError, flags, tasks
from nanollm_jax.data import documents
from nanollm_jax.data.pipeline import DataConfig
from nanollm_jax.eval import choice
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.train.loop import FitConfig
from nanollm_jax.train.optim import OptimConfig
from nanollm_jax.web.pipeline import WebConfig

STRATA = ('frequent', 'ordinary')  # people of whom pages tell


@dataclasses.dataclass(frozen=True)
class Config:
  """Three corpora, models of each.

  workdir: where the corpora, the models and the picture go.
  world: the workdir of experiments.build_world.
  tokenizer: of all models.
  seeds: models of each corpus.
  questions: sentences to end.
  texts: clean documents to measure.
  letters: words with a letter at least; the world's sums have fewer than Gopher's 0.8.
  """
  workdir: str = 'runs/filtering'
  world: str = 'runs/world'
  tokenizer: str = 'runs/tokenizer'
  seeds: int = 3
  questions: int = 400
  texts: int = 200
  steps: int = 600
  batch_size: int = 16
  letters: float = 0.45
  model: ModelConfig = ModelConfig(depth=2, width=64, heads=2, context=128)


def main(config: Config) -> None:
  world, rows, series = pathlib.Path(config.world), [], {}
  clean = [text for _, text in documents.read([str(world / 'validation.jsonl')])][:config.texts]
  asked = endings(list(tasks.read_rows(str(world / 'questions.jsonl'))), config.questions)
  for name, texts in corpora(config).items():
    found = []
    for seed in range(config.seeds):
      opened = read(config, name, texts, seed)
      scorer = choice.Scorer(opened.model, 8192)
      bits = choice.bits_per_byte(scorer, opened.params, opened.tokenizer, clean)
      found.append((bits['bits_per_byte'].value, accuracy(scorer, opened, asked)))
    bits, right = np.array(found).T
    error = [float(one.std(ddof=1) / len(one)**0.5) if len(one) > 1 else 0.0
             for one in (bits, right)]
    rows.append({'pages': name, 'documents': len(texts), 'MB': sum(map(len, texts)) / 1e6,
                 'bits per byte': float(bits.mean()), 'error': error[0],
                 'right endings': float(right.mean()), 'error of it': error[1]})
    series[name] = [(len(rows), float(bits.mean()), error[0])]
  raw, filtered, unique = (row['bits per byte'] for row in rows)
  noise = max(0.005, 3 * max(row['error'] for row in rows))
  claim.conclude(
      config.workdir, 'filtering', claim='at equal compute a model learns more from filtered pages',
      rows=rows,
      number=f'clean text {raw:.3f} bits per byte after raw pages, {filtered:.3f} filtered, '
      f'{unique:.3f} filtered and deduplicated; right endings ' + ', '.join(
          f'{row["right endings"]:.0%}' for row in rows),
      expected='filtered and deduplicated below raw by more than three standard errors, and '
      'deduplication no harm',
      holds=raw - unique > noise and unique - filtered < noise,
      otherwise='more junk in the crawl, or a model that reads more than one epoch (--steps)',
      picture=dict(title='Clean text after raw and filtered pages', ylabel='bits per byte',
                   xlabel='raw, filtered, filtered and deduplicated', series=series))


def corpora(config: Config) -> dict[str, list[str]]:
  """The pages' texts: all that can be extracted, what the filters keep, and that without copies."""
  web = pathlib.Path(config.world) / 'web'
  lists = tuple(map(str, web.glob('blocklist.txt')))
  found = {}
  for name, steps in (('raw', ()), ('filtered', WebConfig().steps)):
    made = filter_web.Config(
        workdir=str(pathlib.Path(config.workdir) / name), keep_dropped=True,
        web=WebConfig((f'{web}/*.warc.gz',), steps=steps, letters=config.letters,
                      blocklists=lists))
    filter_web.main(made)
    found[name] = list(filter_web.fates(pathlib.Path(made.workdir)))
  kept = lambda name, *steps: [row['text'] for row in found[name] if row['step'] in steps]
  return {'raw': kept('raw', 'kept'), 'filtered': kept('filtered', 'kept', 'dedup'),
          'filtered and deduplicated': kept('filtered', 'kept')}


def read(config: Config, name: str, texts: Sequence[str], seed: int) -> workdir.Opened:
  """A fresh model that reads these texts; one that is there is only opened."""
  folder = pathlib.Path(config.workdir) / f'{name.replace(" ", "_")}_{seed}'
  rows = arm.written(folder / 'documents.jsonl', ({'text': text} for text in texts))
  print(f'arm       {folder.name}: {len(texts):,} documents, {config.steps} steps', flush=True)
  with open(folder / 'log.txt', 'a') as log, contextlib.redirect_stdout(log):
    pretrain.main(pretrain.Config(
        workdir=str(folder), tokenizer=config.tokenizer, prompts=(), model=config.model,
        optim=OptimConfig(learning_rate=3e-3), data=DataConfig((str(rows),)),
        fit=FitConfig(steps=config.steps, batch_size=config.batch_size, eval_every=0,
                      sample_every=0, save_every=0, seed=seed)))
  return workdir.open_model(str(folder))


def endings(rows: list[dict[str, Any]], count: int) -> list[tuple[str, list[str]]]:
  """(beginning, [right ending, three wrong ones]) of sentences about people of whom pages tell."""
  rng, values = random.Random(0), {}
  rows = [row for row in rows if row['answer']]
  for row in rows:
    values.setdefault(row['attribute'], set()).add(row['answer'])
  found = []
  for row in rows:
    before, answer, _ = row['snippet'].partition(row['answer'])
    others = sorted(values[row['attribute']] - {row['answer']})
    if row['stratum'] in STRATA and answer and before.strip() and len(others) > 2:
      found.append((before.rstrip(), [row['answer'], *rng.sample(others, 3)]))
  if not found:
    raise InputError('the questions.jsonl of --world tells of nobody who is on a page: build a '
                     'larger world with experiments.build_world.')
  return found[:count]


def accuracy(scorer: choice.Scorer, opened: workdir.Opened,
             asked: Sequence[tuple[str, list[str]]]) -> float:
  """How often the right ending is the likeliest, by the mean over its tokens."""
  encode, end = opened.tokenizer.encode, opened.tokenizer.end
  scores = iter(scorer.score(opened.params, [([end, *encode(before)], encode(f' {ending}'))
                                             for before, some in asked for ending in some]))
  return float(np.mean([np.argmax([next(scores).mean for _ in some]) == 0 for _, some in asked]))


if __name__ == '__main__':
  flags.run(main, Config)
