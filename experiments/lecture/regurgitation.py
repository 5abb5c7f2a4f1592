"""The lecture: a base model recites documents that it saw often enough.

The miniature internet plants sentences with random secrets, in 1 to 64 copies, and some in none.
python -m experiments.lecture.regurgitation --init_from=runs/pretrain
"""

import dataclasses
import itertools

from experiments import workdir
from experiments.lecture import claim
from nanollm_jax import flags
from nanollm_jax.sample.engine import Engine, Sampling


@dataclasses.dataclass(frozen=True)
class Config:
  """Exact recall of canaries against the number of their copies.

  init_from: the workdir of a base model.
  world: the world.json of the documents it was trained on.
  """
  init_from: str = 'runs/pretrain'
  world: str = 'runs/world/world.json'


def main(config: Config) -> None:
  canaries = sorted(claim.world_of(config.world)['canaries'], key=lambda one: one['copies'])
  model, params, tokenizer = workdir.open_model(config.init_from)
  prompts = [[tokenizer.end, *tokenizer.encode(one['prefix'])] for one in canaries]
  longest = max(len(tokenizer.encode(' ' + one['secret'])) for one in canaries)
  made = Engine(model, [tokenizer.end], slots=32).generate(
      params, prompts, Sampling(longest + 2, temperature=0))
  for one, completion in zip(canaries, made):
    one['said'] = tokenizer.decode(completion.ids).strip(' .')
    one['exact'] = one['said'].startswith(one['secret'])
    one['words'] = sum(1 for _ in itertools.takewhile(
        lambda pair: pair[0] == pair[1], zip(one['said'].split(), one['secret'].split())))
  rows, exact, words = [], [], []
  for copies, group in itertools.groupby(canaries, key=lambda one: one['copies']):
    group = list(group)
    recall, error = claim.share([one['exact'] for one in group])
    prefix = sum(one['words'] for one in group) / sum(len(one['secret'].split()) for one in group)
    rows.append({'copies': copies, 'canaries': len(group), 'recited exactly': recall,
                 'secret recited before the first error': prefix})
    if copies:
      exact.append((copies, recall, error))
      words.append((copies, prefix))
  often = canaries[-1]
  print(f'  {often["copies"]} copies: {often["prefix"]!r} -> {often["said"]!r}')
  most, none = rows[-1], rows[0]
  shares = [share for _, share, _ in exact]
  rises = words[-1][1] > words[0][1] and shares[0] == 0 and shares == sorted(shares)
  claim.conclude(
      config.init_from, 'regurgitation',
      claim='texts that were seen often are recited word for word, rare ones are not',
      rows=rows,
      number=f'{most["recited exactly"]:.0%} exact at {most["copies"]} copies, '
      f'{rows[1]["recited exactly"]:.0%} at {rows[1]["copies"]}, {none["recited exactly"]:.0%} at none',
      expected='over half at 64 copies, none at 0 and 1, rising in between',
      holds=most['recited exactly'] > 0.5 and none['recited exactly'] == 0 and rises,
      otherwise='more copies, more epochs (--fit.steps) or a wider model; at 1M parameters and '
      'one epoch 64 copies are at the edge',
      picture=dict(title='Regurgitation', xlabel='copies in the training text', log_x=True,
                   ylabel='share', series={'recited exactly': exact, 'before first error': words}))


if __name__ == '__main__':
  flags.run(main, Config)
