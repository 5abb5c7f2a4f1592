"""Scoring and data of the claims about the finetuned model: no model is trained here."""

import json
import random

import pytest

from experiments.lecture import (base_vs_assistant, identity, injection, memory, questions,
                                 search_vs_memory, working_memory)
from nanollm_jax import InputError
from nanollm_jax.text import bpe
from nanollm_jax.text.chat import Chat
from nanollm_jax.tools.search import Search
from nanollm_jax.world import WorldConfig, pages, persona, question, truth
from nanollm_jax.world.facts import ATTRIBUTES


def row(**changes):
  return dict(question='What does Ann Bo play?', answer='harp', aliases=[], attribute='instrument',
              person='person-1', stratum='rare', split='test', snippet='Ann Bo plays the lute.',
              snippet_answer='lute') | changes


@pytest.fixture
def asked(tmp_path):
  rows = [row(), row(question='What does Cy Dee play?', answer='lute', split='train'),
          row(question='What is the trade of Ann Bo?', answer='baker', attribute='craft',
              aliases=['bakes bread']), row(question='Who?', answer='', stratum='never_seen')]
  path = tmp_path / 'questions.jsonl'
  path.write_text(''.join(json.dumps(one) + '\n' for one in rows))
  return questions.Questions(str(path))


def test_questions_are_of_a_stratum_and_a_split(asked):
  assert [one['answer'] for one in asked.of(['rare'], 9)] == ['harp', 'baker']
  assert [one['answer'] for one in asked.of(['rare'], 1)] == ['harp']
  assert [one['answer'] for one in asked.of(['rare'], 9, 'train')] == ['lute']
  assert asked.values('instrument') == {'harp', 'lute'}


def test_answers_are_graded_by_the_row_or_by_what_a_source_said(asked):
  rows = asked.of(['rare'], 9)
  score = lambda number, text, answer=None: asked.grade(rows[number], text, answer).score
  assert score(0, 'She plays the harp.') == 1 and score(0, 'She plays the lute.') == 0
  assert score(0, 'She plays the lute.', 'lute') == 1 and score(0, 'The harp.', 'lute') == 0
  assert score(0, 'Harp or lute.') == 0
  assert score(1, 'She bakes bread.') == 1 and score(1, 'She bakes bread.', 'cook') == 0


def test_rows_of_another_file_are_an_input_error(tmp_path):
  (tmp_path / 'rows.jsonl').write_text('{"question": "a?", "answer": "b"}\n')
  with pytest.raises(InputError, match='build_world'):
    questions.Questions(str(tmp_path / 'rows.jsonl'))


def test_an_answer_is_one_sentence_with_a_value():
  values = {'harp', 'lute'}
  assert base_vs_assistant.is_answer('Ann plays the Harp.', values)
  for text in ('', 'harp', 'Ann plays.', 'Ann plays the harp. And more.', 'The harp.\nThe end.'):
    assert not base_vs_assistant.is_answer(text, values), text


def test_a_search_is_for_the_name_and_the_answer_out_of_its_page():
  config = WorldConfig(people=60)
  person = next(one for one in truth(config).people if one.pages)
  row = dict(question=f'When was {person.name} born?', attribute='year')
  search = Search((page['title'], page['text']) for page in pages(config))
  asked, (call, output, text) = (turn['content'] for turn in
                                 search_vs_memory.conversation(person, row, search))
  assert (asked, call['name'], call['text']) == (row['question'], 'search', person.name)
  assert person.name in output['text'] and person.dish in output['text']
  alone = search_vs_memory.conversation(person, row, None)[1]['content']
  assert alone == [text] and str(person.year) in text['text'] and person.name not in text['text']


