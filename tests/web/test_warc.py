"""Reading crawls: every container, and every kind of damage, which is counted and passed over."""

import gzip
import pathlib

import pytest

from nanollm_jax.web import warc

HTML = b'<html><body><p>Words of a page.</p></body></html>'


def record(number, body=HTML, kind='response', http=b'HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n',
           size=None, **fields):
  payload = body if kind == 'conversion' else http + b'\r\n' + body
  head = {'WARC-Type': kind, 'WARC-Record-ID': f'<urn:{number}>',
          'WARC-Target-URI': f'https://a.example/{number}',
          'Content-Length': str(len(payload) if size is None else size), **fields}
  lines = ''.join(f'{name}: {value}\r\n' for name, value in head.items() if value is not None)
  return f'WARC/1.0\r\n{lines}\r\n'.encode() + payload + b'\r\n\r\n'


def read(tmp_path, content, name='a.warc.gz'):
  (tmp_path / name).write_bytes(content)
  return [(one.url.rpartition('/')[2], one.reason) for one in warc.read(tmp_path / name)]


RECORDS = [record(0, kind='warcinfo'), *(record(number) for number in range(1, 6))]
WHOLE = [(str(number), '') for number in range(1, 6)]


@pytest.mark.parametrize('name, content', [
    ('a.warc.gz', b''.join(map(gzip.compress, RECORDS))),
    ('a.warc.gz', gzip.compress(b''.join(RECORDS))),
    ('a.warc', b''.join(RECORDS))], ids=['members', 'one member', 'plain'])
def test_every_container(tmp_path, name, content):
  assert read(tmp_path, content, name) == WHOLE
  assert [one.body for one in warc.read(tmp_path / name)] == [HTML] * 5


def test_small_reads_change_nothing(tmp_path, monkeypatch):
  monkeypatch.setattr(warc, '_CHUNK', 7)
  assert read(tmp_path, b''.join(map(gzip.compress, RECORDS))) == WHOLE
  assert read(tmp_path, b''.join(RECORDS), 'a.warc') == WHOLE


def test_a_damaged_member_costs_one_record(tmp_path):
  members = list(map(gzip.compress, RECORDS))
  members[2] = members[2][:30] + b'\xff' * 9 + members[2][39:]
  assert read(tmp_path, b''.join(members)) == [
      ('1', ''), ('', 'broken_record'), ('3', ''), ('4', ''), ('5', '')]


@pytest.mark.parametrize('length', ['200', None], ids=['too short', 'none'])
def test_damage_seen_at_the_end_of_a_member_costs_no_record_behind_it(tmp_path, length):
  damaged = record(0, HTML * 9, **{'Content-Length': length})
  found = read(tmp_path, b''.join(map(gzip.compress, [damaged, *RECORDS[1:]])))
  assert found[-6:] == [('', 'broken_record'), *WHOLE]


@pytest.mark.parametrize('name', ['a.warc.gz', 'a.warc'])
def test_a_cut_file_loses_its_last_record(tmp_path, name):
  pack = gzip.compress if name.endswith('gz') else bytes
  assert read(tmp_path, b''.join(map(pack, RECORDS))[:-20], name) == [
      *WHOLE[:4], ('', 'broken_record')]


def test_a_head_that_is_none_is_passed_over(tmp_path):
  content = RECORDS[1] + b'garbage garbage\r\n\r\n' + RECORDS[2] + b'\x00' * 100
  assert read(tmp_path, content, 'a.warc') == [
      ('1', ''), ('', 'broken_record'), ('2', ''), ('', 'broken_record')]
  assert read(tmp_path, b'\x00' * 200_000, 'b.warc') == [('', 'broken_record')]


