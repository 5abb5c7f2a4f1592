"""The small crawl of real pages with planted ones: what must go goes, what must stay stays."""

import json
import pathlib

import numpy as np
import pytest

from experiments import filter_web
from nanollm_jax.web import dedup, extract, minhash, pipeline, warc
from nanollm_jax.web.pipeline import WebConfig

CRAWL = pathlib.Path(__file__).parents[3] / 'shared/data/crawl'
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CRAWL.exists(), reason='no crawl here')]


def labels():
  return [json.loads(line) for line in (CRAWL / 'LABELS.jsonl').read_text().splitlines()]


@pytest.fixture(scope='module')
def fates(tmp_path_factory):
  root = tmp_path_factory.mktemp('crawl')
  filter_web.main(filter_web.Config(workdir=str(root), keep_dropped=True, web=WebConfig(
      (str(CRAWL / '*.warc.gz'),), blocklists=(str(CRAWL / 'blocklist.txt'),))))
  return {row['id']: row for row in filter_web.fates(root)}


def test_junk_and_blocked_urls_go(fates):
  for row in labels():
    if row['type'] == 'junk' and row['id'] in fates:
      assert fates[row['id']]['step'] != 'kept', (row['why'], row['url'])
    if row['type'] == 'blocked_url' and row['id'] in fates:
      assert fates[row['id']]['step'] == 'url', row['url']


def test_names_that_hold_a_bad_word_pass_the_filter_of_urls(fates):
  found = [fates[row['id']]['step'] for row in labels() if row['type'] == 'must_keep_url' and row['id'] in fates]
  assert len(found) > 10 and set(found) <= {'kept', 'dedup'}


def test_private_data_goes_and_private_addresses_stay(fates):
  found = 0
  for row in labels():
    if row['type'] == 'pii' and row['id'] in fates and fates[row['id']]['step'] == 'kept':
      text = fates[row['id']]['text']
      assert not [one for one in row['remove'] if one in text]
      assert all(one in text for one in row['keep'])
      found += 1
  assert found > 10


def test_exact_copies_never_both_stay(fates):
  by_url = {row['url']: row for row in fates.values()}
  pairs = [(by_url[row['url']], by_url[row['of']]) for row in labels()
           if row.get('variant') == 'exact' and row['of'] in by_url and row['url'] in by_url]
  both = [(one, other) for one, other in pairs if one['step'] == other['step'] == 'kept']
  assert len(pairs) > 10 and not both


def test_recall_and_precision_of_duplicates_against_every_pair():
  wanted = {name for row in labels() if row['type'] == 'near_duplicate' for name in (row['url'], row['of'])}
  texts = {}
  for path in sorted(CRAWL.glob('*.warc.gz')):
    for record in warc.read(path):
      if record.url in wanted and not record.reason:
        texts[dedup.key_of(record.url, record.id)] = extract.text_of(record)[0]
  shingles = {key: minhash.shingles(text) for key, text in texts.items() if len(text) > 200}
  keys = sorted(shingles)
  bands_NB = np.array([minhash.bands(shingles[key]) for key in keys])
  gone = dedup.duplicates(dedup.candidates(keys, bands_NB), shingles.__getitem__, 0.7)
  pairs = [(one, other) for at, one in enumerate(keys) for other in keys[at + 1:]
           if 0.8 * len(shingles[one]) <= len(shingles[other]) <= 1.25 * len(shingles[one])]
  alike = {pair: minhash.jaccard(*map(shingles.get, pair)) for pair in pairs}
  near = [pair for pair, value in alike.items() if value >= 0.8]
  found = [pair for pair in near if pair[0] in gone or pair[1] in gone]
  print(f'{len(keys)} texts, {len(gone)} duplicates, {len(found)} of {len(near)} pairs of 0.8 and more')
  assert len(near) > 50 and len(found) >= 0.99 * len(near)
  assert all(minhash.jaccard(shingles[key], shingles[one]) >= 0.7 for key, (one, _) in gone.items())
