"""Tests of search: what ranks first, what is shown of it, and queries that are no words."""

import concurrent.futures
import json
import sqlite3
import time

import pytest

from nanollm_jax import InputError
from nanollm_jax.tools import search as search_lib
from nanollm_jax.tools.search import Search

LONG = ('The ferry leaves at nine. Dogs travel free of charge! Is there a bar? There is one on the '
        'upper deck, and it sells soup. Cabins must be booked a week ahead. Nobody may smoke.')
PAGES = [
    ('Ines Gosling', 'Ines Gosling bakes bread. She was born in 1954.'),
    ('Alma Gosling', 'Alma Gosling was born in Dunbridge in 1963, in a barn.'),
    ('Miles Conway', 'Miles Conway plays the piano.'),
    ('Lucy Draycott', "Lucy's best friend is Miles Conway. Lucy is a weaver in Dunbridge."),
    ('Weaving', 'Weavers weave cloth. Weaving takes patience.'),
    ('Ferry', LONG),
    ('Café Zürich', 'A café in Zürich.'),
]
TEXT = dict(PAGES)


@pytest.fixture(scope='module')
def search():
  return Search(PAGES)


@pytest.mark.parametrize('query, title', [
    ('Miles Conway', 'Miles Conway'),            # the title counts besides the text
    ('Lucy Draycott', 'Lucy Draycott'),
    ('Where was Ines Gosling born?', 'Ines Gosling'),
    ('ines gosling', 'Ines Gosling'),
    ('weaved', 'Weaving'),                       # stems
    ('Who is the weaver in Dunbridge?', 'Lucy Draycott'),
    ('dunbridge barns', 'Alma Gosling'),
    ('cafe zurich', 'Café Zürich'),              # accents
    ('cafe\u0301', 'Café Zürich'),
    ('1954', 'Ines Gosling'),
])
def test_the_right_page_comes_first(search, query, title):
  assert search(query) == TEXT[title]


def test_a_name_with_the_stem_of_a_stop_word_counts():
  pages = [(f'{name} Gosling', f'In town, in a barn, lives {name} Gosling.')
           for name in ('Alma', 'Edith', 'Walter')]
  page = 'A page about cloth, bread, soup, ferries and pianos.'
  assert Search([*pages, ('Ines Gosling', page)])('Ines Gosling') == page


def test_k_pages_come_best_first_one_a_line():
  assert Search(PAGES, k=2)('Gosling barn').split('\n') == [
      TEXT['Alma Gosling'], TEXT['Ines Gosling']]
  assert Search(PAGES, k=9)('patience') == TEXT['Weaving']
  equals = Search([('', f'soup {letter}') for letter in 'abcde'], k=3)
  assert equals('soup') == 'soup a\nsoup b\nsoup c'


@pytest.mark.parametrize('chars, query, shown', [
    (60, 'soup', 'There is one on the upper deck, and it sells soup.'),
    (100, 'dogs on a deck', 'Dogs travel free of charge! Is there a bar? '
                            'There is one on the upper deck, and it sells soup.'),
    (60, 'ferry', 'The ferry leaves at nine. Dogs travel free of charge!'),
    (60, 'ferry soup', 'The ferry leaves at nine. Dogs travel free of charge!'),
    (60, 'cabin week smoke', 'Cabins must be booked a week ahead. Nobody may smoke.'),
    (30, 'soup', 'deck, and it sells soup.'),
    (300, 'soup', LONG),
])
def test_of_a_long_page_the_sentences_that_match_best(chars, query, shown):
  assert Search(PAGES, chars=chars)(query) == shown


def test_a_word_that_is_said_twice_counts_once():
  page = 'Soup, hot soup in May. Bread with soup.'
  assert Search([('', page)], chars=26)('bread soup') == 'Bread with soup.'


@pytest.mark.parametrize('text', [
    'soup ' * 200, 'soup\n\nsoup. ' * 90, 'soup-' * 90, 'Soup? ' + 'é' * 90, 'soup' * 90])
@pytest.mark.parametrize('chars', [20, 60, 200])
def test_no_page_shows_more_than_chars(text, chars):
  shown = Search([('soup', text)], chars=chars)('soup')
  assert 0 < len(shown) <= chars and '\n' not in shown
  assert shown.isprintable()


def test_a_sentence_is_cut_between_words():
  page = 'One can have some well-known soup and more of it.'
  assert Search([('', page)], chars=24)('soup') == 'well-known soup and'


def test_a_short_page_is_shown_whole_on_one_line():
  assert Search([('a', 'One soup.\n\nTwo  soups.')])('soup') == 'One soup. Two soups.'


@pytest.mark.parametrize('query', [
    '', ' ', '"', '""', '"""', "'", "';drop table page;--", '*', '^', '(', ')', 'NEAR(',
    'NEAR(a b, 1)', 'AND', 'OR', 'NOT', 'a AND', '- -', '+', ':', 'title:', '{title}: a', '_', '\0',
    '\ud800', '\x02', 'the of who', 'I', "don't", '²', '日本語', '👩‍👩‍👧‍👦', 'İ', '\ue000', '?',
    '1' * 10**5,
    ' '.join(f'w{number}' for number in range(10**5))])
