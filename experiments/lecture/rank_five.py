"""The lecture: people rank five jokes for each of 1,000 prompts, and a model learns their taste.

A tiny model that has learned to tell jokes becomes the reward model. The people are the world's
judge with noise, so it is known which accuracy nobody can pass: that of the judge without noise on
the same labels. A fifth of the prompts is held out.
python -m experiments.lecture.rank_five
"""

import contextlib
import dataclasses
import pathlib


from experiments import reward_model, workdir
from experiments.lecture import arm, claim
from nanollm_jax import flags, metrics
from nanollm_jax.data import rankings
from nanollm_jax.data.rankings import RankingDataConfig
from nanollm_jax.eval import measure, ranking
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.sample.engine import Sampling
from nanollm_jax.text.chat import Chat
from nanollm_jax.train.loop import FitConfig
from nanollm_jax.world import joke

WITHIN = 0.03  # of the ceiling


@dataclasses.dataclass(frozen=True)
class Config:
  """The accuracy of a reward model against the noise of its labels.

  workdir: where the models go, and the picture.
  rankings: of five jokes each; a fifth is held out.
  steps: updates of the reward model.
  batch_size: rankings of an update.
  recipe: of the model that tells jokes, which the reward model begins as.
  """
  workdir: str = 'runs/rank_five'
  rankings: int = 1250
  steps: int = 300
  batch_size: int = 16
  learning_rate: float = 1e-3
  recipe: arm.Recipe = arm.Recipe(conversations=5000, steps=300, model=ModelConfig(
      depth=2, width=64, heads=2, context=96))


def main(config: Config) -> None:
  teller = pathlib.Path(config.workdir) / 'teller'
  jokes = [joke.conversation(0, number) for number in range(config.recipe.conversations)]
  arm.fresh(teller, jokes, config.recipe, arm.vocabulary(config.workdir, jokes, 704))
  judge = trained(config, str(teller))
  tokenizer = workdir.open_model(judge.workdir).tokenizer
  held = rankings.prepare(judge.data, Chat(tokenizer), config.recipe.model.context,
                          judge.workdir)['validation']
  score = reward_model.open_reward(judge.workdir, tokenizer)
  gold = [one.ranking.gold for one in held]
  found = reward_model.scored(score, held)
  gap = measure.mean([right(ours) - right(true) for ours, true in zip(found, gold)])
  numbers = ranking.summary(found, gold)
  claim.conclude(
      config.workdir, 'rank_five',
      claim='a model learns to rank jokes as well as the noise of the labels allows',
      rows=by_difference(found, gold),
      number=f'{numbers["accuracy"]:.1%} of pairs right, {numbers["ceiling"]:.1%} is the ceiling; '
      f'{gap.value:+.1%} +- {gap.stderr:.1%}; correlation with the truth '
      f'{numbers["gold_correlation"]:.2f}, Kendall tau {numbers["kendall_tau"]:.2f}, calibration '
      f'error {numbers["calibration_error"]:.3f}',
      expected=f'within {WITHIN:.0%} of the ceiling', holds=gap.value > -WITHIN,
      otherwise='more rankings, or a teller that has read more before it judges',
      picture=dict(title='Held-out pairs ranked right', xlabel='step', ylabel='share right',
                   expectation=numbers['ceiling'], series={'reward model': [
                       (row['step'], row['validation/accuracy']) for row in metrics.read_rows(
                           pathlib.Path(judge.workdir) / 'metrics.jsonl')
                       if 'validation/accuracy' in row]}))


def trained(config: Config, teller: str) -> reward_model.Config:
  """Trains the reward model in `judge`; its log goes to judge.txt."""
  folder = pathlib.Path(config.workdir)
  path = arm.written(folder / 'judge' / 'rankings.jsonl',
                     (joke.ranking(0, number) for number in range(config.rankings)))
  judge = reward_model.Config(
      workdir=str(path.parent), init_from=teller, policy=teller,
      data=RankingDataConfig((str(path),), validation_fraction=0.2), sample=Sampling(64),
      optim=dataclasses.replace(reward_model.Config().optim, learning_rate=config.learning_rate),
      fit=FitConfig(steps=config.steps, batch_size=config.batch_size, save_every=0,
                    eval_every=max(1, config.steps // 6), sample_every=config.steps))
  print(f'judge     {config.rankings:,} rankings, {config.steps} steps', flush=True)
  with open(folder / 'judge.txt', 'a') as log, contextlib.redirect_stdout(log):
    reward_model.main(judge)
  return judge


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
