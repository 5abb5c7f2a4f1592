"""Bytes to text: charsets, broken HTML, and pages made to break parsers."""

import pytest

from nanollm_jax.web import extract, pipeline
from nanollm_jax.web.warc import Record


def text_of(body, charset=''):
  return extract.text_of(Record('', '', body, charset))


@pytest.mark.parametrize('charset, encoding, meta', [
    ('', 'utf-8', ''), ('', 'utf-8-sig', ''), ('latin1', 'cp1252', ''), ('ascii', 'cp1252', ''),
    ('', 'cp1252', '<meta charset="iso-8859-1">'), ('utf-8', 'shift_jis', '<meta charset=shift_jis>'),
    ('', 'utf-16', ''), ('no-such-charset', 'utf-8', '')])
def test_charsets(charset, encoding, meta):
  words = 'Grüße “naïve” café' if encoding != 'shift_jis' else '日本語の文章です'
  html = f'<html><head>{meta}</head><body><p>{words} and more words.</p></body></html>'
  assert text_of(html.encode(encoding), charset) == (f'{words} and more words.', '')


@pytest.mark.parametrize('charset', [
    'unicode_escape', 'raw_unicode_escape', 'unicode-escape', 'utf-7', 'idna', 'punycode', 'rot13',
    'base64', 'undefined', 'aliases'])
@pytest.mark.parametrize('in_page', [False, True])
def test_what_is_no_charset_of_the_web_is_not_believed(charset, in_page):
  meta = f'<meta charset="{charset}">' if in_page else ''
  html = f'<html><head>{meta}</head><body><p>A café \\ud800 +AGE-b.</p></body></html>'
  assert text_of(html.encode('cp1252'), '' if in_page else charset) == (
      'A café \\ud800 +AGE-b.', '')


@pytest.mark.parametrize('part', ['extract_plain_text', 'detect_encoding'])
def test_a_page_on_which_extraction_fails_has_a_reason(monkeypatch, part):
  def broken(*_, **__):
    raise TypeError('surrogates not allowed')
  monkeypatch.setattr(extract, part, broken)
  page = pipeline.judge(Record('https://a.example/1', '', b'<p>A caf\xe9.</p>'), pipeline.WebConfig())
  assert (page.step, page.reason) == ('extract', 'failed')


def test_what_holds_no_text():
  assert text_of(b'<html><body></body></html>') == ('', 'no_text')
  assert text_of(b'') == ('', 'no_text')
  assert text_of(bytes(range(256)) * 20)[1] in ('', 'charset', 'no_text')


def test_broken_html_gives_its_text():
  assert text_of(b'<p>One</p><div><p>Two <b>three<p>Four\0teen')[0].split() == [
      'One', 'Two', 'three', 'Fourteen']


def test_navigation_and_scripts_are_left_out():
  html = (b'<html><body><nav><a href="/">Home</a></nav><script>var x;</script><main><p>The text '
          b'of the page.</p><p>And more of it.</p></main><footer>Imprint</footer></body></html>')
  assert text_of(html) == ('The text of the page.\nAnd more of it.', '')


def test_deep_pages():
  deep = lambda depth: b'<html><body>' + b'<div>' * depth + b'<p>Down here.</p>' + b'</div>' * depth
  assert text_of(deep(3_000)) == ('Down here.', '')
  assert text_of(deep(200_000)) == ('', 'too_deep')
  assert text_of(b'<html><body>' + b'<b>' * 200_000) == ('', 'too_deep')
  assert text_of(b'<html><body>' + b'<p>Many short ones. </p><br>' * 20_000)[1] == ''
  assert text_of(b'<html><body><p>Drawn.</p><svg>' + b'<path d="M0"/>' * 20_000)[1] == ''


def test_a_tag_without_an_end_is_passed_over_at_once():
  assert extract._depth('<b>' * 10_001 + '<' + 'a' * 200_000) == 10_001


def test_plain_text_is_taken_as_it_is():
  record = Record('', '', b'One <b>.\n\n\n  Two.  \n', 'utf-8', plain=True)
  assert extract.text_of(record) == ('One <b>.\nTwo.', '')
