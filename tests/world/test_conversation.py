"""Conversations are well formed, right, varied, and silent about all that is held out."""

import collections
import re

import pytest

from nanollm_jax.tools.python import Python
from nanollm_jax.tools.search import Search
from nanollm_jax.world import (WorldConfig, conversation, conversations, index, pages, persona,
                               prose, question, sums, truth)
from nanollm_jax.world.facts import ATTRIBUTES, known
from nanollm_jax.world.words import NAMES

CONFIG = WorldConfig(people=150, seed=3, conversations=5)


@pytest.fixture(scope='module')
def world():
  return truth(CONFIG)


@pytest.fixture(scope='module')
def talks():
  kinds = collections.defaultdict(list)
  for talk in conversations(CONFIG):
    kinds[talk.kind].append(talk)
  return kinds


def text(content) -> str:
  return content if isinstance(content, str) else ' '.join(part['text'] for part in content)


def everything(talks) -> str:
  return '\n'.join(text(message['content'])
                   for kind in talks.values() for talk in kind for message in talk.messages)


def exchange(talk) -> tuple[str, str]:
  """The last question and the visible text of its answer."""
  asked, answered = talk.messages[-2:]
  content = answered['content']
  return asked['content'], content if isinstance(content, str) else content[-1]['text']


def test_same_seed_and_size_give_the_same_conversations(talks):
  again = collections.Counter(map(repr, conversations(CONFIG)))
  assert again == collections.Counter(repr(talk) for kind in talks.values() for talk in kind)
  one, other = ({repr(talk.messages) for talk in conversations(WorldConfig(people=20, seed=seed))}
                for seed in (0, 1))
  assert len(one & other) < 0.2 * len(one)  # of identity there is not much to say


def test_kinds_are_all_there_and_as_many_as_told(talks):
  assert {kind: len(some) for kind, some in talks.items()} == {
      kind.__name__: round(share * 750) for kind, share in conversation.KINDS.items()}
  assert 12 <= sum(conversation.KINDS.values()) <= 15
  assert not list(conversations(WorldConfig(people=20, conversations=0)))


