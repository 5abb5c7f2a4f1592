"""The lecture: people rank five jokes for each of 1,000 prompts, and a model learns their taste.

A tiny model that has learned to tell jokes becomes the reward model. The people are the world's
judge with noise, so it is known which accuracy nobody can pass: that of the judge without noise on
the same labels. 1,000 rankings are soon learned by heart here, so 14,400 are taught; 600 are held
out.
python -m experiments.lecture.rank_five
"""

import dataclasses
import pathlib

from experiments import reward_model, workdir
from experiments.lecture import arm, claim, comedian
from nanollm_jax import flags, metrics
from nanollm_jax.data import rankings
from nanollm_jax.eval import measure, ranking
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.text.chat import Chat

WITHIN = 0.03  # of the ceiling


@dataclasses.dataclass(frozen=True)
class Config:
  """The accuracy of a reward model against the noise of its labels.

  workdir: where the teller and the judge go, and the picture.
  """
  workdir: str = 'runs/rank_five'
  teller: arm.Recipe = arm.Recipe(
      conversations=20_000, steps=800, model=ModelConfig(depth=3, width=96, heads=3, context=96))
  judging: comedian.Judging = comedian.Judging(
      rankings=15_000, held_out=0.04, steps=1800, learning_rate=1e-3)


def main(config: Config) -> None:
  folder = pathlib.Path(config.workdir)
  start = comedian.teller(folder, config.teller)
  judge = comedian.judge(folder / 'judge', start, config.judging)
  tokenizer = workdir.open_model(start).tokenizer
  held = rankings.prepare(judge.data, Chat(tokenizer), config.teller.model.context,
                          judge.workdir)['validation']
  found = reward_model.scored(reward_model.open_reward(judge.workdir, tokenizer), held)
  steps = [row for row in metrics.read_rows(pathlib.Path(judge.workdir) / 'metrics.jsonl')
           if 'validation/accuracy' in row]
  gold = [one.ranking.gold for one in held]
  gap = measure.mean([right(ours) - right(true) for ours, true in zip(found, gold)])
  numbers = ranking.summary(found, gold)
  claim.conclude(
      config.workdir, 'rank_five',
      claim='a model learns to rank jokes as well as the noise of the labels allows',
      rows=by_difference(found, gold),
      number=f'{numbers["accuracy"]:.1%} of pairs right, {numbers["ceiling"]:.1%} is the ceiling; '
      f'{gap.value:+.1%} +- {gap.stderr:.1%}; correlation with the truth '
      f'{numbers["gold_correlation"]:.2f}, Kendall tau {numbers["kendall_tau"]:.2f}, calibration '
      f'error {steps[-1]["validation/calibration_error"]:.3f}',
      expected=f'within {WITHIN:.0%} of the ceiling', holds=gap.value > -WITHIN,
      otherwise='more rankings, or a teller that has read more before it judges',
      picture=dict(title='Held-out pairs ranked right', xlabel='step', ylabel='share right',
                   expectation=numbers['ceiling'], series={'reward model': [
                       (row['step'], row['validation/accuracy']) for row in steps]}))


def right(scores: list[float]) -> float:
  """The share of a ranking's pairs that scores order as the labels do."""
  return ranking.pair_accuracy(ranking.pairs(scores)).value


def by_difference(found: list[list[float]], gold: list[list[float]]) -> list[dict]:
  """How often the model and the truth agree with the labels, by how different two jokes are."""
  lengths = [[0] * len(values) for values in gold]
  ours, best = (ranking.accuracies(scores, lengths, gold)['difference in gold score']
                for scores in (found, gold))
  return [{'difference in gold score': name, 'pairs': share.n, 'right': share.value,
           'standard error': share.stderr, 'ceiling': best[name].value}
          for name, share in ours.items()]


if __name__ == '__main__':
  flags.run(main, Config)
