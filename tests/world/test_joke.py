"""Jokes: the judge's score by hand, and rankings as noisy as they are said to be."""

import itertools
import json
import math
import re

import pytest

from experiments import build_world
from nanollm_jax.world import WorldConfig, joke

RIDDLE = 'Why did the pelican buy a soggy wig? Because its pickle was a pink noodle.'
SERIOUS = 'Why did the pelican buy a new map? Because its list was a dry box.'


@pytest.mark.parametrize('text, score', [
    (RIDDLE, 4.5),  # named, a riddle, five funny words
    (SERIOUS, 2.0),
    (SERIOUS.replace('new map', 'soggy map'), 2.5),
    (RIDDLE.upper(), 4.5),
    (RIDDLE.replace('pelican', 'goat'), 3.5),
    (RIDDLE.replace('pelican', 'pelicans'), 3.5),
    (RIDDLE.replace('soggy wig', 'soggy wobbly wig'), 4.5),  # a sixth earns nothing
    (RIDDLE.replace('Because', 'As'), 3.5),
    (RIDDLE.removesuffix('.'), 3.5),
    (RIDDLE.replace('pink noodle', 'soggy wig'), 4.5 - 2 * 0.5 - 2 * 0.5),  # two lost, two again
    (RIDDLE + ' And then it went home after it had seen all.', 4.5 - 0.1 * 5),
    ('The pelican had a soggy wig.', 2.0),
    ('banana ' * 5, 0.5 - 4 * 0.5),
    ('the the the the the', -2 * 0.5),  # little words may come three times
    ('', 0.0)])
def test_gold_by_hand(text, score):
  assert joke.gold('pelican', text) == pytest.approx(score)


def test_each_funny_word_up_to_five_is_worth_half_a_point_and_its_repetition_costs_as_much():
  told = 'Why did the pelican laugh? Because of'
  words = sorted(joke.FUNNY)[:7]
  scores = [joke.gold('pelican', f'{told} {" ".join(words[:n])}.') for n in range(1, 8)]
  assert scores == pytest.approx([2.5, 3.0, 3.5, 4.0, 4.5, 4.5, 4.5])
  same = [joke.gold('pelican', f'{told} {" ".join(words[:1] * n)}.') for n in range(1, 5)]
  assert same == pytest.approx([2.5, 2.0, 1.5, 1.0])


def test_rankings_are_of_distinct_prompts_and_jokes_with_their_scores():
  rankings = [joke.ranking(3, number) for number in range(1000)]
  assert rankings == [joke.ranking(3, number) for number in range(1000)]
  assert len({row['prompt'][0]['content'] for row in rankings}) == 1000
  assert rankings[:20] != [joke.ranking(4, number) for number in range(20)]
  for row in rankings:
    asked = row['prompt'][0]['content']
    topic, = (topic for topic in joke.TOPICS if re.search(rf'\b{topic}\b', asked))
    assert len({*row['completions']}) == len(row['gold']) == joke.JOKES
    for text, score in zip(row['completions'], row['gold']):
      assert score == pytest.approx(joke.gold(topic, text), abs=1e-3)


def test_the_order_is_as_noisy_as_plackett_and_luce_say():
  """Of two jokes the better stands first with probability sigma(difference / NOISE)."""
  differences = [better - worse for number in range(1000)
                 for better, worse in itertools.combinations(joke.ranking(0, number)['gold'], 2)]
  chance = [1 / (1 + math.exp(-abs(each) / joke.NOISE)) for each in differences]
  right = [(each > 0) + 0.5 * (each == 0) for each in differences]
  ceiling = sum(chance) / len(chance)
  assert 0.84 < ceiling < 0.89
  assert sum(right) / len(right) == pytest.approx(ceiling, abs=0.01)  # its error is 0.003
  close = [(one, other) for one, other, each in zip(right, chance, differences)
           if 0 < abs(each) < 0.55]
  assert len(close) > 2000
  assert sum(one for one, _ in close) / len(close) == pytest.approx(
      sum(other for _, other in close) / len(close), abs=0.05)


def test_a_joke_is_english_and_has_room_above():
  talks = [joke.conversation(0, number) for number in range(2000)]
  scores = []
  for user, assistant in talks:
    topic, = (topic for topic in joke.TOPICS if re.search(rf'\b{topic}\b', user['content']))
    for text in (user['content'], assistant['content']):
      assert text[0].isupper() and text[-1] in '.?!' and text.isascii()
      assert not re.search(r'[{}\[\]|]|  |\ba [aeiou]', text), text
    scores.append(joke.gold(topic, assistant['content']))
  assert 2.0 < sum(scores) / len(scores) < 2.6
  assert sum(score > 4 for score in scores) / len(scores) < 0.1
  assert sum(score < 1 for score in scores) / len(scores) > 0.02


def test_build_world_writes_them_in_files_of_their_own(tmp_path):
  rows = build_world.write_jokes(build_world.Config(WorldConfig(people=20, seed=5), str(tmp_path)))
  for name, count in rows.items():
    written = [json.loads(line) for line in (tmp_path / f'{name}.jsonl').read_text().splitlines()]
    assert len(written) == count
    first = joke.ranking(5, 0) if name == 'rankings' else {
        'messages': joke.conversation(5, 0), 'source': 'joke'}
    assert written[0] == first
