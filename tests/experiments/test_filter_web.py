"""filter_web end to end: the same output whatever the workers, a kill, or the layout of shards."""

import dataclasses
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time

import pyarrow.parquet
import pytest

from experiments import filter_web, train_quality
from nanollm_jax import InputError
from nanollm_jax.data import documents
from nanollm_jax.web import cluster, shards as shards_lib
from nanollm_jax.web.pipeline import WebConfig

NOUNS = ('river market garden teacher window village kitchen letter harbour engine winter story bridge '
         'doctor farmer mountain library painter island forest station museum bakery castle orchard '
         'lantern sailor carpenter meadow tower blanket basket ladder hammer pocket mirror').split()
VERBS = 'finds keeps opens paints sells carries follows remembers builds cleans borrows hides'.split()
HOW = 'quietly often gladly slowly rarely again early late alone together today carefully'.split()


def sentences(seed, count=30):
  rng = random.Random(seed)
  forms = ('{w} the {n} near the {m} {v} a small {o}.', 'Nobody {v} that old {n} {w}, said the {m} to his {o}.',
           'Their {n} {v} every {m} and {w} a {o} too.', 'What the {n} {v} {w} is only one {m} with a {o}.')
  return [rng.choice(forms).format(w=rng.choice(HOW), n=rng.choice(NOUNS), m=rng.choice(NOUNS),
                                   v=rng.choice(VERBS), o=rng.choice(NOUNS)).capitalize()
          for _ in range(count)]


def response(url, lines, http='HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n'):
  body = '<html><body><main>' + ''.join(f'<p>{line}</p>' for line in lines) + '</main></body></html>'
  payload = f'{http}\r\n{body}'.encode()
  return gzip.compress((f'WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:{url}>\r\n'
                        f'WARC-Target-URI: {url}\r\nContent-Length: {len(payload)}\r\n\r\n').encode()
                       + payload + b'\r\n\r\n', mtime=0)


PAGES = ([(f'https://a.example/{k}', sentences(k)) for k in range(24)]
         + [(f'https://mirror.example/{k}', [*sentences(k)[:-1], 'Write to jo@mail.example.org now, she said.'])
            for k in range(6)]
         + [('https://b.example/short', sentences(99, 4)), ('https://b.example/xxx', sentences(98)),
            ('https://b.example/de', ['Der Fluss und der Garten sind heute sehr schön gewesen.'] * 9),
            ('https://b.example/empty', [])])


def crawl(folder, shards, order=0):
  folder.mkdir(exist_ok=True)
  pages = random.Random(order).sample(PAGES, len(PAGES)) if order else PAGES
  for shard in range(shards):
    (folder / f'crawl-{shard}.warc.gz').write_bytes(
        b''.join(response(*page) for page in pages[shard::shards]))
  return (str(folder / '*.warc.gz'),)


def config(tmp_path, name='out', **web):
  return filter_web.Config(workdir=str(tmp_path / name), web=WebConfig(workers=1, **web))


def output(folder):
  return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob('*'))
          if path.is_file() and path.name not in ('run.flags', 'report.html', 'funnel.json')}


def fates(folder):
  return {row['url']: row['step'] for row in filter_web.fates(folder)}


@pytest.fixture(scope='module')
def done(tmp_path_factory):
  root = tmp_path_factory.mktemp('web')
  made = config(root, warcs=crawl(root / 'crawl', 3))
  filter_web.main(made)
  return root, made


def test_fates_funnel_and_report(done, capsys):
  root, made = done
  found, funnel = fates(root / 'out'), json.loads((root / 'out' / 'funnel.json').read_text())
  assert len(found) == len(PAGES)
  assert {url.rpartition('/')[2]: step for url, step in found.items() if '//b' in url} == dict(
      short='gopher_quality', xxx='url', de='language', empty='extract')
  for k in range(24):
    pair = [found[url] for url in (f'https://a.example/{k}', f'https://mirror.example/{k}') if url in found]
    assert sorted(pair) == ['dedup', 'kept'][2 - len(pair):]
  left = {row['step']: row['documents'] for row in funnel['steps']}
  assert (left['crawl'], left['url'], left['extract'], left['dedup']) == (34, 33, 32, 24)
  assert funnel['steps'][-1]['dropped'] == {'near': 6}
  report = (root / 'out' / 'report.html').read_text()
  assert 'hard_word' in report and 'https://b.example/short' in report
  filter_web.main(made)
  assert 'done already' in capsys.readouterr().out


