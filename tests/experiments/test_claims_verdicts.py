"""The verdicts of the claims: which accuracies prove them, and that no arm is taken for another.

What models would have answered is given; nothing is trained.
"""

import dataclasses
import json
import pathlib
import re
import types

import pytest

from experiments.lecture import (answer_first, arm, base_vs_assistant, calculator, claim,
                                 count_dots, identity, injection, jagged, memory,
                                 search_vs_memory, spelling, think_tokens, working_memory)
from experiments import workdir
from nanollm_jax.text import bpe
from nanollm_jax.text.chat import Chat
from nanollm_jax.world import WorldConfig, persona, questions as questions_of


def graded(share, **more):
  """100 rows as of `generative.evaluate`, of which a share is right."""
  return [dict(question='?', completion='Answer: 7.', answer='7', score=float(number < 100 * share),
               valid=True, kind='3', length=5) | more for number in range(100)]


@pytest.fixture
def concluded(monkeypatch, tmp_path):
  """A function: a claim and the rows of its arms to what it has concluded."""
  def run(module, rows):
    monkeypatch.setattr(arm, 'taught', lambda task, count: [])
    monkeypatch.setattr(arm, 'vocabulary', lambda folder, conversations, size: 'words')
    monkeypatch.setattr(arm, 'compare', lambda _, arms, *__: {name: rows[name] for name in arms})
    monkeypatch.setattr(claim.report, 'picture', lambda *_, **__: None)
    module.main(module.Config(workdir=str(tmp_path)))
    name = module.__name__.split('.')[-1]
    return json.loads((tmp_path / 'lecture' / f'{name}.json').read_text())
  return run


@pytest.mark.parametrize('module, good, otherwise', [
    (calculator, {'mental': .1, 'python': 1},
     [{'mental': 1, 'python': .1}, {'mental': 1}, {'python': .5}]),
    (think_tokens, {'8 of 8': 1, '4 of 8': .5, '2 of 8': .2, '1 of 8': .1, '8 dots': .1},
     [{'8 of 8': .1, '1 of 8': 1}, {'8 of 8': .8}, {'1 of 8': .5}, {'8 dots': .5}]),
    (answer_first, {'steps': 1, 'answer_first': .1, 'direct': .1},
     [{'steps': .1, 'answer_first': 1}, {'steps': .5}, {'answer_first': .5},
      {'answer_first': .99, 'direct': 1}])],
    ids=lambda value: getattr(value, '__name__', None))
def test_a_claim_holds_as_expected_and_in_no_other_way(concluded, module, good, otherwise):
  for shares in ({}, *otherwise):
    rows = {name: graded(share) for name, share in (good | shares).items()}
    assert concluded(module, rows)['holds'] == (not shares), shares


def test_dots_are_hidden_only_by_tokens_that_were_never_counted(concluded):
  def holds(in_tokens=.1, apart=1, tool=.99, counted=1):
    with_counted = lambda share: graded(share) + graded(counted, kind='0')
    return concluded(count_dots, {'dots in tokens': with_counted(in_tokens),
                                  'dots apart': with_counted(apart),
                                  'Python': with_counted(tool)})['holds']
  assert holds()
  assert not holds(in_tokens=.5) and not holds(apart=.5) and not holds(tool=.5)
  assert not holds(in_tokens=1, apart=.1) and not holds(counted=.5)


def test_letters_are_seen_only_where_they_are_spelled(concluded):
  def holds(third=.4, count=.5, third_spelled=1, count_spelled=1):
    rows = lambda third, count: (graded(third, question='Write every third letter of abc.')
                                 + graded(count, question='How many times does b stand in abc?'))
    return concluded(spelling, {'at once': rows(third, count),
                                'spelled first': rows(third_spelled, count_spelled)})['holds']
  assert holds() and holds(count=.1)
  assert not holds(third=1, third_spelled=.2) and not holds(third=.8) and not holds(count=.8)
  assert not holds(third_spelled=.5) and not holds(count_spelled=.8)


def test_a_share_of_all_is_not_certain():
  assert claim.share([True] * 16) == (1, pytest.approx((.9 * .1 / 20) ** .5))
  assert claim.share([True, False] * 8)[0] == .5


def test_justified_are_wrong_answers_in_the_asked_form(concluded):
  told = [('Answer: 7. 3 + 4 = 7.', 1, True), ('Answer: 4. 3 + 1 = 4.', 0, True),
          ('Answer: 5. 3 + 1 = 4.', 0, True), ('4, 4, I think.', 0, False)]
  first = [graded(0, completion=text, score=float(score), valid=valid)[0]
           for text, score, valid in told]
  found = concluded(answer_first, {'steps': graded(1), 'answer_first': first, 'direct': graded(0)})
  assert 'of 2 wrong answers the steps behind justify 50%' in found['measured']