@pytest.mark.parametrize('reason, one', [
    ('no_type', record(1, **{'WARC-Type': None})),
    ('no_url', record(1, **{'WARC-Target-URI': None})),
    ('redirect', record(1, http=b'HTTP/1.1 301 Moved\r\nContent-Type: text/html\r\n')),
    ('status', record(1, http=b'HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\n')),
    ('no_http', record(1, http=b'garbage\r\n')),
    ('not_html', record(1, http=b'HTTP/1.1 200 OK\r\nContent-Type: application/pdf\r\n')),
    ('not_html', record(1, b'%PDF-1.4', **{'WARC-Identified-Payload-Type': 'application/pdf'})),
    ('not_html', record(1, b'no tags', http=b'HTTP/1.1 200 OK\r\n')),
    ('broken_body', record(1, b'\x1f\x8bgarbage', http=b'HTTP/1.1 200 OK\r\n'
                           b'Content-Type: text/html\r\nContent-Encoding: gzip\r\n')),
    ('too_large', record(1, b'<p>' * (6 << 20))),
], ids=lambda value: value if isinstance(value, str) else '')
def test_what_is_no_page_has_a_reason(tmp_path, reason, one):
  found = read(tmp_path, one + RECORDS[2], 'a.warc')
  assert [why for _, why in found] == [reason, '']


def test_html_without_a_type_is_seen_by_its_first_bytes(tmp_path):
  page = b'<?xml version="1.0"?>\n<!-- x -->\n<!DOCTYPE html><html>'
  assert read(tmp_path, record(1, page, http=b'HTTP/1.1 200 OK\r\n'), 'a.warc') == [('1', '')]
  comments = record(1, b'<!---->' * 500, http=b'HTTP/1.1 200 OK\r\n')  # soon seen to be none
  assert read(tmp_path, comments, 'a.warc') == [('1', 'not_html')]


@pytest.mark.parametrize('http, body', [
    (b'Transfer-Encoding: chunked', b'5\r\n' + HTML[:5] + b'\r\n%x\r\n' % len(HTML[5:]) + HTML[5:] + b'\r\n0\r\n\r\n'),
    (b'Content-Encoding: gzip', gzip.compress(HTML, mtime=0)), (b'Content-Encoding: gzip', HTML)])
def test_encodings_are_taken_off(tmp_path, http, body):
  http = b'HTTP/1.1 200 OK\r\nContent-Type: text/html; charset="latin1"\r\n' + http + b'\r\n'
  (tmp_path / 'a.warc').write_bytes(record(1, body, http=http))
  one, = warc.read(tmp_path / 'a.warc')
  assert (one.body, one.charset) == (HTML, 'latin1')


@pytest.mark.parametrize('size', [
    b'-6', b'+6', b'0_6', b'0x6', b'', b'f' * 5000], ids=lambda size: size[:4].decode() or 'none')
def test_a_chunk_of_no_size_is_a_broken_body(tmp_path, size):
  http = b'HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n'
  body = b'1\r\na\r\n' + size + b'\r\nbcdefg\r\n0\r\n\r\n'
  assert read(tmp_path, record(1, body, http=http) + RECORDS[2], 'a.warc') == [
      ('1', 'broken_body'), ('2', '')]


def test_a_length_that_no_file_has_is_a_broken_record(tmp_path):
  content = RECORDS[1] + record(2, **{'Content-Length': '9' * 5000}) + RECORDS[3]
  assert read(tmp_path, content, 'a.warc') == [('1', ''), ('', 'broken_record'), ('3', '')]


def test_wet_files_and_folders(tmp_path):
  (tmp_path / 'a.wet.gz').write_bytes(gzip.compress(record(1, 'Text é.'.encode(), 'conversion')))
  one, = warc.read(tmp_path / 'a.wet.gz')
  assert (one.body.decode(), one.plain) == ('Text é.', True)
  (tmp_path / 'pages' / 'deep').mkdir(parents=True)
  (tmp_path / 'pages' / 'deep' / 'a.html').write_bytes(HTML)
  one, = warc.read(tmp_path / 'pages')
  assert (one.url, one.body, one.reason) == ('file:deep/a.html', HTML, '')
  again, = warc.read(tmp_path / 'pages' / 'deep' / 'a.html')
  assert again.body == HTML and again.id == one.id


def test_what_is_no_file_in_a_folder_ends_no_run(tmp_path):
  (tmp_path / 'x.html').mkdir()
  (tmp_path / 'x.html' / 'a.html').write_bytes(HTML)
  (tmp_path / 'gone.html').symlink_to(tmp_path / 'nowhere.html')
  assert [(one.url, one.reason) for one in warc.read(tmp_path)] == [
      ('file:gone.html', 'unreadable'), ('file:x.html/a.html', '')]
