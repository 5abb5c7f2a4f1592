"""The verdicts of claims on practice: what proves them; what the start of practice is taught."""

import json
import pathlib

import pytest

from experiments.lecture import arm, claim, drill, fifteen_solutions, grpo, needs_a_seed


@pytest.fixture
def concluded(monkeypatch, tmp_path):
  """A function: a claim and (accuracy before, after) by the folder of a run to its verdict."""
  def run(module, shares):
    def practise(folder, init_from, config, *_):
      before, after = shares[folder.name]
      looks = lambda first, last: [(0, first), (config.updates, last)]
      named = {f'test/{name}': looks(before, after) for name in ('accuracy', 'pass@16', 'maj@16')}
      return named | {'test/accuracy_stderr': looks(.01, .01), 'test/length': looks(4., 9.),
                      'rollout_gap_max': looks(0., 1e-6), 'rollout/zero_std': looks(.1, .9)}
    monkeypatch.setattr(drill, 'start', lambda *_: 'start')
    monkeypatch.setattr(drill, 'practise', practise)
    monkeypatch.setattr(claim.report, 'picture', lambda *_, **__: None)
    module.main(module.Config(workdir=str(tmp_path)))
    name = module.__name__.split('.')[-1]
    return json.loads((tmp_path / 'lecture' / f'{name}.json').read_text())
  return run


@pytest.mark.parametrize('module, good, otherwise', [
    (fifteen_solutions, {'random': (.2, .95), 'all': (.2, .99), 'shortest': (.2, .95),
                         'best': (.2, .97)},
     [{'best': (.2, .8)}, {'shortest': (.2, .8)}, {'random': (.2, .2)}, {'all': (.4, .9)}]),
    (grpo, {'seed_0': (.2, .95)}, [{'seed_0': (.2, .8)}, {'seed_0': (.5, .95)}]),
    (needs_a_seed, {'affine': (.2, .95), 'nonsense': (.1, .1)},
     [{'nonsense': (.1, .3)}, {'affine': (.2, .2)}])],
    ids=lambda value: getattr(value, '__name__', None))
def test_a_claim_holds_as_expected_and_in_no_other_way(concluded, module, good, otherwise):
  for shares in ({}, *otherwise):
    assert concluded(module, good | shares)['holds'] == (not shares), shares


def test_the_start_is_taught_steps_and_then_mostly_answers(monkeypatch, tmp_path):
  taught = []
  monkeypatch.setattr(arm, 'train', lambda folder, conversations, **_: taught.append(
      [conversation[1]['content'] for conversation in conversations]))
  config = drill.Practice(start=str(tmp_path), teach=arm.Recipe(conversations=40))
  for task in (drill.TASK, drill.NONSENSE):
    drill.start(config, task)
  steps, mixed, nonsense, _ = taught
  examples = [drill.TASK.example(k, 'train') for k in range(40)]
  assert steps == [drill.TASK.solve(example) for example in examples]
  assert [len(one.split()) for one in mixed] == [7, 2, 2, 2, 2, 2, 2, 2] * 5
  right = [drill.TASK.grade(*pair).score for pair in zip(examples, nonsense)]
  assert right == [1.0] * 40 and [len(one.split()) for one in nonsense] == [7] * 40
  same = [word == other for one, two in zip(steps, nonsense)
          for word, other in zip(one.split()[:5], two.split()[:5])]
  assert sum(same) < 0.2 * len(same)


def test_the_flagfile_of_practice_begins_where_the_claims_do(monkeypatch):
  monkeypatch.setattr(arm, 'fresh', lambda *_: None)
  monkeypatch.setattr(arm, 'train', lambda *_, **__: None)
  monkeypatch.setattr(drill, 'vocabulary', lambda *_: None)
  begins = drill.start(drill.Practice())
  assert f'--init_from={begins}\n' in (pathlib.Path(grpo.__file__).parents[1] / 'configs/rl/affine.flags').read_text()