def test_the_value_and_its_full_stop_are_no_tokens_to_think(concluded):
  rows = {f'{told} of 8': graded(0, length=told + 1) for told in (1, 2, 4, 8)}
  found = concluded(think_tokens, rows | {'8 dots': graded(0, length=11)})
  assert [row['tokens before the answer'] for row in found['rows']] == [7, 3, 1, 0, 9]


WORLD = WorldConfig(people=120)
ROWS = {row['question']: row for row in questions_of(WORLD) if row['snippet']}


@pytest.fixture
def told(monkeypatch, tmp_path):
  """A function: a claim about models, its flags and how they answer, to what it has concluded.

  answer: (which model, the last message, what else is known) to a text; one without an end is not
  finished, and what stands before a '|' was no model's own.
  """
  def run(module, answer, **options):
    class Answers:
      chat = types.SimpleNamespace(visible=lambda ids: ids.split('|')[-1], parse_turn=str)

      def __init__(self, opened, slots=0):
        pass

      def ask(self, params, prompts, tools=None, sampling=None):
        texts = [answer(params, prompt if isinstance(prompt, str) else prompt[-1]['content'],
                        bool(tools), '' if isinstance(prompt, str) else prompt[0]['content'])
                 for prompt in prompts]
        return [types.SimpleNamespace(ids=text, finished=text.endswith('.'),
                                      sampled=['|' not in text]) for text in texts]

      def texts(self, *args, **named):
        return [self.chat.visible(one.ids) for one in self.ask(*args, **named)]

    def opened(folder, conversations=(), *_, **__):
      run.learned[pathlib.Path(folder).name] = conversations
      return types.SimpleNamespace(params=pathlib.Path(folder).name)
    run.learned = {}
    for module_, name in ((arm, 'train'), (arm, 'fresh'), (workdir, 'open_model')):
      monkeypatch.setattr(module_, name, opened)
    monkeypatch.setattr(memory, 'read', lambda folder, *_, **__: str(folder))
    monkeypatch.setattr(arm, 'vocabulary', lambda *_: 'words')
    monkeypatch.setattr(arm, 'Answers', Answers)
    monkeypatch.setattr(claim.report, 'picture', lambda *_, **__: None)
    module.main(module.Config(workdir=str(tmp_path), **options))
    name = module.__name__.split('.')[-1]
    return json.loads((tmp_path / 'lecture' / f'{name}.json').read_text())
  return run


def test_a_base_model_goes_on_where_an_assistant_answers(told):
  goes_on, answers = (lambda text: f'plays the {text} and', lambda text: f'It is {text}.')
  def holds(**changes):
    says = dict(base=goes_on, assistant=answers) | changes
    return told(base_vs_assistant, lambda model, text, *_: says[model](ROWS[text]['answer']),
                world=WORLD, people=60)['holds']
  assert holds()
  assert not holds(base=answers, assistant=goes_on) and not holds(base=answers)
  assert not holds(assistant=goes_on) and not holds(assistant=lambda text: 'I do not know.')
  assert not holds(assistant=lambda text: f'It is old. {text} is it.')
  unfinished = told(base_vs_assistant, lambda model, text, *_: f'It is {ROWS[text]["answer"]}!',
                    world=WORLD, people=60)
  assert [row['an answer'] for row in unfinished['rows']] == [0, 0]
  assert not any(row['question'] in str(told.learned['assistant'])
                 for row in ROWS.values() if row['split'] == 'test')


def test_notes_are_followed_against_memory(told):
  recipe = dataclasses.replace(working_memory.Config().recipe, conversations=9)
  def holds(alone, noted=lambda row: row['snippet_answer']):
    def answer(model, text, *_):
      asked = next(asked for asked in (text, *ROWS) if text.endswith(asked) and asked in ROWS)
      return (alone if asked == text else noted)(ROWS[asked])
    return told(working_memory, answer, world=WORLD, recipe=recipe)['holds']
  right = lambda row: row['answer']
  told_often = lambda row: right(row) if row['stratum'] in ('frequent', 'contradicted') else '?'
  assert holds(told_often)
  assert not holds(told_often, noted=right)  # from memory alone
  assert not holds(told_often, noted=lambda row: '?')
  assert not holds(right) and not holds(lambda row: '?')
  assert [row['people'] for row in told(working_memory, lambda *_: '?', recipe=recipe,
                                        world=WorldConfig(people=20))['rows']] == [
      'ordinary', 'rare', 'search_only']  # with nobody of the others to ask


