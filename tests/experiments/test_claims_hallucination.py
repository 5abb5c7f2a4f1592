"""The hallucination claim's own logic: who is asked, the control, votes, errors."""

import pytest

from experiments import judge, probe_knowledge as probing
from experiments.facts import Fact
from experiments.lecture import hallucination, memory
from nanollm_jax import InputError
from nanollm_jax.world import question
from nanollm_jax.world.config import WorldConfig
from nanollm_jax.world.facts import truth

OBOE = Fact('What does Ada play?', 'oboe', relation='instrument')
EXACT = judge.Exact([OBOE, Fact('', 'bell', relation='instrument'),
                     Fact('', 'harp', relation='instrument')])


@pytest.fixture(scope='module')
def world():
  config = WorldConfig(people=400)
  return truth(config).people, list(question.questions(config))


def test_nobody_and_no_novel_surname_is_both_probed_and_asked(world):
  people, rows = world
  often = memory.known(people, 60)
  assert [one.stratum for one in often].count('frequent') == 24
  tested, probed = hallucination.apart(hallucination.Config(probes=40, trials=30), rows, people,
                                       {one.id for one in often})
  for facts, each in ((tested, 30), (probed, 40)):
    assert {group: sum(fact.group == group for fact in facts)
            for group in hallucination.GROUPS} == dict.fromkeys(hallucination.GROUPS, each)
  few = {one.id for one in often[:4]}
  some, _ = hallucination.apart(hallucination.Config(), rows, people, few)
  assert {fact.about for fact in some if fact.group == 'frequent'} <= few
  by_id = {one.id: one for one in people}
  assert {question.split(by_id[fact.about]) for fact in tested} == {'test'}
  assert {question.split(by_id[fact.about]) for fact in probed} == {'train'}
  novel = [{by_id[fact.about].name.split()[-1] for fact in facts if fact.group == 'novel_surname'}
           for facts in (tested, probed)]
  assert novel[0] and novel[1] and not novel[0] & novel[1]


def test_notes_tell_everything_of_some_often_and_of_the_rare_once(world):
  people, _ = world
  often = memory.known(people, 3)
  told = memory.notes(people, often, 4, seed=0)
  for one in (*often, *(one for one in people if one.stratum == 'rare')):
    own = [text for text in told if text.startswith(one.name) or f' {one.name}' in text.split('.')[0]]
    whole = [text for text in own if str(one.year) in text and one.dish in text]
    assert len(whole) == len(set(whole)) == (4 if one in often else 1), one
  assert len(told) == 12 + [one.stratum for one in people].count('rare')


def test_pages_of_questions_ask_about_nobody_held_out(world):
  people, _ = world
  often = memory.known(people, 20)
  pages = memory.asked(people, often, wordings=2)
  named = lambda one: any(one.name in page.split('\n')[0] for page in pages)
  assert all(named(one) == (question.split(one) == 'train') for one in often)
  assert all(page.count('\n') == 1 for page in pages)


def test_manners_tell_nothing_about_people():
  told = memory.manners(WorldConfig(people=60))
  assert len(told) > 60 and all(len(messages) > 1 for messages in told)
  names = [one.name for one in truth(WorldConfig(people=60)).people]
  assert sum(any(name in str(messages) for name in names) for messages in told) < len(told) / 8


def test_no_conversation_names_anybody_held_out(world):
  people, _ = world
  said = str(memory.conversations(people, memory.known(people, 60), wordings=1))
  hidden = [one.name for one in people if question.split(one) == 'test']
  shown = [one.name for one in memory.known(people, 60) if question.split(one) == 'train']
  assert not any(name in said for name in hidden) and all(name in said for name in shown)


def test_the_control_refuses_as_many_of_any():
  labels = ['known'] * 40 + ['unknown'] * 30 + ['unsure'] * 30
  probes = [probing.Probe(OBOE, [], [], label) for label in labels]
  control = [one.label for one in hallucination.at_random(probes, 0)]
  assert control.count('unknown') == 30
  assert 5 <= control[:40].count('unknown') <= 20  # of the known too, about a third
  assert set(control[:40]) == {'known', 'unknown'} and set(control[40:]) == {'unsure', 'unknown'}


@pytest.mark.parametrize('text, expected', [
    ('The oboe.', 'correct'), ('The bell.', 'hallucinated'), ('Good morning.', 'other'),
    ("I don't know, sorry.", 'refused')])
def test_outcomes(text, expected):
  assert hallucination.outcome(EXACT, OBOE, text) == expected


def test_votes_count_answers_not_wordings():
  texts = ['The oboe.', 'She plays the oboe.', 'Oboe!', 'A harp.', 'The bell.']
  assert hallucination.vote(EXACT, OBOE, texts, 3) == 'correct'
  assert hallucination.vote(EXACT, OBOE, texts, 4) == 'refused'
  assert hallucination.vote(EXACT, OBOE, ['The bell.', 'bell', 'oboe'], 2) == 'hallucinated'


def test_the_error_knows_that_answers_about_one_person_go_together():
  facts = [Fact('', '', about=f'p{i // 8}') for i in range(80)]
  together = [i // 8 % 2 == 0 for i in range(80)]  # five people all right, five all wrong
  value, error = hallucination.share(facts, together)
  assert value == 0.5 and error == pytest.approx((0.25 / 9) ** 0.5)
  apart = [i % 2 == 0 for i in range(80)]
  assert hallucination.share(facts, apart)[1] < 0.06


def test_the_verdict_weighs_invention_against_refusals_of_what_was_known(tmp_path, capsys):
  facts = [OBOE._replace(group=group, about=f'{group}{i}')
           for group in hallucination.GROUPS for i in range(10)]
  knows = ['correct'] * 10 + ['hallucinated'] * 30
  cured, shy = knows[:30] + ['refused'] * 10, ['refused'] * 40

  def verdict(**arms):
    config = hallucination.Config(workdir=str(tmp_path))
    hallucination.report(config, facts, arms, {1: knows})
    return capsys.readouterr().out

  assert 'verdict   holds' in verdict(before=knows, probed=cured, control=shy)
  assert 'does not hold' in verdict(before=knows, probed=shy, control=cured)
  assert 'does not hold' in verdict(before=knows, probed=cured, control=cured)
  broken = knows[:30] + ['other'] * 10
  assert 'does not hold' in verdict(before=knows, probed=broken, control=shy)
  assert 'does not hold' in verdict(before=knows, probed=knows, control=shy)
  with pytest.raises(InputError, match='knows none'):
    verdict(before=shy, probed=shy, control=shy)
