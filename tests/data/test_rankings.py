"""Rankings: what is kept, what is set aside and why, and batches that lose nothing."""

import json

import numpy as np
import pytest

from nanollm_jax import InputError
from nanollm_jax.data import rankings
from nanollm_jax.text import chat, tokenizer as tokenizer_lib

CHAT = chat.Chat(tokenizer_lib.Tokenizer(
    'bytes', r'[\s\S]', {bytes([byte]): byte for byte in range(256)},
    tokenizer_lib.special_ids(256)))


def row(prompt: str, *completions: str, **more) -> dict:
  return {'prompt': [{'role': 'user', 'content': prompt}], 'completions': [*completions], **more}


def prepared(tmp_path, rows, context=100, validation_fraction=0.0, **options):
  path = tmp_path / 'ranked.jsonl'
  path.write_text(''.join(json.dumps(each) + '\n' for each in rows))
  config = rankings.RankingDataConfig((str(path),), validation_fraction, **options)
  return rankings.prepare(config, CHAT, context, tmp_path)


def test_completions_are_rendered_behind_their_prompt_the_best_first(tmp_path):
  one, other = prepared(tmp_path, [row('Why?', 'b', 'cc', gold=[2, 1]),
                                   row('How?', 'b', 'cc', 'd', ranks=[2, 3, 1], gold=[5, 6, 7])])['train']
  assert one.ranking.gold == [2, 1] and other.ranking.gold == [7, 5, 6]
  assert other.ranking.completions == ['d', 'b', 'cc']
  for ids, said in zip(other.ids, 'd b cc'.split()):
    assert ids[:other.start].tolist() == CHAT.prompt(other.ranking.prompt)
    assert ids[other.start:].tolist() == [*said.encode(), CHAT.end_of_turn]


def test_bad_lines_are_told_counted_and_set_aside(tmp_path, capsys):
  def reply(text, rank):
    return {'role': 'assistant', 'text': text, 'rank': rank, 'replies': []}
  tree = {'role': 'prompter', 'text': 'A', 'replies': [reply('x', 0), reply('y', 0), {
      **reply('z', 1), 'replies': [{'role': 'prompter', 'text': 'B', 'replies': [
          reply('v', 1), reply('w', 0)]}]}]}
  rows = [row('good', 'a', 'b'), row('tie', 'a', 'b', ranks=[1, 1]), row('again', 'a', 'b', 'a'),
          row('one', 'a'), row('long', 'a', 'b' * 100), row('short gold', 'a', 'b', gold=[1]),
          row('nan', 'a', 'b', gold=[1, float('nan')]), {'x': 1}, tree,
          {'chosen': '\n\nHuman: h\n\nAssistant: a', 'rejected': '\n\nHuman: h\n\nAssistant: a'}]
  found = prepared(tmp_path, rows)['train']
  assert [one.ranking.completions for one in found] == [['a', 'b'], ['w', 'v']]
  aside = [json.loads(line) for line in (tmp_path / 'rejected.jsonl').read_text().splitlines()]
  assert {each['line']: each['reason'].split(':')[0].split(' (')[0] for each in aside} == {
      2: 'it has a tie', 3: 'it has the same completion twice.',
      4: 'it must have a prompt of messages and two or more completions.',
      5: 'its longest completion ends at token 123, beyond --model.context=100.',
      6: 'it must have one finite number a completion in "ranks" and "gold".',
      7: 'it must have one finite number a completion in "ranks" and "gold".',
      8: 'it holds no ranking', 9: 'it has a tie',
      10: 'it has a chosen and a rejected thread that do not differ in just the last answer.'}
  assert all(each['file'].endswith('ranked.jsonl') for each in aside)
  out = capsys.readouterr().out
  assert '9 lines could not be used' in out and 'line 2: it has a tie' in out
  with pytest.raises(InputError, match='ranked.jsonl line 2: it has a tie: two completions'):
    prepared(tmp_path, rows, strict=True)


def test_what_leaves_nothing_to_learn_is_refused(tmp_path):
  with pytest.raises(InputError, match='no ranking is left for training: see in rejected.jsonl'):
    prepared(tmp_path, [row('long', 'a', 'b' * 100)])
  for patterns, sentence in (((), 'there are no rankings: give --data.rankings'),
                             ((f'{tmp_path}/none',), 'none matches no file')):
    with pytest.raises(InputError, match=sentence):
      rankings.prepare(rankings.RankingDataConfig(patterns), CHAT, 100, tmp_path)
  with pytest.raises(InputError, match='validation_fraction=1 must be'):
    rankings.RankingDataConfig((), 1)


def test_a_prompt_is_in_one_split_only(tmp_path):
  rows = [row(f'p{k % 50}', f'a{k}', f'b{k}') for k in range(200)]
  held = prepared(tmp_path, rows, validation_fraction=0.3)
  prompts = [{one.ranking.prompt[0]['content'] for one in held[name]} for name in held]
  assert not prompts[0] & prompts[1] and len(prompts[0] | prompts[1]) == 50
  assert sum(map(len, held.values())) == 200 and 30 < len(held['validation']) < 90


@pytest.fixture
def held(tmp_path):
  return prepared(tmp_path, [row(f'p{k}', *(f'{k}'.rjust(n + 3, '-') for n in range(2 + k % 3)))
                             for k in range(11)])['train']


def test_batches_hold_every_ranking_once_an_epoch(held):
  completions, length = rankings.size(held, 100)
  assert completions == 4 and length == 32 and rankings.size(held, 30)[1] == 30
  batches = rankings.Batches(held, batch_size=4, completions=4, length=length, seed=1)
  seen = []
  for batch in (next(batches) for _ in range(11)):
    assert batch['tokens'].shape == (4, 4, 32) and batch['tokens'].dtype == np.int32
    for tokens, lengths, start in zip(*(batch[name] for name in ('tokens', 'lengths', 'starts'))):
      rows = [tokens[k, :lengths[k]].tolist() for k in range(4) if lengths[k]]
      one, = (one for one in held if [ids.tolist() for ids in one.ids] == rows)
      assert start == one.start and tokens.sum() == sum(map(sum, rows))
      seen.append(one.ranking.prompt[0]['content'])
  epochs = [seen[at:at + 11] for at in range(0, 44, 11)]
  assert all(len({*epoch}) == 11 for epoch in epochs) and epochs[0] != epochs[1]


def test_batches_go_on_where_they_stopped_and_processes_share_them(held):
  def batches(index=0, count=1, size=4):
    return rankings.Batches(held, batch_size=size, completions=4, length=32, seed=1,
                            process_index=index, process_count=count)
  whole, parts = batches(), batches()
  for _ in range(4):
    next(whole)
    next(parts)
  again = batches()
  again.set_state(json.loads(json.dumps(parts.get_state())))
  ours, theirs = batches(0, 2, 2), batches(1, 2, 2)
  for each in (ours, theirs):
    each.set_state(parts.get_state())
  for _ in range(5):
    want, found, one, other = next(whole), next(again), next(ours), next(theirs)
    for name in want:
      np.testing.assert_array_equal(want[name], found[name])
      np.testing.assert_array_equal(want[name], np.concatenate([one[name], other[name]]))
  seeds = [next(rankings.Batches(held, batch_size=11, completions=4, length=32, seed=seed))
           for seed in (0, 1)]
  assert not np.array_equal(*(batch['tokens'] for batch in seeds))