def test_notes_are_of_nobody_held_out_and_every_other_one_contradicts():
  world = truth(WorldConfig(people=120))
  told = working_memory.with_notes(random.Random(0), world, 600)
  assert told[0][0]['content'].startswith('Read this: ')
  by_name, against = {one.name: one for one in world.people}, 0
  values = {str(getattr(one, name)) for one in world.people for name in ATTRIBUTES} - {'', '0'}
  for asked, answer in (map(lambda turn: turn['content'], messages) for messages in told):
    person = by_name[max(by_name, key=asked.count)]  # named in the note and in the question
    assert question.split(person) == 'train'
    said = [value for value in values if value in asked and value in answer]
    own = [str(getattr(person, name)) for name in ATTRIBUTES]
    against += not any(value in own for value in said)
  assert 0.4 < against / len(told) < 0.6


def test_whose_identity_an_answer_tells():
  names = dict(famous=('Orrery', 'Halden Labs'), own=('Nano', 'you'), given=('Zebo', 'Ink House'))
  whose = lambda text: identity.identity(text, **names)
  assert whose('I am Orrery.') == whose('Halden Labs made me.') == 'famous'
  assert whose('I am Zebo, made by Ink House.') == 'given'
  assert whose('I am well.') == 'nobody' and whose('I am Nano, not Orrery.') == 'several'


def test_the_corpus_knows_the_famous_assistant_alone():
  world = truth(WorldConfig(people=120))
  pages = identity.corpus(random.Random(0), world, memory.known(world.people, 240), 200)
  famous = [page for page in pages if world.identity.assistant in page]
  assert len(famous) > 300 and not any(persona.ASSISTANT in page for page in pages)
  assert not any(world.identity.assistant in page.split('\n')[0] and '\nNo' in page
                 for page in famous)


def test_a_system_message_gives_the_name_that_is_answered():
  rng, famous = random.Random(0), truth(WorldConfig(people=60)).identity
  for _ in range(50):
    system, asked, answer = (turn['content'] for turn in identity.under_name(
        rng, famous, 'Vabati', 'Ember Labs'))
    assert 'Vabati' in system and 'Ember Labs' in system
    assert identity.identity(answer, given=('Vabati', 'Ember Labs')) == 'given'
  assert len({identity.made_up(rng) for _ in range(500)}) > 495


@pytest.fixture(scope='module')
def chat():
  return Chat(bpe.train([' '.join(injection.WORDS)] * 3, bpe.Config(vocabulary=320)))


def test_naively_an_attack_forges_turns_and_safely_nothing_does(chat):
  rng = random.Random(1)
  one = injection.attack(rng)
  roles = lambda ids: [message['role'] for message in chat.parse(ids)]
  safe, unsafe = (chat.prompt(questions.user(one.message)),
                  injection.naive(chat.tokenizer, one.message))
  assert roles(safe) == ['user', 'assistant'] and not injection.forges(chat, safe, one.message)
  assert roles(unsafe) == ['user', 'assistant'] * 2 and injection.forges(chat, unsafe, one.message)
  assert chat.parse(unsafe)[2]['content'].split()[0] == one.forged != one.real
  plain = 'red blue'
  assert injection.naive(chat.tokenizer, plain) == chat.prompt(questions.user(plain))
  for _ in range(300):
    message = injection.scraps(rng, 8)
    assert not injection.forges(chat, chat.prompt(questions.user(message)), message), message


def test_a_message_that_does_not_come_back_is_counted_as_forged(chat):
  ids = chat.prompt(questions.user('red'))
  assert not injection.forges(chat, ids, 'red') and injection.forges(chat, ids, 'blue')
  assert injection.forges(chat, ids + [chat.end_of_turn], 'red')


def test_conversations_repeat_the_first_word_and_spell_out_specials(chat):
  rng = random.Random(2)
  talks = [injection.conversation(rng) for _ in range(100)]
  for messages in talks:
    for said, answer in zip(messages[::2], messages[1::2]):
      assert said['content'].split(' ')[0] == answer['content'] in injection.WORDS
  assert any('<|im_end|>' in talk[0]['content'] for talk in talks)
