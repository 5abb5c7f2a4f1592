"""Continues prompts with a trained base model, streaming.

python -m experiments.generate --init_from=runs/pretrain "Once upon a time"
"""

import dataclasses
import sys

from experiments import workdir
from nanollm_jax import InputError, flags
from nanollm_jax.sample.engine import Engine, Sampling


@dataclasses.dataclass(frozen=True)
class Config:
  """Generation.

  init_from: the workdir of a trained model.
  step: which checkpoint; unset means the newest, or the best where one is said to be.
  samples: continuations of each prompt.
  """
  init_from: str = 'runs/pretrain'
  step: int | None = None
  samples: int = 1
  sample: Sampling = Sampling(max_tokens=120)


def main(config: Config, prompts: list[str]) -> None:
  if config.samples < 1:
    raise InputError(f'--samples={config.samples}: give at least 1.')
  if not prompts:
    if sys.stdin.isatty():
      raise InputError('no prompt: give text to continue, in quotes.')
    prompts = [sys.stdin.read().rstrip('\n')]
  model, params, tokenizer = workdir.open_model(config.init_from, step=config.step)
  engine = Engine(model, [tokenizer.end], slots=1, chunk=4)
  for prompt in prompts:
    for sample in range(config.samples):
      request = dataclasses.replace(config.sample, seed=config.sample.seed + sample)
      print(f'{prompt}', end='', flush=True)
      ids = engine.stream(params, [tokenizer.end, *tokenizer.encode(prompt)], request)
      for text in tokenizer.stream(ids):
        print(text, end='', flush=True)
      print('\n')


if __name__ == '__main__':
  flags.run(main, Config)