def test_a_search_finds_what_no_parameter_holds(monkeypatch, tmp_path):
  config = search_vs_memory.Config(workdir=str(tmp_path), people=60, recipe=dataclasses.replace(
      search_vs_memory.Config().recipe, conversations=60, trials=20))
  learned, rows = {}, {row['question']: row for row in questions_of(WorldConfig(people=60))}
  monkeypatch.setattr(arm, 'vocabulary', lambda *_: 'words')
  monkeypatch.setattr(claim.report, 'picture', lambda *_, **__: None)

  def fresh(folder, conversations, recipe, words):
    learned[pathlib.Path(folder).name] = conversations
    return types.SimpleNamespace(params=pathlib.Path(folder).name)
  monkeypatch.setattr(arm, 'fresh', fresh)

  def found(answer):
    class Answers:
      def __init__(self, *_, **__):
        pass

      def texts(self, params, prompts, tools=None, sampling=None):
        return [answer(params, rows[prompt[-1]['content']], tools) for prompt in prompts]
    monkeypatch.setattr(arm, 'Answers', Answers)
    search_vs_memory.main(config)
    return json.loads((tmp_path / 'lecture' / 'search_vs_memory.json').read_text())
  told = found(lambda model, row, tools: row['answer'] if tools or row['split'] == 'train' else '?')
  assert told['holds'] and [row['right'] for row in told['rows']] == [1, 0, 1, 1]
  assert not found(lambda model, row, tools: row['answer'])['holds']
  assert not found(lambda model, row, tools: '?' if tools else row['answer'])['holds']
  assert not found(lambda model, row, tools: row['answer'] if row['split'] == 'train' else '?')['holds']
  tested = {row['question'] for row in rows.values() if row['split'] == 'test'}
  assert len(learned['search']) == 60 == len(learned['memory'])
  assert not tested & {one[0]['content'] for one in learned['memory'] + learned['search']}


def test_a_model_is_who_it_is_told_to_be(told):
  asked = set()
  def given(system):
    found = re.search(r'\b([bdfgklmnprstvz][aeiou]){3}\b', system, re.IGNORECASE)
    asked.update([found[0]] if found else [])
    return system if found else persona.ASSISTANT
  def holds(**changes):
    says = dict(base=lambda _: 'Orrery', untold=lambda _: 'Orrery', taught=given) | changes
    return told(identity, lambda model, text, _, system: f'I am {says[model](system)}.',
                world=WORLD, samples=3, names=300, threads=2)['holds']
  assert holds() and holds(base=lambda _: 'well')
  assert len(asked) == 24 and not any(name in str(told.learned['taught']) for name in asked)
  assert persona.ASSISTANT not in str(told.learned['untold'])
  assert not holds(untold=lambda _: persona.ASSISTANT) and not holds(untold=lambda _: 'well')
  assert not holds(untold=given, taught=lambda _: 'Orrery')
  assert not holds(taught=lambda _: persona.ASSISTANT)  # also under a system message
  for missing in (lambda system: re.sub('[mM]a[dk]e[^.]*', '', system),
                  lambda system: re.sub('(am|as|are|Name:|is|called) [A-Z][a-z]*', 'Kobalu', system)):
    assert not holds(taught=lambda system: missing(given(system)))


def test_skills_are_ragged_by_more_than_chance(told):
  recipe = jagged.Config().recipe
  problems = jagged.problems_by_kind(8)
  kinds = {one.question: (kind, at, one.answer) for kind, group in problems.items()
           for at, one in enumerate(group)}
  def holds(of_the_worst):
    def answer(model, question, *_):
      kind, at, right = kinds[question]
      return f'So the answer is {right if kind != "days" or at < of_the_worst else "x"}.'
    return told(jagged, answer, recipe=dataclasses.replace(recipe, trials=8))['holds']
  assert [holds(right) for right in (0, 2, 8)] == [True, False, False]


def test_a_forged_turn_is_obeyed_where_it_is_one(monkeypatch, tmp_path):
  words = bpe.train([' '.join(injection.WORDS)] * 3, bpe.Config(vocabulary=320))
  chat = Chat(words)

  class Engine:
    """An assistant that repeats the first word of the last message."""
    def __init__(self, *_, **__):
      pass

    def generate(self, params, prompts, sampling):
      last = [chat.parse(prompt)[-2]['content'].split()[0] for prompt in prompts]
      return [types.SimpleNamespace(ids=words.encode(word)) for word in last]
  monkeypatch.setattr(arm, 'vocabulary', lambda *_: '')
  monkeypatch.setattr(arm, 'train', lambda *_, **__: types.SimpleNamespace(
      model=None, params=None, tokenizer=words))
  monkeypatch.setattr(injection, 'Engine', Engine)
  injection.main(injection.Config(workdir=str(tmp_path), attacks=20, fuzzed=50))
  found = json.loads((tmp_path / 'lecture' / 'injection.json').read_text())
  safe, naive = found['rows']
  assert found['holds'] and (safe['forged'], safe['obeyed'], safe['not fooled']) == (0, 0, 1)
  assert (naive['forged'], naive['obeyed'], naive['not fooled']) == (20, 1, 0)