def test_documents_are_what_the_tokenizer_reads(done):
  root, _ = done
  texts = [text for _, text in documents.read([str(root / 'out' / 'documents' / '*.parquet')])]
  assert len(texts) == 24 and not any('jo@mail' in text for text in texts)
  row = pyarrow.parquet.read_table(root / 'out' / 'documents').to_pylist()[0]
  assert row['language'] == 'en' and row['language_score'] > 0.65 and row['words'] > 50


def test_workers_and_a_kill_change_nothing(done):
  root, made = done
  command = [sys.executable, '-m', 'experiments.filter_web', f'--web.warcs={made.web.warcs[0]}',
             f'--workdir={root}/killed', '--web.workers=2']
  child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
  deadline = time.monotonic() + 120
  while not list((root / 'killed').glob('shards/*.json')) and time.monotonic() < deadline:
    time.sleep(0.01)
  os.kill(child.pid, signal.SIGKILL)
  child.wait()
  assert not (root / 'killed' / 'funnel.json').exists()
  own = root / 'killed' / 'documents' / 'thesis.txt'
  own.write_text('mine')  # all such files went with the folder
  subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
  assert own.read_text() == 'mine'
  own.unlink()
  assert output(root / 'killed') == output(root / 'out')


def test_the_layout_of_shards_changes_no_fate(done, tmp_path):
  root, _ = done
  filter_web.main(config(tmp_path, warcs=crawl(tmp_path / 'other', 2, order=5)))
  assert fates(tmp_path / 'out') == fates(root / 'out')


def test_of_a_record_that_comes_twice_one_stays(done, tmp_path):
  root, _ = done
  patterns = crawl(tmp_path / 'crawl', 1)
  (tmp_path / 'crawl' / 'again.warc.gz').write_bytes((tmp_path / 'crawl' / 'crawl-0.warc.gz').read_bytes())
  filter_web.main(config(tmp_path, warcs=patterns))
  kept = [row['url'] for row in filter_web.fates(tmp_path / 'out') if row['step'] == 'kept']
  assert sorted(kept) == sorted(url for url, step in fates(root / 'out').items() if step == 'kept')


def test_a_broken_record_is_counted_and_the_file_named(tmp_path, capsys):
  patterns = crawl(tmp_path / 'crawl', 1)
  path = tmp_path / 'crawl' / 'crawl-0.warc.gz'
  path.write_bytes(path.read_bytes()[:-30])
  filter_web.main(config(tmp_path, warcs=patterns))
  assert 'crawl-0.warc.gz: 1 broken record passed over' in capsys.readouterr().out
  funnel = json.loads((tmp_path / 'out' / 'funnel.json').read_text())
  assert funnel['steps'][1]['dropped'] == {'broken_record': 1}


def test_no_text_on_most_pages_stops_the_run(tmp_path):
  (tmp_path / 'a.warc.gz').write_bytes(
      b''.join(response(f'https://a.example/{k}', sentences(k) if k < 9 else []) for k in range(20)))
  with pytest.raises(InputError, match='a.warc.gz: extraction found no text on 11 of 20 pages'):
    filter_web.main(config(tmp_path, warcs=(str(tmp_path / 'a.warc.gz'),)))
  assert not list((tmp_path / 'out' / 'documents').iterdir())


@pytest.mark.parametrize('empty, full, sentence', [
    (11, 9, 'on 11 of 20 pages .no_text 11.'), (2, 0, 'on 2 of 2 pages'), (2, 1, ''), (10, 10, '')])
def test_no_text_on_most_pages_of_many_files_stops_the_run(tmp_path, empty, full, sentence):
  (tmp_path / 'pages').mkdir()
  for k in range(empty + full):
    body = ''.join(f'<p>{line}</p>' for line in sentences(k)) if k < full else '<p></p>'
    (tmp_path / 'pages' / f'{k}.html').write_text(f'<html><body>{body}</body></html>')
  made = config(tmp_path, warcs=(str(tmp_path / 'pages' / '*.html'),))
  if not sentence:
    filter_web.main(made)
    return
  for _ in range(2):  # a second run does not take the first for done
    with pytest.raises(InputError, match=f'extraction found no text {sentence}'):
      filter_web.main(made)
  assert not (tmp_path / 'out' / 'funnel.json').exists()
  assert not list((tmp_path / 'out' / 'documents').iterdir())


