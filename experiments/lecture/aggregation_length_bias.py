"""Dr. GRPO's claim: a loss that weighs each answer by 1 / its length makes wrong answers long.

A tiny model was shown answers of which half are wrong. Behind any answer it rambles on for some
letters, a few more behind a wrong one, which shows that it can tell; no letter changes a reward. So
only the weights can teach it how long to go on: in the mean over an answer a wrong one pays less
for each token the longer it is, and a right one earns more the shorter it is (arXiv:2503.20783).
python -m experiments.lecture.aggregation_length_bias
"""

import dataclasses
import math
import pathlib
import random
from typing import Any

from experiments import workdir
from experiments.lecture import arm, claim, drill
from experiments.rollouts import RlConfig
from nanollm_jax import flags, tasks
from nanollm_jax.eval import measure
from nanollm_jax.objectives.policy import PolicyConfig
from nanollm_jax.sample.engine import Sampling
from nanollm_jax.tasks.sums import OPERATIONS

WAYS = 'wrong', 'right'
AGGREGATIONS = 'sequence_mean', 'token_mean', 'constant'
SLIPS = 0.5  # chance of a wrong answer in a demonstration
ENDS = {'wrong': 0.15, 'right': 0.25}  # that it ends after a letter
LONGEST = 36


@dataclasses.dataclass(frozen=True)
class Config:
  """How long wrong and right answers are, by how the loss adds up tokens.

  workdir: where the runs and the picture go.
  prompts: problems of an update, with 16 completions each.
  learning_rate: of Adam; low, so that wrong answers do not die out.
  seeds: runs of each aggregation, from one start.
  trials: held-out problems, each answered once before and after.
  """
  workdir: str = 'runs/aggregation_length_bias'
  prompts: int = 16
  learning_rate: float = 2e-4
  seeds: int = 1
  trials: int = 1000
  practice: drill.Practice = drill.Practice(updates=30, eval_every=30, examples=20)


def rambling(example: tasks.Example, number: int) -> str:
  """The first value, wrong half of the time; then letters, as many as dice say."""
  rng = random.Random(number)
  said, way, more = example.answer, 'right', []
  if rng.random() < SLIPS:
    said, way = rng.choice([value for value in drill.VALUES if value != said]), 'wrong'
  while rng.random() > ENDS[way] and len(more) < LONGEST:
    more.append(rng.choice(tuple(OPERATIONS)))
  return ' '.join([drill.at_once(example._replace(answer=said)), *more])


def main(config: Config) -> None:
  start, rows = drill.start(config.practice, drill.FIRST, rambling), []
  opened = workdir.open_model(start)
  answers = arm.Answers(opened, slots=256)
  before = letters(answers, opened.params, config.trials)
  for aggregation in AGGREGATIONS:
    for seed in range(config.seeds):
      folder = pathlib.Path(config.workdir) / f'{aggregation}_{seed}'
      drill.practise(
          folder, start, config.practice,
          RlConfig(prompts=config.prompts, group=16, max_tokens=LONGEST + 8, slots=256,
                   truncated='mask'), config.learning_rate, seed, task=drill.FIRST,
          policy=PolicyConfig(aggregation=aggregation))
      after = letters(answers, workdir.open_model(str(folder)).params, config.trials)
      rows.append({'aggregation': aggregation, 'seed': seed,
                   'right after': after['right'].n / config.trials} | {
                       f'{way} {told}': value for way in WAYS for told, value in (
                           ('before', before[way].value), ('after', after[way].value),
                           ('+-', math.hypot(before[way].stderr, after[way].stderr)))})
  grown = {name: [(row['wrong after'] - row['wrong before'], row['wrong +-']) for row in rows
                  if row['aggregation'] == name] for name in AGGREGATIONS}
  least = min(value - 3 * error for value, error in grown['sequence_mean'])
  most = max(value for name in AGGREGATIONS[1:] for value, _ in grown[name])
  told = ', '.join(f'{value:+.1f} +- {error:.1f} ({name})' for name in AGGREGATIONS
                   for value, error in grown[name])
  claim.conclude(
      config.workdir, 'aggregation_length_bias',
      claim='a mean over each answer makes wrong answers longer; equal weights of tokens do not',
      rows=rows,
      number=f'letters behind wrong answers in {config.practice.updates} updates: {told}',
      expected='with sequence_mean growth by over 3 standard errors, and by more than with the '
      'other two',
      holds=least > 0 and least > most,
      otherwise='more --practice.updates, or a higher --learning_rate',
      picture=dict(title='Letters behind wrong answers', ylabel='letters', xlabel='updates',
                   series={name: [(0, before['wrong'].value)] + [
                       (config.practice.updates, before['wrong'].value + value, error)
                       for value, error in grown[name]] for name in AGGREGATIONS}))


def letters(answers: arm.Answers, params: Any, trials: int) -> dict[str, measure.Measure]:
  """How many letters follow wrong and right answers to held-out problems."""
  made = drill.turns(answers, params, drill.FIRST, trials, Sampling(LONGEST + 8))
  counts = {way: [len(drill.said(parts).split()) - 2 for _, score, parts in made if score == right]
            for way, right in zip(WAYS, (0.0, 1.0))}
  return {way: measure.mean(found) if found else measure.Measure(math.nan, math.nan, 0)
          for way, found in counts.items()}


if __name__ == '__main__':
  flags.run(main, Config)
