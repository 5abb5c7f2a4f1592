"""Pretraining: the next token of documents. The same file trains BERT- and T5-style models.

python -m experiments.pretrain --flagfile=experiments/configs/pretrain/laptop.flags
"""

import dataclasses
import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp

from experiments import workdir
from nanollm_jax import InputError, checkpoint, flags, mesh as mesh_lib, metrics, report
from nanollm_jax.data import pipeline, shards
from nanollm_jax.eval import bits_per_byte
from nanollm_jax.mesh import MeshConfig
from nanollm_jax.model import config as model_lib, transformer
from nanollm_jax.objectives import language
from nanollm_jax.sample.engine import Engine, Sampling
from nanollm_jax.text import known
from nanollm_jax.train import loop, optim, state as state_lib, step as step_lib
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
  return language.span_corruption(apply, sentinels)


def main(config: Config) -> None:
  # 1. Who we are.
  tokenizer = known.from_name_or_file(config.tokenizer)
  config = resolve(config, tokenizer)
  fit, model = config.fit, transformer.Transformer(config.model)
  mesh = mesh_lib.make(config.mesh)
  mesh_lib.check(mesh, fit.batch_size, fit.microbatches, model_lib.sharded_sizes(config.model))
  count = transformer.count(config.model)
  workdir.begin(config, tokenizer, dict(parameters=count, mesh=dict(mesh.shape)))
  checkpoints = checkpoint.Checkpoints(config.workdir, fit.keep)
  optimizer = optim.make(config.optim, config.optim.learning_rate, fit.steps)

  # 2. Where batches come from.
  tokens = shards.prepare(config.data, tokenizer, config.workdir)
  rows = dict(batch_size=fit.batch_size // jax.process_count(), length=config.model.context,
              seed=fit.seed, process_index=jax.process_index(), process_count=jax.process_count())
  batches = pipeline.batches(tokens['train'], **rows)
  put = functools.partial(mesh_lib.put, mesh)

  # 3. What is minimised.
  apply = lambda params, *args, **kwargs: model.apply({'params': params}, *args, **kwargs)
  objective = objective_of(config, apply, tokenizer)
  with mesh_lib.use(mesh):
    state, shardings = start(config, mesh, optimizer)
    if checkpoints.latest() is not None:
      state, position = checkpoints.restore(workdir.with_sharding(state, shardings))
      if position is not None:
        batches.set_state(position)
    step = jax.jit(
        functools.partial(step_lib.train_step, objective=objective, optimizer=optimizer,
                          microbatches=fit.microbatches),
        donate_argnums=0, out_shardings=(shardings, None))

    # 4. What we watch.
    log = metrics.Log(config.workdir, from_step=int(state.step), steps=fit.steps,
                      tokens_per_step=fit.batch_size * config.model.context,
                      flops_per_step=fit.batch_size * config.model.context
                      * model_lib.flops_per_token(config.model))
    introduce(config, log, count, mesh, int(state.step))
    hooks = []
    if 'validation' in tokens:
      held_out = lambda: map(put, pipeline.batches(
          tokens['validation'], **rows | dict(seed=0), epochs=1, shuffle=False))
      measure = jax.jit(objective)
      hooks.append(loop.Hook(fit.eval_every, lambda _, state: {
          f'validation/{name}': value for name, value in bits_per_byte.evaluate(
              measure, state.params, held_out(), fit.eval_batches).items()}))
    if config.objective == 'next_token':
      engine = Engine(config.model, [tokenizer.end], slots=len(config.prompts))
      hooks.append(loop.Hook(fit.sample_every, functools.partial(
          show_samples, engine, tokenizer, config, log)))

    # 5. Go.
    try:
      loop.fit(state, step, batches, config=fit, put=put, log=log, checkpoints=checkpoints,
               hooks=hooks)
    finally:
      log.close()
      batches.close()
      checkpoints.close()
      if jax.process_index() == 0:
        page = report.write(config.workdir, title=f"Pretraining: {config.workdir}")
    log.say(f'wrote {page}')
    log.say(f'talk to it: python -m experiments.generate --init_from={config.workdir} "Once"')


def start(config: Config, mesh: Any, optimizer: Any) -> tuple[Any, Any]:
  """The first state, born sharded, and its shardings."""
  param_shardings = mesh_lib.tree_sharding(mesh, transformer.logical_axes(config.model))
  def build(key):
    params_key, key = jax.random.split(key)
    return state_lib.create(transformer.init(config.model, params_key), optimizer, key)
  key = jax.random.key(config.fit.seed)
  shardings = mesh_lib.like_params(jax.eval_shape(build, key), param_shardings, mesh)
  state = mesh_lib.born(mesh, build, shardings, key)
  if config.init_from:
    opened = workdir.open_model(config.init_from, mesh)
    if opened.model != dataclasses.replace(config.model, context=opened.model.context):
      raise InputError(f'--init_from={config.init_from} holds another model: give the --model '
                       'flags of its run.flags.')
    state = state._replace(params=opened.params)
  return state, shardings


def introduce(config: Config, log: metrics.Log, count: int, mesh: Any, step: int) -> None:
  """Says what is about to happen, with the formulas behind the numbers."""
  model, fit = config.model, config.fit
  name, in_the_way = model.exportable_as()
  tokens = fit.steps * fit.batch_size * model.context
  log.say(f'{model.family} {model.depth} layers x {model.width}: {count:,} parameters; '
          + (f'exports as {name}' if name else f'not exportable ({", ".join(in_the_way)})'))
  log.say(model_lib.flops_formula(model))
  log.say(f'{fit.steps:,} steps x {fit.batch_size} rows x {model.context} = {tokens:,} tokens '
          f'({tokens / count:.1f} a parameter), peak learning rate {config.optim.learning_rate:g}')
  log.say(f'mesh {dict(mesh.shape)} on {jax.devices()[0].device_kind}'
          + (f'; goes on from step {step}' if step else ''))


def show_samples(engine: Engine, tokenizer: Any, config: Config, log: metrics.Log, step: int,
                 state: Any) -> None:
  """Continues the prompts with the parameters of this step."""
  prompts = [[tokenizer.end, *tokenizer.encode(prompt)] for prompt in config.prompts]
  each = [dataclasses.replace(config.sample, seed=config.sample.seed + row)
          for row in range(len(prompts))]
  for prompt, made in zip(config.prompts, engine.generate(state.params, prompts, each)):
    log.text(step, 'sample', prompt, tokenizer.decode(made.ids))


if __name__ == '__main__':
  flags.run(main, Config)