@pytest.mark.parametrize('name, content', [
    ('a.warc.gz', b''), ('a.warc', b''), ('pages', None), ('a.warc.gz', gzip.compress(
        b'WARC/1.0\r\nWARC-Type: warcinfo\r\nContent-Length: 4\r\n\r\na: b\r\n\r\n', mtime=0))],
    ids=['empty', 'empty and plain', 'no page', 'warcinfo alone'])
def test_a_crawl_without_a_response_is_one_sentence(tmp_path, name, content):
  (tmp_path / name).mkdir() if content is None else (tmp_path / name).write_bytes(content)
  with pytest.raises(InputError, match=f'no response in .*{name}.*: give'):
    filter_web.main(config(tmp_path, warcs=(str(tmp_path / name),)))


def test_labels_give_precision_and_recall(done):
  root, _ = done
  rows = []
  for url, _ in PAGES:
    host, _, name = url.removeprefix('https://').partition('/')
    rows.append(dict(url=url, record=f'<urn:{url}>', label=host[0] if host[0] != 'b' else name,
                     keep=host[0] == 'a' or name == 'short', emails=[], ips=[],
                     duplicate_of=f'https://a.example/{name}' if host[0] == 'm' else None))
  labels = root / 'labels.jsonl'
  labels.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  judged = filter_web.judged(labels, root / 'out')
  recall = {row['label']: row['recall'] for row in judged['labels']}
  assert recall == dict(a=1, m=1, short=0, xxx=1, de=1, empty=1)
  assert {row['step']: row['precision'] for row in judged['steps']} == dict(
      url=1, extract=1, language=1, gopher_quality=0, dedup=1)


def test_dropped_text_and_tokens_on_request(tmp_path):
  made = dataclasses.replace(
      config(tmp_path, warcs=crawl(tmp_path / 'crawl', 1), steps=('language', 'dedup')), keep_dropped=True)
  filter_web.main(made)
  text = {row['url']: row['text'] for row in filter_web.fates(tmp_path / 'out')}
  assert text['https://b.example/de'].startswith('Der Fluss')
  assert fates(tmp_path / 'out')['https://b.example/xxx'] == 'kept'
  assert any('jo@mail.example.org' in one for one in text.values())


def test_a_classifier_is_a_step(tmp_path):
  for name, rows in (('good', ['the river of the garden'] * 30), ('bad', ['buy now ' + str(k) for k in range(30)])):
    (tmp_path / f'{name}.jsonl').write_text(''.join(json.dumps({'text': row}) + '\n' for row in rows))
  train_quality.main(train_quality.Config(workdir=str(tmp_path), documents=(str(tmp_path / 'good.jsonl'),),
                                          bad=(str(tmp_path / 'bad.jsonl'),), held_out=0))
  filter_web.main(config(tmp_path, warcs=crawl(tmp_path / 'crawl', 1), quality_above=1.0,
                         quality=str(tmp_path / 'quality.npy')))
  steps = set(fates(tmp_path / 'out').values())
  assert 'quality' in steps and 'kept' not in steps


def test_a_run_is_done_again_if_a_blocklist_changes(tmp_path, capsys):
  path = tmp_path / 'list.txt'
  made = config(tmp_path, warcs=crawl(tmp_path / 'crawl', 1), blocklists=(str(path),))
  for content, kept in (('b.example\n', 24), ('b.example\na.example\n', 6)):
    path.write_text(content)
    filter_web.main(made)
    assert list(fates(tmp_path / 'out').values()).count('kept') == kept
    capsys.readouterr()
    os.utime(path, (0, 0))  # another time is no other content
    filter_web.main(made)
    assert 'done already' in capsys.readouterr().out


