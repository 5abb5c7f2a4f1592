"""Claims of reinforcement learning: what starts are shown, what is rewarded, what is counted, and
which numbers prove a claim. Nothing is trained."""

import json
import types

import numpy as np
import pytest

from experiments.lecture import (aggregation_length_bias, arm, beyond_imitation, claim, drill,
                                 length_growth, r1_format, tool_rl)
from nanollm_jax.eval.measure import Measure
from nanollm_jax.sample.engine import Completion, Sampling
from nanollm_jax.text.chat import Chat
from nanollm_jax.text import known

EXAMPLES = [drill.TASK.example(number, 'train') for number in range(800)]
THOUGHT = [{'type': 'think', 'text': ' A B'}, {'type': 'text', 'text': ' Answer: C.'}]
CALLED = [{'type': 'tool_call', 'name': 'python', 'text': '2 * 3'},
          {'type': 'tool_output', 'text': '6'}, {'type': 'text', 'text': 'Answer: 6.'}]


@pytest.fixture(scope='module')
def words(tmp_path_factory):
  """A folder with the tokenizer of the clock."""
  return drill.vocabulary(drill.Practice(start=str(tmp_path_factory.mktemp('words'))))


@pytest.fixture
def conclude(monkeypatch, tmp_path):
  """A function: a claim to its verdict, without models, engines and pictures."""
  opened = types.SimpleNamespace(params='start', tokenizer=None, model=None)
  monkeypatch.setattr(drill, 'start', lambda *_, **__: 'start')
  monkeypatch.setattr(drill, 'vocabulary', lambda *_: 'words')
  monkeypatch.setattr(drill, 'priced', lambda task, *_: (task, None))
  monkeypatch.setattr(arm, 'Answers', lambda *_, **__: None)
  monkeypatch.setattr(arm, 'vocabulary', lambda *_: 'words')
  for name in ('train', 'fresh'):
    monkeypatch.setattr(arm, name, lambda *_, **__: opened)
  for module in (aggregation_length_bias, beyond_imitation, length_growth, r1_format, tool_rl):
    monkeypatch.setattr(module.workdir, 'open_model',
                        lambda folder: types.SimpleNamespace(params=folder.split('/')[-1]))
  monkeypatch.setattr(claim.report, 'picture', lambda *_, **__: None)
  def run(module, **fields):
    module.main(module.Config(workdir=str(tmp_path), **fields))
    name = module.__name__.split('.')[-1]
    return json.loads((tmp_path / 'lecture' / f'{name}.json').read_text())
  return run


def ids_of(chat, example, content):
  return chat.render(drill.told(example, content)).ids


def test_a_price_is_of_the_grade_and_of_the_whole_turn(words):
  chat = Chat(known.from_name_or_file(words))
  task, reward = drill.priced(drill.TASK, words, lambda right, parts: right + 10 * len(parts))
  one, other = (task.example(number, 'train') for number in (0, 1))
  wrong = next(value for value in drill.VALUES if value != one.answer)
  rows = [ids_of(chat, one, drill.TASK.solve(one)),
          ids_of(chat, one, drill.at_once(one._replace(answer=wrong))),
          ids_of(chat, other, [{'type': 'think', 'text': ' A'},
                               {'type': 'text', 'text': drill.at_once(other)}]),
          chat.prompt(drill.told(one, '')[:1])]
  assert reward(rows).tolist() == [11, 10, 21, 0] and reward(rows).dtype == np.float32


def test_turns_are_of_held_out_problems_each_with_a_seed_of_its_own(words):
  chat, asked = Chat(known.from_name_or_file(words)), []
  def ask(params, conversations, tools, sampling):
    asked.append((params, conversations, tools, [one.seed for one in sampling]))
    return [Completion(chat.tokenizer.encode(' Answer: A.'), [], [], True) for _ in conversations]
  found = drill.turns(types.SimpleNamespace(chat=chat, ask=ask), 'params', drill.TASK, 40,
                      Sampling(24), tools='tools')
  examples = [drill.TASK.example(number, 'test') for number in range(40)]
  assert [example for example, _, _ in found] == examples
  assert [score for _, score, _ in found] == [float(one.answer == 'A') for one in examples]
  assert {drill.said(parts) for _, _, parts in found} == {' Answer: A.'}
  assert asked == [('params', [drill.told(one, '')[:1] for one in examples], 'tools',
                    list(range(40)))]


