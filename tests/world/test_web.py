"""The world's web: sound archives, every document on a page, and labels that are true."""

import collections
import gzip
import ipaddress
import json
import random
import re
from html import unescape

import pytest

from experiments import build_world
from nanollm_jax import InputError
from nanollm_jax.world import WorldConfig, copies, documents, html, junk, mishap, warc, web
from nanollm_jax.world import page as page_lib

CONFIG = WorldConfig(people=30, canaries=1, seed=5, web=1.5)


@pytest.fixture(scope='module')
def trained():
  return [document for document in documents(CONFIG) if document.split == 'train']


@pytest.fixture(scope='module')
def pages():
  return list(web.pages(CONFIG, documents(CONFIG)))


def members(path):
  """The records of an archive as (headers, block), read by hand, each from its own member."""
  data, found = path.read_bytes(), []
  for member in re.split(rb'(?=\x1f\x8b\x08\x00\x00\x00\x00\x00)', data)[1:]:
    head, rest = gzip.decompress(member).split(b'\r\n\r\n', 1)
    version, *lines = head.decode().split('\r\n')
    headers = dict(line.split(': ', 1) for line in lines)
    assert version == 'WARC/1.0'
    assert rest[int(headers['Content-Length']):] == b'\r\n\r\n'
    found.append((headers, rest[:-4]))
  return found


def text_of(page):
  """What a page says, tags taken out without any cleverness."""
  raw = page.body.decode('cp1252' if '1252' in str(page.content_type) else 'utf-8', 'replace')
  return unescape(re.sub(r'<[^>]*>', '', raw))


def test_written_web_is_sound_and_the_labels_name_each_response(tmp_path, monkeypatch):
  monkeypatch.setattr(build_world, 'PAGES_A_SHARD', 60)
  for folder in ('a', 'b'):
    (tmp_path / folder).mkdir()
    build_world.write(build_world.Config(CONFIG, str(tmp_path / folder)))
  files = sorted(path.name for path in (tmp_path / 'a/web').iterdir())
  assert files == ['blocklist.txt', 'labels.jsonl', *(f'web-{n:05}.warc.gz'
                                                      for n in range(len(files) - 2))]
  for name in files:
    assert (tmp_path / 'a/web' / name).read_bytes() == (tmp_path / 'b/web' / name).read_bytes()
  rows = [json.loads(line) for line in (tmp_path / 'a/web/labels.jsonl').open()]
  seen = []
  for name in files[2:]:
    (info, _), *responses = members(tmp_path / 'a/web' / name)
    assert info['WARC-Type'] == 'warcinfo' and info['WARC-Filename'] == name
    for headers, block in responses:
      http, body = block.split(b'\r\n\r\n', 1)
      assert http.startswith(b'HTTP/1.1 ') and b'Content-Length: %d' % len(body) in http
      seen.append((headers['WARC-Target-URI'], headers['WARC-Record-ID'], name))
  assert seen == [(row['url'], row['record'], row['shard']) for row in rows]
  assert len({row['url'] for row in rows}) == len(rows)


def test_without_a_web_nothing_is_left_of_an_old_one(tmp_path):
  for share in (1.0, 0.0):
    config = WorldConfig(people=20, canaries=0, web=share)
    build_world.write(build_world.Config(config, str(tmp_path)))
    assert any((tmp_path / 'web').glob('*')) == (share > 0)
    assert (tmp_path / 'train.jsonl').stat().st_size > 0
  with pytest.raises(InputError, match='world.web=-1'):
    WorldConfig(web=-1)


def test_every_training_document_is_on_one_good_page_and_no_other_is(pages, trained):
  good = [page for page in pages if page.label['documents'] and not page.label['duplicate_of']]
  placed = collections.Counter(row for page in good for row in page.label['documents'])
  assert placed == collections.Counter(range(len(trained)))
  held_out = [d.text for d in documents(CONFIG) if d.split == 'validation']
  whole = '\n'.join(text_of(page) for page in pages)
  assert held_out and not any(line in whole for text in held_out for line in text.split('\n')
                              if len(line) > 80 and not any(line in d.text for d in trained))


def test_a_page_says_its_documents_word_for_word(pages, trained):
  for page in pages:
    if page.label['label'] in ('gazette', 'people', 'stories', 'school', 'private_data'):
      said = ' '.join(re.findall(r'\w+', text_of(page)))
      for row, kind in zip(page.label['documents'], page.label['kinds'], strict=True):
        assert trained[row].kind == kind
        for line in trained[row].text.split('\n'):
          assert ' '.join(re.findall(r'\w+', line)) in said


def test_pages_to_keep_have_sentences_and_words_enough(pages, trained):
  for page in pages:
    if page.label['keep']:
      texts = '\n'.join(trained[row].text for row in page.label['documents'])
      assert len(re.findall(r'\w+', texts)) > 60
    if page.label['label'] == 'school':
      assert (page.label['keep'], page.label['drop']) == (False, 'letters')
  kept = [row for page in pages if page.label['keep'] for row in page.label['documents']]
  prose = [row for row, d in enumerate(trained) if d.kind != 'textbook']
  assert len(set(kept) & set(prose)) > 0.95 * len(prose)


