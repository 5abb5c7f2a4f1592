"""The lecture: models do not see letters, so spelling tasks are hard; spelled out, they are easy.

Two words written as one, as in raspberrylantern, which a tokenizer cuts into a few pieces. Tiny
models learn to write every third letter, or to count a letter, at once or after spelling the word.
python -m experiments.lecture.spelling
"""

import dataclasses
import random

from experiments.lecture import arm, claim
from nanollm_jax import flags, tasks
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.tasks.letters import WORDS


@dataclasses.dataclass(frozen=True)
class Config:
  """Accuracy on held-out words, at once and spelled first.

  workdir: where the arms and the picture go.
  vocabulary: tokens; the more, the longer the pieces.
  """
  workdir: str = 'runs/spelling'
  vocabulary: int = 512
  recipe: arm.Recipe = arm.Recipe(tokens=60, model=ModelConfig(
      depth=2, width=64, heads=2, context=72))


def main(config: Config) -> None:
  words = joined(config.recipe.conversations)
  arms = {f'{what}, {how}': make(words=words, longest=16, style=style)
          for what, make in (('every third letter', tasks.spelling), ('count', tasks.letter_count))
          for how, style in (('at once', 'direct'), ('spelled first', 'steps'))}
  tokenizer = arm.vocabulary(config.workdir, [
      one for task in arms.values() for one in arm.taught(task, 1000)], config.vocabulary)
  found = arm.compare(config.workdir, arms, config.recipe, tokenizer)
  rows, series = [], {'at once': [], 'spelled first': []}
  for at, (name, made) in enumerate(found.items()):
    right, error = claim.share([row['score'] == 1 for row in made])
    series[name.split(', ')[1]].append((at // 2, right, error))
    rows.append({'task': name, 'right': right, 'standard error': error, 'trials': len(made)})
  third, third_spelled, count, count_spelled = (row['right'] for row in rows)
  claim.conclude(
      config.workdir, 'spelling',
      claim='a model sees pieces of words, not letters: spelled first, it answers right',
      rows=rows,
      number=f'every third letter {third:.0%} at once, {third_spelled:.0%} spelled first; letters '
      f'counted {count:.0%} at once, {count_spelled:.0%} spelled first',
      expected='every third letter under 40% at once, both over 90% spelled first',
      holds=third < 0.4 and min(third_spelled, count_spelled) > 0.9,
      otherwise='where spelling fails more --recipe.steps, as each piece must be spelled often; where '
      'it succeeds at once more pieces a word, by a smaller --vocabulary',
      picture=dict(title='Letters of held-out words', series=series, ylabel='share right',
                   xlabel='every third letter, a letter counted'))


def joined(count: int) -> list[str]:
  """Pairs of words of up to eight letters, each pair written as one word."""
  rng, short = random.Random(0), [word for word in WORDS if len(word) <= 8]
  return [rng.choice(short) + rng.choice(short) for _ in range(count)]


if __name__ == '__main__':
  flags.run(main, Config)