def test_what_is_said_is_text_alone():
  assert drill.said(THOUGHT) == ' Answer: C.' and drill.said(CALLED) == 'Answer: 6.'


def test_the_first_value_is_the_one_that_steps_begin_with():
  for number in range(20):
    example, whole = (task.example(number, 'test') for task in (drill.FIRST, drill.TASK))
    assert example.answer == whole.steps.split()[0] and example.question == whole.question


def test_the_control_slips_as_often_in_both_ways():
  right = {True: [], False: []}
  for number in range(len(EXAMPLES)):
    example = drill.FIRST.example(number, 'train')
    words = length_growth.slipping(example, number).split()
    assert words[:-2] in ([], example.steps.split())
    right[len(words) > 2].append(words[-1] == example.answer + '.')
  assert len(right[True]) == len(EXAMPLES) / 8
  for hits in right.values():
    assert np.mean(hits) == pytest.approx(0.64, abs=0.15)


def test_ways_are_told_apart_by_the_steps(monkeypatch):
  turn = lambda text: [{'type': 'text', 'text': text}] * bool(text)
  made = [(None, 1.0, turn(' A B C D E Answer: F.'))] * 2 + [
      (None, 0.0, turn(' A B C D E Answer: F.')), (None, 1.0, turn(' Answer: F.')),
      (None, 0.0, turn(' Answer: F.')), (None, 0.0, turn(''))]
  opened = types.SimpleNamespace(params=0)
  monkeypatch.setattr(length_growth.workdir, 'open_model', lambda _: opened)
  monkeypatch.setattr(arm, 'Answers', lambda *_, **__: None)
  monkeypatch.setattr(drill, 'turns', lambda *_: made)
  assert length_growth.by_way('start', drill.TASK, 6) == pytest.approx(
      {'with steps': 1 / 2, 'right with steps': 2 / 3, 'right at once': 1 / 3})


@pytest.mark.parametrize('needed, control, fair, holds', [
    ((4, 9, .1, .9), (4, 4.2, .6, .9), .6, True), ((4, 5, .1, .9), (4, 4.2, .6, .9), .6, False),
    ((4, 9, .1, .9), (4, 6, .6, .9), .6, False), ((4, 9, .1, .9), (4, 4.2, .6, .6), .6, False),
    ((4, 9, .1, .9), (4, 4.2, .6, .9), .1, False)])
def test_length_growth_needs_growth_in_one_arm_alone(conclude, monkeypatch, needed, control, fair,
                                                     holds):
  monkeypatch.setattr(length_growth, 'by_way', lambda _, task: {
      'with steps': .1, 'right with steps': .9 if task is drill.TASK else fair,
      'right at once': .1 if task is drill.TASK else .6})
  def practise(folder, *_, task):
    before, after, right, then = needed if task is drill.TASK else control
    return {'test/length': [(0, before), (30, after)], 'test/accuracy': [(0, right), (30, then)]}
  monkeypatch.setattr(drill, 'practise', practise)
  assert conclude(length_growth)['holds'] == holds


def test_the_demonstrator_guesses_the_maps_it_does_not_know():
  task = beyond_imitation.TASK
  known_, unknown = [], []
  for number in range(3000):
    example = task.example(number, 'train')
    said = beyond_imitation.demonstrated(example, number)
    guessed = set(example.question.split()[3:]) & set(beyond_imitation.UNKNOWN)
    (unknown if guessed else known_).append(task.grade(example, said).score)
    if not guessed:
      assert said == task.solve(example)
  assert np.mean(known_) == 1 and np.mean(unknown) == pytest.approx(1 / 11, abs=0.04)
  assert np.mean(known_ + unknown) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize('imitated, practised, holds', [
    (.8, .98, True), (.9, .98, False), (.6, .98, False), (.8, .82, False)])