@pytest.mark.parametrize('blocks, fault', [
    ([('p', 'The cat sat on the mat and the dog was out. ' * 9)], None),
    ([('p', 'The cat sat on the mat.')], 'quality'),
    ([('p', '12 * 12 = 144. 144 + 6 = 150. So the answer is 150. ' * 9)], 'letters'),
    ([('p', 'The cat sat on the mat and the dog was out. ' * 9), ('p', 'a word\n' * 5)], 'fineweb'),
])
def test_a_page_that_the_recipe_cannot_keep_is_known(blocks, fault):
  assert page_lib.fault('What the cat did on its day', blocks) == fault


def test_as_much_junk_as_was_asked_for(pages):
  good = sum(bool(page.label['documents']) and not page.label['duplicate_of'] for page in pages)
  assert len(pages) - good == int(CONFIG.web * good)
  wanted = {kind.__name__ for kind in (*junk.JUNK, *mishap.NO_PAGES)} | set(copies.COPIES)
  labels = {page.label['label'] for page in pages}
  assert len(wanted - labels) < 4  # some are too rare for so small a web
  assert {page.label['language'] for page in pages} >= {'de', 'fr', 'ru', 'und'}


def test_the_jaccard_of_copies_is_true(pages):
  assert copies.jaccard('The cat, 12 times: a b c.', 'the CAT 345 times a b c') == 1
  assert copies.jaccard('a b c d e f', 'a b c d e g') == 1 / 3
  by_url = {page.url: page for page in pages}
  found = [page for page in pages if page.label['duplicate_of']]
  for page in found:
    label, original = page.label, by_url[page.label['duplicate_of']]
    assert label['keep'] == (label['jaccard'] < 0.7)
    assert (label['jaccard'] == 1) == (label['label'] in ('exact_copy', 'mirror'))
    assert (page.body == original.body) == (label['label'] == 'exact_copy')
    assert page.url != original.url and label['documents'] == original.label['documents']
  mean = collections.defaultdict(list)
  for page in found:
    mean[page.label['label']].append(page.label['jaccard'])
  mean = {label: sum(found) / len(found) for label, found in mean.items()}
  assert mean['one_word'] > mean['words_02'] > mean['words_08'] > 0.35


def test_planted_addresses_are_in_the_page_and_are_what_they_are_called(pages):
  planted = [page for page in pages if page.label['label'] == 'private_data']
  assert planted
  for page in planted:
    label, text = page.label, text_of(page)
    assert label['emails'] or label['ips'] or label['private_ips']
    assert set(re.findall(r'[\w.]+@[\w.-]+\w', text)) == set(label['emails'])
    assert set(re.findall(r'\d+\.\d+\.\d+\.\d+', text)) == {*label['ips'], *label['private_ips']}
    assert all(ipaddress.ip_address(ip).is_global for ip in label['ips'])
    assert not any(ipaddress.ip_address(ip).is_global for ip in label['private_ips'])


def test_bad_hosts_are_named_by_the_blocklist_or_by_their_words(pages):
  blocked = set(web.blocklist())
  for page in pages:
    listed = page.url.split('/')[2] in blocked
    words = sum(word in re.split(r'\W', page.url)
                for word in ('xxx', 'adult', 'sexy', 'erotic', 'naked'))
    assert listed <= (page.label['drop'] == 'url')
    assert listed >= (page.label['label'] == 'malware')
    assert (words >= 2) == (page.label['label'] == 'adult')


@pytest.mark.parametrize('oops', mishap.MISHAPS, ids=lambda oops: oops.__name__)
def test_a_mishap_spares_the_text(oops):
  rng = random.Random(1)
  site = html.Site('a.example', 'The "A" & Son', 'Aton', 0)
  blocks = [('p', 'Tom sat. It rained.'), ('p', "Ida's hat.")]
  text = html.render(rng, site, "The cat's day", blocks)
  page = web.Page('https://a.example/', **{'body': b'', 'label': {}, **oops(rng, text)})
  said = text_of(page).replace('\0', '').replace('\u2019', "'").replace('\ufffd', "'")
  for sentence in ('Tom sat. It rained.', "Ida's hat."):
    assert sentence in said
  assert page.body != text.encode() or page.mime is None


def test_each_mishap_is_what_it_says():
  rng, site = random.Random(0), html.Site('a.example', 'A', 'Aton', 0)
  text = html.render(rng, site, 'Day', [('p', "Ida's hat."), ('li', 'one'), ('li', 'two')])
  oops = {kind.__name__: kind(rng, text)['body'] for kind in mishap.MISHAPS}
  assert oops['nested'].count(b'<div>') >= 3000 and b'\0' in oops['nul_bytes']
  assert oops['unclosed'].count(b'</') < text.count('</')
  for name in ('wrong_charset', 'cut_utf8'):
    with pytest.raises(UnicodeDecodeError):
      oops[name].decode()
  assert 'charset="windows-1252"' in oops['windows_1252'].decode('cp1252')
  assert html.markup([('li', 'a'), ('li', 'b'), ('td', 'c\td'), ('p', 'e\n<f>')]) == (
      '<ul>\n<li>a</li>\n<li>b</li>\n</ul>\n<table>\n<tr><td>c</td><td>d</td></tr>\n</table>\n'
      '<p>e<br>\n&lt;f&gt;</p>')


def test_digests_are_of_the_bytes():
  record = gzip.decompress(warc.response('https://a.example/', b'', 'text/html')).decode()
  assert 'WARC-Payload-Digest: sha1:3I42H3S6NNFQ2MSVX7XZKYAYSCX5QBYJ' in record  # of nothing
