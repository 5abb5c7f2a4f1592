"""datatrove's FineWeb recipe over WARC files, for comparison; runs in an environment of its own.

A request is a JSON line {"warcs": [...], "pages": [first, last], "language_model": path, "texts":
path, "out": path}: with texts, those (id, text) are filtered in place of what trafilatura extracts.
Prints a line with the CPU seconds of each part; a line for each response goes to "out": id, url,
step, reason, text.
"""

import itertools
import json
import logging
import resource
import sys
import time
import warnings


def steps(language_model: str) -> list:
  """(step, filter) in the order of the recipe."""
  from datatrove.pipeline import filters
  from fasttext.FastText import _FastText
  language = filters.LanguageFilter(languages='en')
  language.model._model = _FastText(language_model)  # which it would fetch from the web
  return [('url', filters.URLFilter()), ('lang', language),
          ('gopher_rep', filters.GopherRepetitionFilter()),
          ('gopher_quality', filters.GopherQualityFilter()),
          ('c4', filters.C4QualityFilter(filter_no_terminal_punct=False)),
          ('fineweb', filters.FineWebQualityFilter())]


def records(warcs: list[str]):
  """What datatrove's reader makes of the responses: {id, url, text (HTML)}, or None."""
  from datatrove.pipeline.readers.warc import process_record
  from warcio.archiveiterator import ArchiveIterator
  for path in warcs:
    with open(path, 'rb') as file:
      for record in ArchiveIterator(file):
        if record.rec_type in ('response', 'conversion'):
          yield (record.rec_headers['WARC-Record-ID'], record.rec_headers['WARC-Target-URI'],
                 process_record(record))


def main() -> None:
  warnings.simplefilter('ignore')
  logging.disable(logging.CRITICAL)
  from datatrove.data import Document
  from datatrove.pipeline.extractors import Trafilatura
  request = json.loads(sys.stdin.readline())
  extractor, chain = Trafilatura(), steps(request['language_model'])
  given = None
  if request['texts']:
    given = {row['id']: row['text'] for row in map(json.loads, open(request['texts']))}
  extractor.extract('<html><body><p>A first page loads the modules.</p></body></html>')
  for _, one in chain:
    one.filter(Document(text='A first page. ' * 9, id='', metadata={'url': 'https://a.example'}))
  spent, count = dict.fromkeys(['read', 'extract', *(name for name, _ in chain)], 0.0), 0
  with open(request['out'], 'w') as out:
    begun = time.process_time()
    for id_, url, found in itertools.islice(records(request['warcs']), *request['pages']):
      count += 1
      since = time.process_time()
      spent['read'] += since - begun
      document = Document(text='', id=id_, metadata={'url': url})
      step, reason, text = 'extract', 'no text', ''
      order = chain
      if found or (given and given.get(id_)):
        passed = chain[0][1].filter(document)
        spent['url'] += time.process_time() - since
        if passed is not True:
          step, reason = 'url', passed[1]
        else:
          since, order = time.process_time(), chain[1:]
          try:
            text = given.get(id_, '') if given is not None else extractor.extract(found['text'])
          except Exception as error:  # trafilatura's own, of any kind: the page is lost
            reason = type(error).__name__
          spent['extract'] += time.process_time() - since
          document.text = text or ''
          if text:
            step, reason = 'kept', ''
            for name, one in order:
              since = time.process_time()
              passed = one.filter(document)
              spent[name] += time.process_time() - since
              if passed is not True and passed is not False and not isinstance(passed, tuple):
                passed = bool(passed)
              if passed is not True:
                step, reason = name, passed[1] if isinstance(passed, tuple) else ''
                break
      out.write(json.dumps(dict(id=id_, url=url, step=step, reason=reason, text=text or '')) + '\n')
      begun = time.process_time()
  memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  print(json.dumps(dict(pages=count, seconds=spent, memory_mb=memory)), flush=True)


if __name__ == '__main__':
  main()