def test_practice_goes_beyond_where_imitation_has_ended(conclude, monkeypatch, imitated, practised,
                                                        holds):
  """All are asked the same problems; what practice logs is of the first ones, which are easy."""
  asked = types.SimpleNamespace(question='From A by o a')
  monkeypatch.setattr(drill, 'turns', lambda _, params, *__: [
      (asked, float(number < 1000 * (practised if params == 'practice_0' else imitated)), [])
      for number in range(1000)])
  monkeypatch.setattr(drill, 'practise', lambda *_, **__: {'test/accuracy': [(0, .9), (40, .99)]})
  found = conclude(beyond_imitation, recipe=arm.Recipe(conversations=2000, trials=1000))
  assert found['holds'] == holds
  assert [row['right'] for row in found['rows']] == [imitated] * 3 + [practised]


def test_half_of_the_products_are_hard_and_half_of_either_are_given_to_python():
  ways = {}
  for number in range(400):
    example = tool_rl.product(number, 'train')
    digits = {len(part) for part in example.code.split(' * ')}
    assert digits == ({1} if example.kind == 'easy' else {2})
    ways.setdefault(example.kind, []).append(not isinstance(tool_rl.shown(example, number), str))
  assert [len(ways[kind]) for kind in ('easy', 'hard')] == [200, 200]
  assert sum(ways['easy']) == sum(ways['hard']) == 100
  train, test = ({tool_rl.product(number, split).problem for number in range(1, 400, 2)}
                 for split in ('train', 'test'))
  assert not train & test


def test_calls_are_counted_by_kind():
  easy, hard = (types.SimpleNamespace(kind=kind) for kind in ('easy', 'hard'))
  said = CALLED[2:]
  made = [(easy, 1.0, CALLED), (easy, 1.0, said), (easy, 0.0, said), (easy, 1.0, said),
          (hard, 0.0, said)]
  assert tool_rl.calls(CALLED + CALLED) == 2
  assert tool_rl.counted(made, 'easy') == pytest.approx({
      'called Python': 1 / 4, 'right': 3 / 4, 'right in the head': 2 / 3, 'right with Python': 1})
  assert tool_rl.counted(made, 'hard')['called Python'] == 0


@pytest.mark.parametrize('easy, hard, holds', [
    ((.5, .02), (.5, .99), True), ((.5, .5), (.5, .99), False), ((.5, .02), (.5, .6), False),
    ((.1, .02), (.5, .99), False), ((.5, .99), (.5, .02), False)])
def test_a_tool_is_to_be_called_for_hard_problems_alone(conclude, monkeypatch, easy, hard, holds):
  def turns(answers, params, *_):
    after = params.startswith('practice')
    return [(types.SimpleNamespace(kind=kind), 1.0, CALLED if number < 100 * share[after] else [])
            for kind, share in (('easy', easy), ('hard', hard)) for number in range(100)]
  monkeypatch.setattr(drill, 'turns', turns)
  monkeypatch.setattr(drill, 'practise', lambda *_, **__: None)
  recipe = arm.Recipe(conversations=8)
  assert conclude(tool_rl, recipe=recipe)['holds'] == holds


@pytest.mark.parametrize('parts, fits', [
    (THOUGHT, True), (THOUGHT[1:], False), (THOUGHT[:1], False), (THOUGHT[::-1], False),
    (THOUGHT * 2, False), ([{'type': 'think', 'text': ' '}, THOUGHT[1]], False), (CALLED, False)])
def test_in_form_is_one_thought_and_then_text(parts, fits):
  assert r1_format.in_form(parts) == fits


def test_three_ways_are_shown_and_all_are_right():
  made = [r1_format.three_ways(example, number) for number, example in enumerate(EXAMPLES)]
  thought = [not isinstance(one, str) for one in made]
  assert sum(thought) == 100 and all(r1_format.in_form(one) for one in made[::8])
  told = [isinstance(one, str) and len(one.split()) > 2 for one in made]
  assert sum(told) == 100
  assert all(drill.TASK.grade(example, one if isinstance(one, str) else drill.said(one)).score
             for example, one in zip(EXAMPLES, made))


@pytest.mark.parametrize('before, right, both, holds', [
    ((.1, .2), .3, (.99, .97), True), ((.1, .2), .3, (.5, .97), False),
    ((.1, .2), .3, (.99, .5), False), ((.9, .2), .3, (.99, .97), False),
    ((.1, .2), .99, (.99, .97), False)])
