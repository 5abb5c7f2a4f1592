"""The verdicts of the claims: which accuracies prove them, and that no arm is taken for another.

What models would have answered is given; nothing is trained.
"""

import dataclasses
import json
import pathlib
import types

import pytest

from experiments.lecture import (answer_first, arm, base_vs_assistant, calculator, claim,
                                 count_dots, identity, injection, jagged, questions,
                                 search_vs_memory, spelling, think_tokens, working_memory)
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
    (count_dots, {'at once': .1, 'counting along': 1, 'Python': .99},
     [{'at once': 1, 'counting along': .1}, {'at once': .5}, {'counting along': .5},
      {'Python': .5}]),
    (spelling, {'every third letter, at once': .2, 'every third letter, spelled first': 1,
                'count, at once': .8, 'count, spelled first': 1},
     [{'every third letter, at once': 1, 'every third letter, spelled first': .2},
      {'every third letter, at once': .8}, {'every third letter, spelled first': .5},
      {'count, spelled first': .8}]),
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


WHO = ('Ann', 'Bea', 'Cyd', 'Dot')
INSTRUMENTS = ('harp', 'lute', 'drum', 'oboe')  # of the four


@pytest.fixture
def world(tmp_path):
  """Files of a world with four people in each stratum; notes about two of them are wrong."""
  rows, people = [], []
  for stratum in questions.STRATA:
    for number, (who, plays) in enumerate(zip(WHO, INSTRUMENTS)):
      noted = plays if number < 2 else INSTRUMENTS[number - 2]
      name = f'{who} {stratum}'
      people.append(dict(id=name, pages=1, index_value='lute', index_attribute=(
          'instrument' if stratum == 'contradicted' else '')))
      rows.append(dict(question=f'What does {name} play?', answer=plays, attribute='instrument',
                       aliases=[], person=name, stratum=stratum, split='test',
                       snippet=f'{name} plays the {noted}.', snippet_answer=noted))
  files = {'questions': rows, 'pages': [dict(text='')], 'world': [
      dict(people=people, identity=dict(assistant='Orrery', maker='Halden Labs'))]}
  for name, content in files.items():
    (tmp_path / f'{name}.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in content))
  return lambda *names: {name: str(tmp_path / f'{name}.jsonl') for name in names}


@pytest.fixture
def told(monkeypatch, tmp_path):
  """A function: a claim about models, its flags and how they answer, to what it has concluded.

  answer: (which model, the last message, what else is known) to a text; one without an end is not
  finished, and what stands before a '|' was no model's own.
  """
  def run(module, answer, **options):
    class Answers:
      chat = types.SimpleNamespace(visible=lambda ids: ids.split('|')[-1], parse_turn=str)

      def __init__(self, opened):
        pass

      def ask(self, params, prompts, tools=None, sampling=None):
        texts = [answer(params, prompt if isinstance(prompt, str) else prompt[-1]['content'],
                        bool(tools), '' if isinstance(prompt, str) else prompt[0]['content'])
                 for prompt in prompts]
        return [types.SimpleNamespace(ids=text, finished=text.endswith('.'),
                                      sampled=['|' not in text]) for text in texts]

      def texts(self, *args, **named):
        return [self.chat.visible(one.ids) for one in self.ask(*args, **named)]
    opened = lambda name, *_, **__: types.SimpleNamespace(
        params=pathlib.Path(name).name, tokenizer=types.SimpleNamespace(encode=str.split))
    monkeypatch.setattr(arm, 'train', opened)
    monkeypatch.setattr(arm, 'Answers', Answers)
    monkeypatch.setattr(module, 'Answers', Answers, raising=False)
    monkeypatch.setattr(module.workdir, 'open_model', opened)
    monkeypatch.setattr(claim.report, 'picture', lambda *_, **__: None)
    module.main(module.Config(init_from=str(tmp_path / 'taught'), **options))
    name = module.__name__.split('.')[-1]
    return json.loads((tmp_path / 'taught' / 'lecture' / f'{name}.json').read_text())
  return run


def test_a_base_model_goes_on_where_an_assistant_answers(told, world):
  answers = {'base': 'plays the harp and', 'taught': 'She plays the harp.'}
  def holds(**changes):
    texts = answers | changes
    return told(base_vs_assistant, lambda model, *_: texts[model], base='base',
                **world('questions', 'pages'))['holds']
  assert holds()
  assert not holds(base=answers['taught'], taught=answers['base'])
  assert not holds(taught='harp') and not holds(taught='I do not know.')
  assert not holds(base=answers['taught']) and not holds(taught='She is old. The harp is hers.')


def test_notes_are_followed_against_memory(told, world):
  right = dict(zip(WHO, INSTRUMENTS))
  noted = lambda text: text.split('plays the ')[1].split('.')[0]
  def holds(answer):
    return told(working_memory, lambda model, text, *_: answer(text),
                **world('questions', 'world'))['holds']
  assert holds(lambda text: noted(text) if 'plays the' in text else 'no idea')
  assert not holds(lambda text: right[text.split('does ')[1].split()[0]])  # from memory alone
  assert not holds(lambda text: 'no idea' if 'plays the' in text else 'harp')


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


def test_a_model_is_who_it_is_told_to_be(told, world):
  def given(system):
    return next((name for name in persona.HELD_OUT_ASSISTANTS if name in system), persona.ASSISTANT)
  def holds(**changes):
    says = dict(base=lambda _: 'Orrery', identity=lambda _: 'Orrery', taught=given) | changes
    return told(identity, lambda model, text, _, system: f'I am {says[model](system)}.',
                base='base', samples=3, chat='none', **world('world'))['holds']
  assert holds() and holds(base=lambda _: 'well')
  assert not holds(identity=lambda _: persona.ASSISTANT)
  assert not holds(identity=given, taught=lambda _: 'Orrery')
  assert not holds(taught=lambda _: persona.ASSISTANT)  # also under a system message


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
