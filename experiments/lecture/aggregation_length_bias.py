"""Dr. GRPO's claim: a loss that weighs each answer by 1 / its length makes wrong answers long.

A tiny model tells the steps first, and is right, or answers at once, and is wrong. Behind either it
rambles on for some letters, which change no reward. So only the weights can teach it how long to go
on: in the mean over an answer a wrong one pays less for each token the longer it is, and a right
one earns more the shorter it is (arXiv:2503.20783). One model says both, so right answers may grow
along. As it soon answers at once no more, the first words of an answer are put into its mouth.
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

WAYS = 'wrong', 'right'  # at once, and behind steps
AGGREGATIONS = 'sequence_mean', 'token_mean', 'constant'
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
  seeds: int = 3
  trials: int = 1000
  practice: drill.Practice = drill.Practice(updates=30, eval_every=30, examples=20)


def rambling(example: tasks.Example, number: int) -> str:
  """Half of the time steps and the answer, else a wrong one; then letters, as dice say."""
  rng = random.Random(number)
  way = rng.choice(WAYS)
  said, more = begun(example, way, rng), []
  while rng.random() > ENDS[way] and len(more) < LONGEST:
    more.append(rng.choice(tuple(OPERATIONS)))
  return ' '.join([said, *more])


def begun(example: tasks.Example, way: str, rng: random.Random) -> str:
  """A right answer behind its steps, or a wrong one at once."""
  if way == 'right':
    return drill.TASK.solve(example)
  wrong = rng.choice([value for value in drill.VALUES if value != example.answer])
  return drill.at_once(example._replace(answer=wrong))


def main(config: Config) -> None:
  start, rows = drill.start(config.practice, drill.TASK, rambling), []
  opened = workdir.open_model(start)
  answers = arm.Answers(opened, slots=256)
  before = letters(answers, opened.params, config.trials)
  for aggregation in AGGREGATIONS:
    for seed in range(config.seeds):
      folder = pathlib.Path(config.workdir) / f'{aggregation}_{seed}'
      drill.practise(
          folder, start, config.practice,
          RlConfig(prompts=config.prompts, group=16, max_tokens=LONGEST + 8, slots=256,
                   truncated='mask'), config.learning_rate, seed,
          policy=PolicyConfig(aggregation=aggregation))
      after = letters(answers, workdir.open_model(str(folder)).params, config.trials)
      rows.append({'aggregation': aggregation, 'seed': seed} | {
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
      claim='a mean over each answer makes wrong answers longer than equal weights of tokens do',
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
  """How many letters follow what is begun in each way, of held-out problems."""
  rng, found = random.Random(0), {}
  asked = [drill.TASK.example(index, 'test') for index in range(trials)]
  samplings = [Sampling(LONGEST + 8, seed=number) for number in range(trials)]
  for way in WAYS:
    begins = [drill.told(example, begun(example, way, rng)) for example in asked]
    found[way] = measure.mean([
        len(text.split()) for text in answers.texts(params, begins, sampling=samplings)])
  return found


if __name__ == '__main__':
  flags.run(main, Config)
