"""The files of sentence forms: how they are read, what is refused, and that all of it is heard."""

import random
import re

import pytest

from nanollm_jax import InputError
from nanollm_jax.world import WorldConfig, conversations, documents, pages, prose

CONFIG = WorldConfig(people=150, seed=3, conversations=5)


@pytest.mark.parametrize('read, line', [
    (prose.forms, 'A [one|two] and [three'), (prose.forms, 'A [one] and {two}'),
    (prose.forms, 'A {gap without end'), (prose.forms, 'A {} gap'), (prose.forms, '[[a|b]|c]'),
    (prose.lists, 'one,, two'), (prose.tables, 'one two')])
def test_a_malformed_line_is_named(tmp_path, monkeypatch, read, line):
  monkeypatch.setattr(prose, 'FOLDER', tmp_path)
  (tmp_path / 'bad.txt').write_text(f'# comment\n\n[some forms]\nA sentence: this\n{line}\n')
  with pytest.raises(InputError, match=r'bad\.txt, line 5, .*' + re.escape(line)):
    read('bad')
  (tmp_path / 'bad.txt').write_text('A sentence without a section.\n')
  with pytest.raises(InputError, match=r'bad\.txt, line 1, .*\[section\]'):
    read('bad')


def test_forms_choose_and_fill_and_say_what_nothing_fills(tmp_path, monkeypatch):
  monkeypatch.setattr(prose, 'FOLDER', tmp_path)
  (tmp_path / 'good.txt').write_text('[a b]\n[So|Thus] {x} [goes|went] on.\n# no\n\n[c]\n[|]\n')
  assert prose.forms('good') == {
      'a b': (('So {x} goes on.', 'So {x} went on.', 'Thus {x} goes on.', 'Thus {x} went on.'),),
      'c': (('', ''),)}
  assert prose.say(random.Random(0), (('{x}!',),), {'x': 'Ida'}) == 'Ida!'
  with pytest.raises(InputError, match='gap {x} of "{x}!"; the gaps known there are y'):
    prose.say(random.Random(0), (('{x}!',),), {'y': ''})


def test_biographies_and_sums_have_at_least_sixty_sentence_forms_each():
  for file in ('biography', 'sums'):
    assert sum(map(len, prose.forms(file).values())) >= 60


def documents_text() -> str:
  return '\n'.join(document.text for document in documents(CONFIG))


def conversations_text() -> str:
  contents = [message['content'] for talk in conversations(CONFIG) for message in talk.messages]
  said = [content if isinstance(content, str) else content[-1]['text'] for content in contents]
  return '\n'.join(said + [page['text'] for page in pages(CONFIG)])


@pytest.mark.parametrize('files, told', [
    (('biography', 'forum', 'places', 'plots', 'recipe', 'speech', 'story', 'sums', 'textbook'),
     documents_text), (('chat', 'identity', 'index', 'questions'), conversations_text)])
def test_every_sentence_form_is_heard(files, told):
  text = told().lower()  # what begins a sentence gets its capital late
  for file in files:
    for section, lines in prose.forms(file).items():
      for wordings in lines:
        inner = [re.sub(r'^({\w+})+|({\w+})+$', '', wording.lower()) for wording in wordings]
        heard = '|'.join('.+?'.join(map(re.escape, re.split(r'{\w+}', part))) for part in inner)
        assert re.search(heard, text), (file, section, wordings)