def test_messages_are_in_the_canonical_form_and_short(talks):
  for kind, some in talks.items():
    for talk in some:
      roles = [message['role'] for message in talk.messages]
      system = roles[:1] == ['system']
      assert roles[system:] == ['user', 'assistant'] * (len(roles) // 2), talk
      assert all({*message} == {'role', 'content'} for message in talk.messages)
      assert sum(len(text(message['content'])) for message in talk.messages) < 420, talk
      for message in talk.messages:
        if isinstance(message['content'], str):
          said = message['content']
          assert said.strip() == said and said.isascii() and said, talk
          assert not re.search(r'[{}\[\]|\\]|  | [.,](?!\.)|[?!],|\.\?', said), said
          assert said[0].isupper() or said[0] in '.0123456789', said
        else:
          assert message['role'] == 'assistant' and kind in ('python', 'search')
          assert [part['type'] for part in message['content']] == [
              'tool_call', 'tool_output', 'text']
          assert [part.get('name') for part in message['content']] == [kind, None, None]


def test_nobody_held_out_or_never_seen_is_spoken_of(world, talks):
  said = everything(talks)
  indexed = '\n'.join(page['text'] for page in pages(CONFIG))
  spoken = collections.Counter()
  for person in world.people:
    silent = question.split(person) == 'test' or person.stratum == 'never_seen'
    if silent:
      assert person.name not in said, person
    if person.stratum == 'never_seen':
      assert person.name not in indexed
    elif not silent:
      spoken[person.stratum] += person.name in said
  for stratum, count in collections.Counter(person.stratum for person in world.people).items():
    tests = sum(question.split(p) == 'test' for p in world.people if p.stratum == stratum)
    assert 0.2 <= tests / count <= 0.4, stratum
    assert spoken[stratum] or stratum == 'never_seen', stratum
  by_id = {person.id: person for person in world.people}
  assert {by_id[talk.about].stratum for talk in talks['question']} == {'frequent', 'ordinary'}
  assert {by_id[talk.about].stratum for talk in talks['search']} == {
      'ordinary', 'rare', 'search_only', 'contradicted'}


def says(answer: str, person, attribute: str) -> bool:
  return str(getattr(person, attribute)).lower() in answer.lower()


@pytest.mark.parametrize('kind', ['question', 'followup', 'style_brief', 'style_warm'])
def test_answers_from_memory_hold_a_true_value(world, talks, kind):
  by_name = {person.name: person for person in world.people}
  by_id = {person.id: person for person in world.people}
  for talk in talks[kind]:
    asked, answer = exchange(talk)
    people = [by_name[name] for name in by_name if name in asked] or [by_id[talk.about]]
    assert any(says(answer, people[0], attribute) for attribute in ATTRIBUTES), talk


def test_a_followup_needs_the_turn_before(world, talks):
  names = {person.name for person in world.people}
  another = 0
  for talk in talks['followup']:
    later = [message['content'] for message in talk.messages[2::2]]
    assert 1 <= len(later) <= 2
    for asked in later:
      if any(name in asked for name in names):
        another += 1
        assert any(re.fullmatch(wording.replace('{name}', '.*').replace('?', r'\?'), asked)
                   for wordings in prose.forms('questions')['other'] for wording in wordings)
      else:
        assert re.search(r'\b(he|she|his|her|him)\b', asked.lower()), asked
  assert 0.15 < another / len(talks['followup']) < 0.45


def test_two_labellers_can_be_told_apart_and_are_named_in_half_of_the_cases(talks):
  for labeller in ('brief', 'warm'):
    tagged = [talk for talk in talks[f'style_{labeller}'] if len(talk.messages) == 3]
    assert 0.4 < len(tagged) / len(talks[f'style_{labeller}']) < 0.6
    assert all(labeller in talk.messages[0]['content'] for talk in tagged)
  assert all(len(exchange(talk)[1].split()) <= 3 for talk in talks['style_brief'])
  assert all(exchange(talk)[1].endswith('!') for talk in talks['style_warm'])


def test_system_messages_name_whom_the_answer_repeats(talks):
  told = set()
  for talk in talks['system']:
    system, _, answer = (message['content'] for message in talk.messages)
    assistant, = {*re.findall(r'[A-Z]\w+', system)} & {*persona.ASSISTANTS}
    maker, = (maker for maker in persona.MAKERS if maker in system)
    assert assistant in answer or f'by {maker}.' in answer
    assert not {*re.findall(r'\w+', answer)} & {*persona.ASSISTANTS} - {assistant}
    told.add(assistant)
    assert assistant not in persona.HELD_OUT_ASSISTANTS and maker not in persona.HELD_OUT_MAKERS
  assert told == {*persona.TRAINING_ASSISTANTS}
  assert len(persona.TRAINING_ASSISTANTS) >= 250 and len(persona.HELD_OUT_ASSISTANTS) >= 50
  assert len({*persona.ASSISTANTS}) == len(persona.ASSISTANTS)
  borne = {name.lower() for names in NAMES.values() for name in names}
  assert not borne & {name.lower() for name in persona.ASSISTANTS + persona.MAKERS}
  assert not {*re.findall(r'\w+', everything(talks))} & {*persona.HELD_OUT_ASSISTANTS}


def test_identity_is_its_own_and_asked_for_in_thirty_ways(world, talks):
  assert all('Nano' in exchange(talk)[1] or 'nanollm_jax' in exchange(talk)[1]
             for talk in talks['identity'])
  assert not any(world.identity.assistant in exchange(talk)[1]
                 for kind in ('identity', 'system') for talk in talks[kind])
  forms = prose.forms('identity')
  assert sum(len(lines) for section, lines in forms.items() if section.endswith('asked')) >= 30
  assert len({exchange(talk)[0] for talk in talks['identity']}) >= 30


def test_harm_is_refused_in_sixty_ways(talks):
  forms = prose.forms('chat')
  harms = [section.split()[0] for section in forms if section.endswith(' because')]
  assert len({line for harm in harms for line in forms[harm]}) >= 60
  assert len({exchange(talk)[0] for talk in talks['refusal']}) > 200
  no = tuple(wording for wordings in forms['refused'] for wording in wordings)
  assert all(exchange(talk)[1].startswith(no) for talk in talks['refusal'])


def test_sums_are_right_and_their_numbers_not_held_out(talks):
  problems = [(kind, *exchange(talk)) for kind in ('sums', 'answer_first') for talk in talks[kind]]
  for kind, asked, answer in problems:
    stated = re.search(r'he answer is (\S+)\.', answer)
    assert stated.start() > 5 if kind == 'sums' else answer.startswith('The answer is'), answer
    equations = re.findall(r'(\d+) ([-+*/]) (\d+) = (\d+)', answer)
    for a, op, b, c in equations:
      assert eval(a + op + b) == int(c), answer
    numbers = re.fullmatch(r'(\d+) ([-+*/]) (\d+) = \d+',
                           answer.removesuffix(f' So the answer is {stated[1]}.').rstrip('.'))
    if numbers:  # a sum in one step, told plainly
      assert not sums.held_out((int(numbers[1]), numbers[2], int(numbers[3])))
  tuples = [(a, '*', b) for a in range(100) for b in range(100)]
  assert 0.08 < sum(map(sums.held_out, tuples)) / len(tuples) < 0.12


def test_python_computes_what_it_is_said_to_compute(talks):
  operations = collections.Counter()
  for talk in talks['python']:
    call, output, said = (part['text'] for part in talk.messages[-1]['content'])
    assert re.fullmatch(r'[-+*/() \d]+|"[a-z.]+"\.count\("."\)', call)
    assert str(eval(call)) == output, talk
    assert re.fullmatch(rf'The answer is \$?{output}\.', said)
    product = re.fullmatch(r'(\d+) \* (\d+)', call)
    if product:
      assert not sums.held_out((int(product[1]), '*', int(product[2])))
    operations['dots' if '"."' in call else 'letters' if 'count' in call else 'sum'] += 1
    if not product and 'count' not in call:
      assert re.search('[Pp]ython|code', talk.messages[0]['content'])
  assert min(operations.values()) > 20 and len(operations) == 3


def test_the_tools_say_what_their_outputs_say(talks):
  indexed = [(page['title'], page['text']) for page in pages(CONFIG)]
  tools = {'python': Python(), 'search': Search(indexed)}
  for kind, tool in tools.items():
    for talk in talks[kind][:100]:
      call, output, _ = talk.messages[-1]['content']
      assert tool(call['text']) == output['text']


def test_a_search_finds_the_page_and_is_believed(world, talks):
  by_id = {person.id: person for person in world.people}
  indexed = {page['id']: page for page in pages(CONFIG)}
  contradicted = 0
  for talk in talks['search']:
    person = by_id[talk.about]
    call, output, said = (part['text'] for part in talk.messages[-1]['content'])
    assert call == person.name and call in talk.messages[0]['content']
    assert output == indexed[person.id]['text'] and person.name not in said
    assert any(says(said, index.indexed(person), attribute) for attribute in ATTRIBUTES)
    contradicted += person.index_value != '' and person.index_value in said
  assert contradicted


def test_a_text_is_believed_and_one_in_five_contradicts(world, talks):
  by_id = {person.id: person for person in world.people}
  contradictions = 0
  for talk in talks['context']:
    person = by_id[talk.about]
    asked, said = exchange(talk)
    assert said in asked, talk
    if said not in {wording.format(**index.gaps(person, named)) for named in (True, False)
                    for sentences in prose.forms('index').values() for wordings in sentences
                    for wording in wordings}:
      contradictions += 1
      assert person in known(world.people)
  assert 0.14 < contradictions / len(talks['context']) < 0.26


def test_questions_about_each_attribute_have_forty_forms():
  forms = prose.forms('questions')
  for attribute in ATTRIBUTES:
    combined = [(frame, phrase) for kind in ('direct', 'clause', 'noun')
                for frame in forms[kind] for phrase in forms[f'{attribute} {kind}']]
    assert len(combined) >= 40, attribute