def test_both_rewards_must_show_from_low_and_with_one_it_is_chance(
    conclude, monkeypatch, before, right, both, holds):
  shares = {'start': before, 'form_3_1': both} | {
      f'form_{form}_{seed}': (.99, .97) for form in (0, 3) for seed in (0, 2)}
  shares['form_0_1'] = (right, .99)
  monkeypatch.setattr(drill, 'practise', lambda *_, **__: {'test/accuracy': [(0, 0.)]})
  monkeypatch.setattr(r1_format, 'looked', lambda _, params, __: dict(zip(
      ('in form', 'right'), shares[params])))
  assert conclude(r1_format)['holds'] == holds


def test_rambling_goes_on_as_dice_say():
  right, letters = [], []
  for number in range(4000):
    example = EXAMPLES[number % len(EXAMPLES)]
    said = aggregation_length_bias.rambling(example, number)
    steps, _, behind = said.partition(' Answer: ')
    right.append(steps == example.steps)
    letters.append(len(behind.split()) - 1)
    assert right[-1] or not steps
    assert drill.TASK.grade(example, said).score == right[-1]
  right, letters = np.array(right), np.array(letters)
  assert np.mean(right) == pytest.approx(0.5, abs=0.03)
  assert np.mean(letters[right]) == pytest.approx(3, abs=0.3)
  assert np.mean(letters[~right]) == pytest.approx(5.7, abs=0.5)
  assert letters.max() <= aggregation_length_bias.LONGEST


def test_letters_are_those_behind_what_was_begun():
  asked = []

  class Answers:
    def texts(self, params, conversations, sampling):
      asked.append([messages[-1]['content'] for messages in conversations])
      return ['', ' a b c'] if len(asked) == 1 else [' a', ' b']

  found = aggregation_length_bias.letters(Answers(), None, 2)
  assert found['wrong'][::2] == (1.5, 2) and found['right'][::2] == (1, 2)
  examples = [drill.TASK.example(number, 'test') for number in range(2)]
  assert [[drill.TASK.grade(*pair).score for pair in zip(examples, said)] for said in asked] == [
      [0, 0], [1, 1]]


def test_what_the_assistant_has_begun_is_gone_on_with(words):
  answers = object.__new__(arm.Answers)
  answers.chat = Chat(known.from_name_or_file(words))
  answers._engine = types.SimpleNamespace(generate=lambda _, prompts, *__: prompts)
  begun = drill.told(EXAMPLES[0], ' Answer: A.')
  ids, = answers.ask(None, [begun])
  assert ids == answers.chat.render(begun).ids[:len(ids)]
  assert answers.chat.parse(ids) == begun and ids[-1] != answers.chat.end_of_turn


@pytest.mark.parametrize('after, holds', [
    ({'sequence_mean': float('nan')}, False),
    ({'sequence_mean': 8, 'token_mean': 4.1, 'constant': 4}, True),
    ({'sequence_mean': 4.2, 'token_mean': 4.1, 'constant': 4}, False),
    ({'sequence_mean': 8, 'token_mean': 9, 'constant': 4}, False)])
def test_wrong_answers_must_grow_by_the_mean_of_a_sequence(conclude, monkeypatch, after, holds):
  def letters(_, params, trials):
    value = after.get(params.rsplit('_', 1)[0], 4)
    return {'wrong': Measure(value, .2, trials // 2), 'right': Measure(4, .2, trials // 2)}
  monkeypatch.setattr(drill, 'practise', lambda *_, **__: None)
  monkeypatch.setattr(aggregation_length_bias, 'letters', letters)
  assert conclude(aggregation_length_bias)['holds'] == holds


def test_each_aggregation_is_practised(conclude, monkeypatch):
  seen = []
  monkeypatch.setattr(drill, 'practise', lambda folder, *_, policy, **__: seen.append(
      (folder.name, policy.aggregation)))
  monkeypatch.setattr(aggregation_length_bias, 'letters', lambda *_: {
      way: Measure(4, .2, 500) for way in ('wrong', 'right')})
  conclude(aggregation_length_bias, seeds=2)
  assert seen == [(f'{name}_{seed}', name) for name in aggregation_length_bias.AGGREGATIONS
                  for seed in (0, 1)]
