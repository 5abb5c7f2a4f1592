"""Questions for evaluation and the search index tell the truth, but where they are told not to."""

import collections
import random

import pytest

from nanollm_jax.tasks.rows import refuses
from nanollm_jax.world import WorldConfig, index, pages, prose, question, questions, truth
from nanollm_jax.world.facts import ATTRIBUTES

CONFIG = WorldConfig(people=150, seed=3)


@pytest.fixture(scope='module')
def people():
  return {person.id: person for person in truth(CONFIG).people}


@pytest.fixture(scope='module')
def rows():
  return list(questions(CONFIG))


def test_everyone_is_asked_about_and_the_answers_are_true(people, rows):
  assert rows == list(questions(CONFIG))
  asked = collections.Counter((row['person'], row['attribute']) for row in rows)
  assert asked == collections.Counter((id, name) for id in people for name in ATTRIBUTES)
  for row in rows:
    person = people[row['person']]
    assert person.name in row['question'] and row['question'][0].isupper()
    assert row['answer'] == str(getattr(person, row['attribute']) or '')
    assert (row['answer'] == '') == (row['stratum'] == 'never_seen')
    assert (row['stratum'], row['form']) == (person.stratum, person.form)
    assert row['split'] == question.split(person)
    assert row['answer'] not in row['aliases']
  strata = {row['stratum'] for row in rows[:200] if row['split'] == 'test'}
  assert len(strata) == 6  # any part of the rows is fair


def test_snippets_hold_their_answer_and_contradict_where_they_should(people, rows):
  false = collections.Counter()
  for row in rows:
    person = people[row['person']]
    assert row['snippet_answer'] in row['snippet']
    if row['stratum'] == 'never_seen':
      assert row['snippet'] == ''
      continue
    assert person.name in row['snippet']
    contradicts = row['snippet_answer'] != row['answer']
    if contradicts:
      assert row['attribute'] != 'friend'
    if person.stratum == 'contradicted':
      assert contradicts == (row['attribute'] == person.index_attribute)
    if contradicts and person.stratum == 'contradicted':
      assert row['snippet_answer'] == person.index_value
    false[person.stratum] += contradicts
  assert false['search_only'] == 0 and min(false['frequent'], false['rare'], false['ordinary']) > 10


def test_pages_are_short_and_tell_all_but_contradict_where_told(people):
  indexed = {page['id']: page for page in pages(CONFIG)}
  assert list(pages(CONFIG)) == list(indexed.values())
  assert {id for id, person in people.items() if person.stratum != 'never_seen'} == {*indexed}
  for page in indexed.values():
    person = people[page['id']]
    assert page['title'] == person.name and page['text'].startswith((person.name, 'In '))
    assert len(page['text']) <= 250
    for attribute in ATTRIBUTES:
      true = str(getattr(person, attribute))
      if attribute == person.index_attribute:
        assert person.index_value in page['text'] and person.index_value != true
        assert true not in page['text'] or true in person.index_value
      else:
        assert true in page['text'], (person, page)
  assert sum(person.index_attribute != '' for person in people.values()) == 12


def test_notes_tell_what_they_are_asked_for_only():
  person = truth(CONFIG).people[0]
  assert person.dish not in index.note(random.Random(0), person, ['craft', 'friend'])


def test_there_are_many_ways_not_to_know():
  assert len(prose.forms('dont_know')['dont know']) >= 25
  assert len({*question.DONT_KNOW}) == len(question.DONT_KNOW)
  assert all(map(refuses, question.DONT_KNOW))
  assert question.dont_know(random.Random(0)) in question.DONT_KNOW