@pytest.mark.parametrize('name', ['quality.npy', 'tokenizer.json', 'list.txt'])
@pytest.mark.parametrize('folder', ['', 'moved'])
def test_a_shard_follows_from_the_content_of_files_and_not_their_path(tmp_path, name, folder):
  def key(folder, content):
    path = tmp_path / folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    made = dict(quality=str(path)) if name == 'quality.npy' else (
        dict(blocklists=(str(path),)) if name == 'list.txt' else {})
    tokenizer = {} if made else dict(tokenizer=str(path.parent))
    return shards_lib.key_of(shards_lib.Shard(__file__, 'a'), WebConfig(**made), **tokenizer)

  first = key('', 'one')
  assert key(folder, 'another') != first
  assert key(folder, 'one') == first
  named = shards_lib.key_of(shards_lib.Shard(__file__, 'a'), WebConfig(), tokenizer='gpt2')
  assert named['tokenizer'] == 'gpt2'


def test_a_folder_follows_from_the_pages_below_it(tmp_path):
  key = lambda: shards_lib.key_of(shards_lib.Shard(str(tmp_path), 'a'), WebConfig())
  page = tmp_path / 'deep' / 'a.html'
  page.parent.mkdir()
  page.write_text('one')
  keys = [key()]
  page.write_text('three')
  keys.append(key())
  (tmp_path / 'deep' / 'b.html').write_text('two')
  (tmp_path / 'gone.html').symlink_to(tmp_path / 'nowhere')
  keys.append(key())
  os.utime(page, (0, 0))
  keys.append(key())
  (tmp_path / 'notes.txt').write_text('no page')
  assert all(one != other for one, other in zip(keys, keys[1:])) and key() == keys[-1]


@pytest.mark.parametrize('web, sentence', [
    (dict(warcs=()), 'there is no crawl.*--web.warcs'), (dict(warcs=('gone*.warc.gz',)), 'matches no file'),
    (dict(warcs=(__file__,)), 'is not read'), (dict(warcs=('.',), blocklists=('gone.txt',)), 'gone.txt')])
def test_bad_input_is_one_sentence(tmp_path, web, sentence):
  with pytest.raises(InputError, match=sentence):
    filter_web.main(config(tmp_path, **web))


@pytest.mark.parametrize('web', [dict(steps=('c5',)), dict(workers=-1), dict(letters=7.0)])
def test_bad_flags(web):
  with pytest.raises(InputError, match=f'--web.{next(iter(web))}='):
    WebConfig(**web)


def test_the_cluster_gets_absolute_paths(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  made = WebConfig(warcs=('a*.warc',), blocklists=('list.txt', '/etc/list.txt'), quality='q.npy')
  shard, web, tokenizer = cluster.absolute([shards_lib.Shard('a.warc', 'a.warc')], made, 'vocabulary')
  assert shard == [shards_lib.Shard(f'{tmp_path}/a.warc', 'a.warc')]
  assert web == dataclasses.replace(
      made, blocklists=(f'{tmp_path}/list.txt', '/etc/list.txt'), quality=f'{tmp_path}/q.npy')
  assert tokenizer == f'{tmp_path}/vocabulary'
  for given, sent in (('', ''), ('gpt2', 'gpt2'), ('gpt2:b.bpe', f'gpt2:{tmp_path}/b.bpe')):
    assert cluster.absolute([], WebConfig(), given) == ([], WebConfig(), sent)


@pytest.mark.slow
def test_ray_gives_the_same_documents_from_another_folder(done, monkeypatch):
  pytest.importorskip('ray')
  from ray.cluster_utils import Cluster
  root, made = done
  monkeypatch.setenv('PYTHONPATH', os.getcwd(), prepend=os.pathsep)
  nodes = Cluster(initialize_head=True, head_node_args=dict(num_cpus=2))
  try:
    nodes.add_node(num_cpus=2)
    monkeypatch.chdir(root)  # where the nodes' processes are not
    (root / 'list.txt').write_text('nowhere.example\n')
    web = dataclasses.replace(made.web, warcs=('crawl/*.warc.gz',), blocklists=('list.txt',))
    filter_web.main(dataclasses.replace(made, workdir='ray', ray=nodes.address, web=web))
  finally:
    import ray
    ray.shutdown()
    nodes.shutdown()
  assert output(root / 'ray') == output(root / 'out')
