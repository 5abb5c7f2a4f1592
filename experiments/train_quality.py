"""Trains the quality classifier of filter_web on two piles of documents.

python -m experiments.train_quality --documents='books/*.parquet' --bad='raw/*.parquet'
Then: python -m experiments.filter_web --web.quality=runs/quality/quality.npy
"""

import dataclasses
import pathlib

from nanollm_jax import InputError, flags
from nanollm_jax.data import documents
from nanollm_jax.web import quality


@dataclasses.dataclass(frozen=True)
class Config:
  """A classifier of documents.

  workdir: where quality.npy goes.
  documents: files or globs of documents as one wants them.
  bad: files or globs of documents as they come.
  text_field: the field or column that holds the text.
  held_out: part of the documents kept aside to measure.
  """
  workdir: str = 'runs/quality'
  documents: tuple[str, ...] = ()
  bad: tuple[str, ...] = ()
  text_field: str = 'text'
  held_out: float = 0.1


def main(config: Config) -> None:
  flags.spare_model(config.workdir)
  piles, held = {}, {}
  for name, patterns in (('good', config.documents), ('bad', config.bad)):
    if not patterns:
      raise InputError(f'there are no {name} documents: give both piles, --documents and --bad.')
    rows = list(documents.read(patterns, config.held_out, config.text_field))
    piles[name] = [text for split, text in rows if split == 'train']
    held[name] = [text for split, text in rows if split == 'validation']
  weights = quality.train(piles['good'], piles['bad'])
  flags.save(config, config.workdir)
  path = pathlib.Path(config.workdir) / 'quality.npy'
  quality.save(weights, path)
  for name, texts in held.items():
    if texts:
      above = sum(quality.score(str(path), text) > 0.5 for text in texts) / len(texts)
      print(f'{name}: {above:.1%} of {len(texts)} held out score above 0.5')
  print(f'wrote {path}')


if __name__ == '__main__':
  flags.run(main, Config)
