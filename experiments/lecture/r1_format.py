"""DeepSeek-R1-Zero's two rewards: for a right answer, and for thoughts that stand in their tags.

A tiny model was shown answers at once (six conversations in eight), behind steps that are told
(one), and behind steps that are thoughts (one). It practises with the first reward, and with both.
The form pays only where the answer is right. As a sum, which R1-Zero took, one seed of three came
to think nothing in the right form: the form is learned first, and then all of a group have it.
python -m experiments.lecture.r1_format
"""

import dataclasses
import pathlib

from experiments import workdir
from experiments.lecture import arm, claim, drill
from experiments.rollouts import RlConfig
from nanollm_jax import flags, tasks
from nanollm_jax.sample.engine import Sampling

IN_FORM = ['think', 'text']


@dataclasses.dataclass(frozen=True)
class Config:
  """Form and correctness of answers by what is rewarded.

  workdir: where the runs and the picture go.
  form: what the form adds to a right answer's 1; arXiv:2501.12948 does not say.
  prompts: problems of an update, with 16 completions each.
  learning_rate: of Adam.
  seeds: runs of practice with either reward, from one start.
  trials: held-out problems, each asked once before and after.
  """
  workdir: str = 'runs/r1_format'
  form: float = 3.0
  prompts: int = 32
  learning_rate: float = 1e-3
  seeds: int = 3
  trials: int = 500
  practice: drill.Practice = drill.Practice(forget=1000, updates=30, eval_every=5, examples=50)


def three_ways(example: tasks.Example, number: int) -> str | drill.Turn:
  """The answer at once, behind steps, or behind thoughts."""
  if number % 8 == 0:
    return [{'type': 'think', 'text': example.steps},
            {'type': 'text', 'text': drill.at_once(example)}]
  return drill.TASK.solve(example) if number % 8 == 1 else drill.at_once(example)


def main(config: Config) -> None:
  start = drill.start(config.practice, show=three_ways)
  opened, series = workdir.open_model(start), {}
  answers = arm.Answers(opened, slots=256)
  rows = [{'rewarded': 'nothing yet', **looked(answers, opened.params, config.trials)}]
  for name, form in {'right': 0.0, 'right and in form': config.form}.items():
    task, reward = drill.priced(drill.TASK, start, lambda right, parts, form=form: (
        right * (1 + form * in_form(parts))))
    for seed in range(config.seeds):
      folder = pathlib.Path(config.workdir) / f'form_{form:g}_{seed}'
      found = drill.practise(
          folder, start, config.practice,
          RlConfig(prompts=config.prompts, group=16, max_tokens=24, slots=256),
          config.learning_rate, seed, task=task, reward=reward)
      series[f'right, rewarded: {name}, seed {seed}'] = found['test/accuracy']
      rows.append({'rewarded': name, 'seed': seed, **looked(
          answers, workdir.open_model(str(folder)).params, config.trials)})
  before, right, both = rows[0], rows[1:1 + config.seeds], rows[1 + config.seeds:]
  listed = lambda rows, name: ', '.join(f'{row[name]:.0%}' for row in rows)
  claim.conclude(
      config.workdir, 'r1_format',
      claim='a reward for its form puts the thinking into tags; one for being right makes it think',
      rows=rows,
      number=f'in form {before["in form"]:.0%} and right {before["right"]:.0%} before; '
      f'{listed(both, "in form")} and {listed(both, "right")} after practice with both rewards; '
      f'being right alone gives {listed(right, "in form")} and {listed(right, "right")}',
      expected='with both over 95% in form and over 90% right with every seed, from under 35%; '
      'without the form a matter of chance: under 50% with one seed at least',
      holds=all(row['in form'] > 0.95 and row['right'] > 0.9 for row in both)
      and max(before['in form'], before['right']) < 0.35
      and min(row['in form'] for row in right) < 0.5,
      otherwise='more --practice.updates, or more --form; or more --seeds, if being right alone '
      'has led to the form by chance each time',
      picture=dict(title='Right answers by what is rewarded', series=series, ylabel='share right',
                   xlabel='updates'))


def in_form(parts: drill.Turn) -> bool:
  """Whether a turn is thoughts that are not empty, and then text."""
  return [part['type'] for part in parts] == IN_FORM and bool(parts[0]['text'].strip())


def looked(answers: arm.Answers, params, trials: int) -> dict[str, float]:
  """Shares of the answers to held-out problems."""
  made = drill.turns(answers, params, drill.TASK, trials, Sampling(24))
  share = lambda hits: sum(hits) / trials
  return {'in form': share([in_form(parts) for _, _, parts in made]),
          'right': share([score for _, score, _ in made]),
          'both': share([score * in_form(parts) for _, score, parts in made]),
          'values thought or told': share([sum(len(part['text'].split()) for part in parts) - 2
                                           for _, _, parts in made])}


if __name__ == '__main__':
  flags.run(main, Config)
