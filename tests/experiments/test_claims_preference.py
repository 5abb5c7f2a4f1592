"""The claim about rankings: which judge proves it. The scores are given; nothing is trained."""

import dataclasses
import json
import types

import numpy as np
import pytest

from experiments import reward_model
from experiments.lecture import arm, rank_five
from nanollm_jax.data.rankings import RankingDataConfig
from nanollm_jax.text import tokenizer as tokenizer_lib
from nanollm_jax.text.chat import Chat
from nanollm_jax.world import joke

TOKENIZER = tokenizer_lib.Tokenizer('bytes', r'[\s\S]', {bytes([n]): n for n in range(256)},
                                    tokenizer_lib.special_ids(256))


@pytest.fixture
def concluded(monkeypatch, tmp_path):
  """A function: what a judge says of (topic, joke) to what the claim has concluded."""
  def run(judge):
    def trained(config, teller):
      path = tmp_path / 'rankings.jsonl'
      path.write_text(''.join(json.dumps(joke.ranking(0, n)) + '\n' for n in range(config.rankings)))
      return reward_model.Config(workdir=config.workdir, data=RankingDataConfig((str(path),), 0.5))

    topics = {asked: topic for topic, asked in joke.PROMPTS}
    def score(rows):
      said = [Chat(TOKENIZER).parse(row) for row in rows]
      return np.array([judge(topics[asked['content']], answer['content'])
                       for asked, answer in said], np.float32)

    for name in ('fresh', 'vocabulary'):
      monkeypatch.setattr(arm, name, lambda *_: None)
    monkeypatch.setattr(rank_five, 'trained', trained)
    monkeypatch.setattr(rank_five.workdir, 'open_model', lambda _: types.SimpleNamespace(
        tokenizer=TOKENIZER))
    monkeypatch.setattr(reward_model, 'open_reward', lambda *_: score)
    config = rank_five.Config(workdir=str(tmp_path), rankings=100)
    rank_five.main(dataclasses.replace(config, recipe=dataclasses.replace(
        config.recipe, model=dataclasses.replace(config.recipe.model, context=400))))
    return json.loads((tmp_path / 'lecture' / 'rank_five.json').read_text())
  return run


def test_a_judge_near_the_ceiling_proves_it_and_no_other(concluded):
  perfect = concluded(joke.gold)
  assert perfect['holds'] and '+0.0% +- 0.0%' in perfect['measured']
  assert all(row['right'] == row['ceiling'] for row in perfect['rows'])
  assert sum(row['pairs'] for row in perfect['rows']) % 10 == 0
  nearly = concluded(lambda topic, text: 5 * joke.gold(topic, text) + len(text) / 1000)
  assert nearly['holds']
  for judge in (lambda topic, text: len(text), lambda topic, text: -joke.gold(topic, text),
                lambda topic, text: sum(word in text for word in joke.FUNNY)):
    assert not concluded(judge)['holds']
