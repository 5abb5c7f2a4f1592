"""One page through all steps: what it becomes, or at which step and why it is dropped."""

import dataclasses
from typing import NamedTuple

from nanollm_jax import InputError
from nanollm_jax.web import (c4, dedup, extract, fineweb, gopher, language, minhash, page, quality,
                             url, warc)

STEPS = ('url', 'language', 'gopher_repetition', 'gopher_quality', 'c4', 'fineweb', 'dedup', 'pii')
LANGUAGE, LANGUAGE_SCORE = 'en', 0.65  # whose words the rules know; FineWeb's least score
ORDER = ('read', 'url', 'extract', *STEPS[1:6], 'quality', 'dedup')  # in which pages are dropped


@dataclasses.dataclass(frozen=True)
class WebConfig:
  """From crawl to documents.

  warcs: .warc(.gz), .wet(.gz) and .html files, folders of HTML, globs.
  workers: processes; 0 is one for each core.
  steps: those to run of url, language, gopher_repetition, gopher_quality, c4, fineweb, dedup, pii.
  blocklists: files of domains, hosts and URLs, an entry a line.
  letters: words with a letter at least, of all (Gopher's 0.8; sums and tables have fewer).
  quality: a classifier of experiments.train_quality; no classifier if empty.
  quality_above: keep a page if the classifier's score is above.
  """
  warcs: tuple[str, ...] = ()
  workers: int = 0
  steps: tuple[str, ...] = STEPS
  blocklists: tuple[str, ...] = ()
  letters: float = 0.8
  quality: str = ''
  quality_above: float = 0.5

  def __post_init__(self):
    for step in self.steps:
      if step not in STEPS:
        raise InputError(f'--web.steps={step} is not known: choose among {", ".join(STEPS)}.')
    for name in ('letters', 'quality_above'):
      if not 0 <= getattr(self, name) <= 1:
        raise InputError(f'--web.{name}={getattr(self, name)} must be from 0 to 1.')
    if self.workers < 0:
      raise InputError(f'--web.workers={self.workers} must be 0 (all cores) or more.')


class Document(NamedTuple):
  """A page and what became of it: `step` is 'kept', or where it was dropped and why."""
  url: str
  id: str
  key: str
  step: str
  reason: str
  text: str = ''
  language: str = ''
  language_score: float = 0.0
  quality: float = 0.0
  size: int = 0  # bytes of the response
  words: int = 0
  bands: list[int] = []


def judge(record: warc.Record, config: WebConfig) -> Document:
  """Runs the steps on one page; what it returns depends on nothing else."""
  made = Document(record.url, record.id, dedup.key_of(record.url, record.id), 'read', record.reason,
                  size=len(record.body))
  if record.reason:
    return made
  steps = config.steps
  if 'url' in steps:
    if reason := url.blocked(config.blocklists).reason(record.url):
      return made._replace(step='url', reason=reason)
  try:
    text, reason = extract.text_of(record)
  except Exception:  # whatever a parser raises: one page ends no crawl
    text, reason = '', 'failed'
  if reason:
    return made._replace(step='extract', reason=reason)
  return judge_text(made._replace(text=text), config)


def judge_text(made: Document, config: WebConfig) -> Document:
  """The steps from the language on, for a document that has its text."""
  steps, text = config.steps, made.text
  best, score, wanted = language.identify(text, LANGUAGE)
  made = made._replace(language=best, language_score=round(score, 4))
  if 'language' in steps and wanted <= LANGUAGE_SCORE:
    return made._replace(step='language', reason=best if best != LANGUAGE else 'low_score')
  counted = page.page_of(text)
  made = made._replace(words=len(counted.id_N))
  if 'gopher_repetition' in steps and (reason := gopher.repetition(counted)):
    return made._replace(step='gopher_repetition', reason=reason)
  if 'gopher_quality' in steps and (reason := gopher.quality(counted, config.letters)):
    return made._replace(step='gopher_quality', reason=reason)
  if 'c4' in steps:
    text, reason = c4.clean(text)
    if reason:
      return made._replace(step='c4', reason=reason)
    if text != made.text:
      made = made._replace(text=text, words=len(page.page_of(text).id_N))
  if 'fineweb' in steps and (reason := fineweb.reason(text)):
    return made._replace(step='fineweb', reason=reason)
  if config.quality:
    made = made._replace(quality=quality.score(config.quality, text))
    if made.quality <= config.quality_above:
      return made._replace(step='quality', reason='low_score')
  found = minhash.bands(minhash.shingles(text)).tolist() if 'dedup' in steps else []
  return made._replace(step='kept', reason='', bands=found)


def check(config: WebConfig) -> None:
  """Raises InputError now for lists, a classifier, a parser or a language model that is missing."""
  extract.check()
  url.blocked(config.blocklists)
  language.identify('A sentence.', LANGUAGE)
  if config.quality:
    quality.score(config.quality, 'A sentence.')
