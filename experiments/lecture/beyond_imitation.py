"""The lecture: who imitates stays at the level of what is imitated; practice goes beyond it.

Two maps of a clock, one after the other, told step by step. The demonstrator does not know two of
the sixteen maps and guesses there, so that it is right four times in five. A tiny model imitates it
for ever longer; then, for as many problems as it likes, it is told only whether it was right.
python -m experiments.lecture.beyond_imitation
"""

import dataclasses
import pathlib
import random
from typing import Any

from experiments import workdir
from experiments.lecture import arm, claim, drill
from experiments.rollouts import RlConfig
from nanollm_jax import flags, tasks
from nanollm_jax.sample.engine import Sampling
from nanollm_jax.tasks.sums import HOURS, OPERATIONS

TASK = tasks.affine(2)
UNKNOWN = 'op'  # the maps that the demonstrator guesses


@dataclasses.dataclass(frozen=True)
class Config:
  """Accuracy of imitation, over its length, and of practice after it.

  workdir: where the arms and the picture go.
  imitations: times that --recipe.steps updates of imitation follow each other.
  prompts: problems of an update of practice, with 16 completions each, of which some are right
    and some are not: at most four times as many are tried.
  learning_rate: of practice, by Adam.
  seeds: runs of practice, from one start.
  """
  workdir: str = 'runs/beyond_imitation'
  imitations: int = 3
  prompts: int = 32
  learning_rate: float = 1e-3
  seeds: int = 1
  recipe: arm.Recipe = arm.Recipe(steps=200, trials=1000, tokens=12)
  practice: drill.Practice = drill.Practice(updates=150, eval_every=50, examples=100)


def demonstrated(example: tasks.Example, number: int) -> str:
  """What the demonstrator says: both values, that of a map it does not know drawn at random."""
  rng, said = random.Random(number), []
  _, value, _, *letters = example.question.split()
  value = drill.VALUES.index(value)
  for letter in letters:
    times, plus = OPERATIONS[letter]
    value = rng.randrange(HOURS) if letter in UNKNOWN else (times * value + plus) % HOURS
    said.append(drill.VALUES[value])
  return TASK.solve(example._replace(steps=f' {said[0]}', answer=said[-1]))


def measured(answers: arm.Answers, params: Any, recipe: arm.Recipe) -> dict[str, float]:
  """Of the test problems the share that is right, and that of those with an unknown map."""
  drawn, greedy = (drill.turns(answers, params, TASK, recipe.trials,
                               Sampling(recipe.tokens, temperature)) for temperature in (1.0, 0.0))
  right, error = claim.share([score == 1 for _, score, _ in drawn])
  unknown = [score == 1 for one, score, _ in drawn if set(UNKNOWN) & set(one.question.split())]
  return {'right': right, 'standard error': error,
          'its best guess right': claim.share([score == 1 for _, score, _ in greedy])[0],
          'unknown right': claim.share(unknown)[0]}


def main(config: Config) -> None:
  recipe, folder = config.recipe, pathlib.Path(config.workdir)
  examples = [TASK.example(number, 'train') for number in range(recipe.conversations)]
  shown = [demonstrated(one, number) for number, one in enumerate(examples)]
  asked = [TASK.example(number, 'test') for number in range(recipe.trials)]  # all are asked these
  teacher, _ = claim.share([TASK.grade(one, demonstrated(one, number)).score == 1
                            for number, one in enumerate(asked)])
  conversations = [drill.told(*pair) for pair in zip(examples, shown)]
  words, before, answers, rows = drill.vocabulary(config.practice), '', None, []
  for number in range(1, config.imitations + 1):
    opened = arm.train(folder / f'imitation_{number}', conversations, steps=recipe.steps,
                       init_from=before, tokenizer=words, model=recipe.model,
                       learning_rate=recipe.learning_rate, batch_size=recipe.batch_size)
    before = str(folder / f'imitation_{number}')
    answers = answers or arm.Answers(opened, slots=256)
    rows.append({'learned by': 'imitation', 'updates': number * recipe.steps}
                | measured(answers, opened.params, recipe))
  last = rows[-1]
  series = {'imitation': [(row['updates'], row['right'], row['standard error']) for row in rows]}
  for seed in range(config.seeds):
    drill.practise(
        folder / f'practice_{seed}', before, config.practice,
        RlConfig(prompts=config.prompts, group=16, rounds=4, max_tokens=recipe.tokens,
                 slots=512), config.learning_rate, seed, task=TASK)
    opened = workdir.open_model(str(folder / f'practice_{seed}'))
    rows.append({'learned by': f'practice, seed {seed}', 'updates': config.practice.updates}
                | measured(answers, opened.params, recipe))
    series[f'practice, seed {seed}'] = [series['imitation'][-1], (
        last['updates'] + config.practice.updates, rows[-1]['right'], rows[-1]['standard error'])]
  practised = min(row['right'] for row in rows[config.imitations:])
  claim.conclude(
      config.workdir, 'beyond_imitation',
      claim='imitation ends where the demonstrator does; practice goes on',
      rows=rows,
      number=f'the demonstrator is right {teacher:.1%} of the time, its imitation '
      f'{last["right"]:.1%} (at its best guess {last["its best guess right"]:.1%}), after practice '
      f'{practised:.1%}; with a map that it does not know {last["unknown right"]:.1%}, after '
      f'practice {min(row["unknown right"] for row in rows[config.imitations:]):.1%}',
      expected='imitation within 5 points of the demonstrator, practice more than 5 above it',
      holds=abs(last['right'] - teacher) < 0.05 and practised > teacher + 0.05,
      otherwise='more --recipe.steps until the imitation has learned what can be learned, more '
      '--practice.updates',
      picture=dict(title='Imitation, and practice after it', series=series, ylabel='share right',
                   xlabel='updates', expectation=teacher))


if __name__ == '__main__':
  flags.run(main, Config)
