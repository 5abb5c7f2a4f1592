"""The lecture: a base model is stochastic, each run gives something else; greedy repeats itself.

python -m experiments.lecture.stochastic --init_from=runs/pretrain
"""

import dataclasses

from experiments import workdir
from experiments.lecture import claim
from nanollm_jax import flags
from nanollm_jax.sample.engine import Engine, Sampling


@dataclasses.dataclass(frozen=True)
class Config:
  """The same prompt many times.

  init_from: the workdir of a base model.
  prompt: what is continued.
  samples: continuations at each temperature.
  tokens: length of a continuation.
  """
  init_from: str = 'runs/pretrain'
  prompt: str = 'The town of'
  samples: int = 32
  tokens: int = 32


def main(config: Config) -> None:
  model, params, tokenizer = workdir.open_model(config.init_from)
  engine = Engine(model, [tokenizer.end], slots=config.samples)
  prompt = [tokenizer.end, *tokenizer.encode(config.prompt)]
  distinct = {}
  for temperature in (0.0, 0.25, 0.5, 0.75, 1.0):
    made = engine.generate(params, [prompt] * config.samples, [
        Sampling(config.tokens, temperature, seed=seed) for seed in range(config.samples)])
    texts = [config.prompt + tokenizer.decode(one.ids) for one in made]
    distinct[temperature] = len(set(texts))
    print(f'  T={temperature}: {texts[0]!r}')
  at_one, greedy = distinct[1.0], distinct[0.0]
  claim.conclude(
      config.init_from, 'stochastic',
      claim='the same prompt never gives the same text twice at T=1; greedy always repeats',
      rows=[{'temperature': t, 'distinct texts': n, 'of': config.samples}
            for t, n in distinct.items()],
      number=f'{at_one} distinct of {config.samples} at T=1, {greedy} greedy',
      expected=f'{config.samples} of {config.samples} at T=1, 1 greedy',
      holds=at_one == config.samples and greedy == 1,
      otherwise='the model is too sure of this prompt; give a longer --tokens or another --prompt',
      picture=dict(title='Different continuations of one prompt', xlabel='temperature',
                   ylabel=f'distinct texts of {config.samples}',
                   series={'distinct': list(distinct.items())}))


if __name__ == '__main__':
  flags.run(main, Config)
