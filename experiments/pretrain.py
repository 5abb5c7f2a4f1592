"""Pretraining: the next token of documents. The same file trains BERT- and T5-style models.

python -m experiments.pretrain --flagfile=experiments/configs/pretrain/laptop.flags
"""

import dataclasses
import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp

from experiments import training
from nanollm_jax import InputError, flags, mesh as mesh_lib, metrics
from nanollm_jax.data import pipeline, shards
from nanollm_jax.mesh import MeshConfig
from nanollm_jax.model import config as model_lib, transformer
from nanollm_jax.objectives import language
from nanollm_jax.sample.engine import Engine, Sampling
from nanollm_jax.text import known
from nanollm_jax.train import loop, optim
from nanollm_jax.train.optim import OptimConfig


@dataclasses.dataclass(frozen=True)
class Config:
  """Pretraining.

  workdir: where everything of the run goes; a run that is there goes on.
  tokenizer: a tokenizer.json, a workdir that has one, gpt2, cl100k_base or o200k_base.
  init_from: a workdir whose parameters to start from, for continued pretraining.
  objective: next_token (GPT), masked_token (BERT) or span_corruption (T5).
  prompts: what the model continues while it learns.
  """
  workdir: str = 'runs/pretrain'
  tokenizer: str = 'runs/tokenizer'
  init_from: str = ''
  objective: Literal['next_token', 'masked_token', 'span_corruption'] = 'next_token'
  prompts: tuple[str, ...] = ('Once',)
  model: model_lib.ModelConfig = model_lib.ModelConfig()
  data: pipeline.DataConfig = pipeline.DataConfig(validation_fraction=0.05)
  optim: OptimConfig = OptimConfig()
  fit: loop.FitConfig = loop.FitConfig()
  mesh: MeshConfig = MeshConfig()
  sample: Sampling = Sampling()


def resolve(config: Config, tokenizer: Any) -> Config:
  """Fills in what follows from the dial: sizes, horizon, batch and learning rate."""
  model = config.model.resolve(tokenizer.size)
  count, fit = transformer.count(model), config.fit
  tokens = 20 * count
  if fit.batch_size is None:
    # Power Lines (arXiv:2505.13738): the best batch grows as tokens^0.383; 2^19 at 2.5B tokens.
    batch_tokens = 2 ** round(math.log2(2**19 * (tokens / 2.5e9) ** 0.383))
    devices = jax.device_count() * fit.microbatches
    fit = dataclasses.replace(
        fit, batch_size=-(-max(1, batch_tokens // model.context) // devices) * devices)
  if fit.steps is None:
    fit = dataclasses.replace(fit, steps=-(-tokens // (fit.batch_size * model.context)))
  rate = config.optim.learning_rate
  rate = optim.default_learning_rate(model.width) if rate is None else rate
  return dataclasses.replace(config, model=model, fit=fit,
                             optim=dataclasses.replace(config.optim, learning_rate=rate))


def objective_of(config: Config, apply: Any, tokenizer: Any) -> Any:
  """What is minimised."""
  special = tokenizer.special
  if config.objective == 'next_token':
    return language.next_token(apply, jnp.asarray(tokenizer.byte_lengths))
  if '<|mask|>' not in special:
    raise InputError(f'--objective={config.objective} needs a tokenizer with <|mask|> and '
                     '<|extra_k|>: train one with experiments.train_tokenizer.')
  if config.objective == 'masked_token':
    return language.masked_token(apply, special['<|mask|>'], config.model.vocabulary)
  sentinels = jnp.array([special[f'<|extra_{k}|>'] for k in range(8)], jnp.int32)
  if config.model.context < 3 * len(sentinels):
    raise InputError(f'--model.context={config.model.context} is too short for '
                     f'--objective=span_corruption: give at least {3 * len(sentinels)}.')
  return language.span_corruption(apply, sentinels)


def main(config: Config) -> None:
  # 1. Who we are.
  mesh_lib.connect()
  tokenizer = known.from_name_or_file(config.tokenizer)
  config = resolve(config, tokenizer)
  run = training.Run('Pretraining', config, tokenizer)

  # 2. Where batches come from.
  with mesh_lib.first():
    tokens = shards.prepare(config.data, tokenizer, config.workdir)
  batches = run.batches(tokens['train'])

  # 3. What is minimised.
  objective = objective_of(config, run.apply, tokenizer)
  run.start(batches)

  # 4. What we watch.
  hooks = []
  if 'validation' in tokens:
    hooks.append(run.validation(objective, tokens['validation']))
  if config.objective == 'next_token' and config.prompts:
    engine = Engine(config.model, [tokenizer.end], slots=len(config.prompts))
    prompts = [[tokenizer.end, *tokenizer.encode(prompt)] for prompt in config.prompts]
    engine.check(prompts)
    hooks.append(loop.Hook(config.fit.sample_every, functools.partial(
        show_samples, engine, tokenizer, prompts, config, run.log)))

  # 5. Go.
  run.fit(objective, batches, hooks)
  if config.objective == 'next_token':
    run.log.say(f'talk to it: python -m experiments.generate --init_from={config.workdir} "Once"')


def show_samples(engine: Engine, tokenizer: Any, prompts: list[list[int]], config: Config,
                 log: metrics.Log, step: int, state: Any) -> None:
  """Continues the prompts with the parameters of this step."""
  each = [dataclasses.replace(config.sample, seed=config.sample.seed + row)
          for row in range(len(prompts))]
  for prompt, made in zip(config.prompts, engine.generate(state.params, prompts, each)):
    log.text(step, 'sample', prompt, tokenizer.decode(made.ids))


if __name__ == '__main__':
  flags.run(main, Config)