def test_queries_that_find_nothing(search, query):
  start = time.perf_counter()
  assert search(query) == 'Nothing found.'
  assert time.perf_counter() - start < 2
  assert search('patience') == TEXT['Weaving']


@pytest.mark.parametrize('query', [
    '"patience', 'patience"', 'patience*', 'NOT patience', '(patience', 'NEAR(patience',
    '^patience', 'text:patience', 'title:patience', '-patience', 'patience AND nonsense',
    'patience\0',
    'PATIENCE', 'nonsense + patience', '\ud800patience', 'patience_', '{title}: patience'])
def test_syntax_of_the_engine_means_nothing(search, query):
  assert search(query) == TEXT['Weaving']


def test_pages_that_are_odd_text():
  pages = [('\ud800', 'soup \ud800 \0 \x02 hot \x03'), ('empty', ''), ('', 'stew')]
  search = Search(pages)
  assert search('soup') == 'soup ? hot'
  assert search('stew') == 'stew'
  assert Search([])('soup') == 'Nothing found.'


def test_answers_are_the_same_each_time_and_from_many_threads(search):
  queries = [title for title, _ in PAGES] * 20
  with concurrent.futures.ThreadPoolExecutor(8) as threads:
    assert list(threads.map(search, queries)) == [search(query) for query in queries]
  again = Search(PAGES)
  assert all(again(query) == search(query) for query in queries)


def test_an_index_in_a_file_is_used_again_and_replaced(tmp_path):
  path = tmp_path / 'pages.db'
  Search(PAGES, path).close()
  kept = Search(path=path)
  assert kept('weave') == TEXT['Weaving']
  kept.close()

  def broken():
    yield 'a', 'soup'
    raise InputError('the second page is bad')

  with pytest.raises(InputError, match='second page'):
    Search(broken(), path)
  assert Search(path=path)('weave') == TEXT['Weaving']
  Search([('b', 'stew')], path).close()
  assert Search(path=path)('weave') == 'Nothing found.'
  assert Search(path=path)('stew') == 'stew'


def test_an_index_that_breaks_later_answers_with_an_error(tmp_path):
  search = Search(PAGES, tmp_path / 'pages.db')
  search.close()
  assert search('weave').startswith('Error: ')


def test_a_path_that_holds_no_index_is_refused(tmp_path):
  (tmp_path / 'notes.txt').write_text('not a database, however long it may be' * 99)
  for path in (tmp_path / 'notes.txt', tmp_path / 'missing' / 'pages.db', tmp_path / 'new.db'):
    with pytest.raises(InputError, match=path.name):
      Search(path=path)


def test_a_python_without_fts5_is_told_the_remedy(monkeypatch):
  class Plain(sqlite3.Connection):
    def execute(self, statement, *arguments):
      if 'fts5(' in statement:
        raise sqlite3.OperationalError('no such module: fts5')
      return super().execute(statement, *arguments)

  connect = sqlite3.connect
  monkeypatch.setattr(search_lib.sqlite3, 'connect',
                      lambda *args, **options: connect(*args, factory=Plain, **options))
  with pytest.raises(InputError, match="ENABLE_FTS5.*python.org's"):
    Search(PAGES)


def test_pages_from_json_lines(tmp_path):
  path = tmp_path / 'pages.jsonl'
  rows = [{'id': 'a', 'title': 'Soup', 'text': 'Hot.'}, {'text': 'Stew', 'body': 'Cold.'}]
  path.write_text('\n\n'.join(json.dumps(row) for row in rows))
  search = Search.from_jsonl(path, k=2)
  assert search('soup') == 'Hot.'
  assert search('stew') == 'Stew'
  path.write_text('{"body": "Cold.", "title": null}')
  assert Search.from_jsonl(path, 'body')('cold') == 'Cold.'


@pytest.mark.parametrize('line, reason', [
    (b'{"text": ', 'line 3 is not JSON'),
    (b'\xff\xfe', 'line 3 is not JSON'),
    (b'{"txt": "a"}', "line 3 has no text in a field 'text'"),
    (b'{"text": 3}', "line 3 has no text in a field 'text'"),
    (b'{"text": null}', "line 3 has no text in a field 'text'"),
    (b'{"text": ["a"]}', "line 3 has no text in a field 'text'"),
    (b'["text"]', "line 3 has no text in a field 'text'"),
    (b'3', "line 3 has no text in a field 'text'"),
])
def test_bad_json_lines_name_file_and_line(tmp_path, line, reason):
  path = tmp_path / 'pages.jsonl'
  path.write_bytes(b'{"text": "soup"}\n\n' + line + b'\n{"text": "stew"}\n')
  with pytest.raises(InputError, match=f'pages.jsonl {reason}'):
    Search.from_jsonl(path)


def test_a_missing_file_and_bad_sizes_are_refused(tmp_path):
  with pytest.raises(InputError, match='gone.jsonl cannot be read'):
    Search.from_jsonl(tmp_path / 'gone.jsonl')
  for options in ({'k': 0}, {'chars': 19}):
    with pytest.raises(InputError, match='k of 1 or more and chars of 20 or more'):
      Search(PAGES, **options)
