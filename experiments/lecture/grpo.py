"""The lecture: reinforcement learning, where the model finds out by itself which solutions work.

GRPO on a tiny model that mostly guesses: accuracy, the chance that one of 16 solutions is right,
and the majority's answer, over updates.
python -m experiments.lecture.grpo
"""

import dataclasses
import pathlib

from experiments.lecture import claim, drill
from experiments.rollouts import RlConfig
from nanollm_jax import flags

MEASURES = {'one answer': 'accuracy', 'one of 16 is right': 'pass@16', 'majority of 16': 'maj@16'}


@dataclasses.dataclass(frozen=True)
class Config:
  """A policy over updates.

  workdir: where the runs and the picture go.
  prompts: problems of an update, with 16 completions each.
  learning_rate: of Adam.
  seeds: runs from one start; the picture is of the first.
  """
  workdir: str = 'runs/grpo'
  prompts: int = 32
  learning_rate: float = 1e-3
  seeds: int = 1
  practice: drill.Practice = drill.Practice()


def main(config: Config) -> None:
  start, rows, runs = drill.start(config.practice), [], []
  for seed in range(config.seeds):
    runs.append(drill.practise(
        pathlib.Path(config.workdir) / f'seed_{seed}', start, config.practice,
        RlConfig(prompts=config.prompts, group=16, max_tokens=24, slots=256),
        config.learning_rate, seed))
    of = lambda name: [value for _, value in runs[-1][f'test/{name}']]
    rows += [{'seed': seed, 'updates': at, **{told: of(name)[look] for told, name in
                                              MEASURES.items()},
              'standard error': of('accuracy_stderr')[look], 'tokens': of('length')[look]}
             for look, (at, _) in enumerate(runs[-1]['test/accuracy'])]
  before = rows[0]
  after = min((row for row in rows if row['updates'] == config.practice.updates),
              key=lambda row: row['one answer'])
  gap = max(value for run in runs for _, value in run['rollout_gap_max'])
  useless = runs[0]['rollout/zero_std'][-1][1]
  claim.conclude(
      config.workdir, 'grpo',
      claim='a model that is told only whether its answer was right learns to think before it',
      rows=rows,
      number=f'{before["one answer"]:.0%} right before and {after["one answer"]:.0%} after '
      f'{config.practice.updates} updates; {before["tokens"]:.1f} tokens become '
      f'{after["tokens"]:.1f}; one of 16 was right {before["one of 16 is right"]:.0%} of the time '
      f'before; at the end {useless:.0%} of groups teach nothing; sampler and trainer differ by '
      f'{gap:.0e} nats at most',
      expected='from 10-30% to more than 90%; the tokens grow because steps, which it had been '
      'shown, win over guesses: none is invented',
      holds=before['one answer'] <= 0.3 and after['one answer'] > 0.9,
      otherwise='more --practice.updates; before it, solutions told step by step must be more '
      'often right than guesses (--practice.teach.steps)',
      picture=dict(title='GRPO', ylabel='share of held-out problems', xlabel='updates',
                   series={told: runs[0][f'test/{name}'] for told, name in MEASURES.items()}))


if __name__ == '__main__':
  flags.run(main, Config)
