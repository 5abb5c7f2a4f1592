"""A training run: what every stage shares, whatever its batches are and whatever it minimises."""

import contextlib
import dataclasses
import functools
import math
from typing import Any, Callable, Iterable

import jax

from experiments import workdir
from nanollm_jax import InputError, checkpoint, mesh as mesh_lib, metrics, report
from nanollm_jax.data import pipeline
from nanollm_jax.eval import bits_per_byte
from nanollm_jax.model import attention, config as model_lib, transformer
from nanollm_jax.train import loop, optim, state as state_lib, step as step_lib


class Run:
  """A run in its workdir; a run that is there goes on.

  config: a stage's resolved config: workdir, init_from, model, optim, fit and mesh.
  apply: the model, (params, tokens, positions, segment_ids) -> Output.
  state: where `fit` begins, and log: takes numbers and texts; both from `start` on.
  beside: first values of parameters that the stage has beside the model's, by their own names.
  rows: (how many, how long) rows of an element of the batch, each a text of its own; by default
    it is one packed row of the context.
  """

  def __init__(self, stage: str, config: Any, tokenizer: Any, *,
               beside: transformer.Params | None = None, rows: tuple[int, int] | None = None):
    fit = config.fit
    self.stage, self.config, self._tokenizer = stage, config, tokenizer
    self._beside, self._packed = beside or {}, rows is None
    self._rows, self._length = rows or (1, config.model.context)
    self.mesh = mesh_lib.make(config.mesh)
    mesh_lib.check(self.mesh, fit.batch_size, fit.microbatches,
                   model_lib.sharded_sizes(config.model))
    self.parameters = transformer.count(config.model)
    workdir.begin(config, tokenizer, dict(stage=stage, parameters=self.parameters,
                                          mesh=dict(self.mesh.shape)))
    self.checkpoints = checkpoint.Checkpoints(config.workdir, fit.keep)
    model = transformer.Transformer(config.model)
    self.apply = lambda params, *args, **kwargs: model.apply({'params': params}, *args, **kwargs)
    self.put = functools.partial(mesh_lib.put, self.mesh)
    self._optimizer = optim.make(config.optim, config.optim.learning_rate, fit.steps)

  def batches(self, source: Any, make: Callable[..., Any] = pipeline.batches,
              **changes: Any) -> Any:
    """Batches of our process's slice of a source, packed if not made in another way."""
    fit, (index, count) = self.config.fit, mesh_lib.share(self.mesh)
    return make(source, **dict(
        batch_size=fit.batch_size // count, length=self.config.model.context, seed=fit.seed,
        process_index=index, process_count=count) | changes)

  def start(self, batches: Any, prepare: Callable[[Any], Any] = lambda params: params) -> None:
    """Makes the state: from our newest checkpoint, else --init_from prepared, else fresh."""
    config = self.config
    with mesh_lib.use(self.mesh):
      born, shapes, self._shardings = fresh(config, self.mesh, self._optimizer, self._beside)
      if self.checkpoints.latest() is not None:  # nothing is born: two states may not fit
        self.state, position = self.checkpoints.restore(
            workdir.with_sharding(shapes, self._shardings))
        if position is not None:
          batches.set_state(position)
      else:
        self.state = born()
        if config.init_from:
          loaded = prepare(_loaded(config, self.mesh, self._tokenizer))
          self.state = self.state._replace(params=self.state.params | loaded)
    tokens = config.fit.batch_size * self._rows * self._length
    self.log = metrics.Log(
        config.workdir, from_step=int(self.state.step), steps=config.fit.steps,
        tokens_per_step=tokens,
        flops_per_step=tokens * model_lib.flops_per_token(config.model, self._length))
    self._introduce()

  def _introduce(self) -> None:
    """Says what is about to happen, with the formulas behind the numbers."""
    model, fit, step = self.config.model, self.config.fit, int(self.state.step)
    name, in_the_way = model.exportable_as()
    tokens = fit.steps * fit.batch_size * self._rows * self._length
    say = self.log.say
    say(f'{model.family} {model.depth} layers x {model.width}: {self.parameters:,} parameters; '
        + (f'exports as {name}' if name else f'not exportable ({", ".join(in_the_way)})'))
    say(model_lib.flops_formula(model, self._length))
    say(f'{fit.steps:,} steps x {fit.batch_size * self._rows} rows x {self._length} = {tokens:,} '
        f'tokens ({tokens / self.parameters:.1f} a parameter), peak learning rate '
        f'{self.config.optim.learning_rate:g}')
    with mesh_lib.use(self.mesh):
      say(attention.announce(model, fit.batch_size // fit.microbatches * self._rows, self._length,
                             self._packed))
    say(f'mesh {dict(self.mesh.shape)} on {jax.devices()[0].device_kind}'
        + (f'; goes on from step {step}' if step else ''))
    if step >= fit.steps:
      say(f'--workdir={self.config.workdir} is at step {step:,} of {fit.steps:,} already: raise '
          '--fit.steps to train on, or give another --workdir to begin anew')

  def validation(self, objective: Any, source: Any, name: str = 'validation') -> loop.Hook:
    """A hook that measures every metric of an objective on held-out rows."""
    fit, measure = self.config.fit, jax.jit(objective)
    def call(_, state):
      batches = map(self.put, self.batches(source, seed=0, epochs=1, shuffle=False))
      found = bits_per_byte.evaluate(measure, state.params, batches, fit.eval_batches)
      return {f'{name}/{metric}': value for metric, value in found.items()}
    return loop.Hook(fit.eval_every, call)

  def fit(self, objective: Any, batches: Any, hooks: Iterable[loop.Hook]) -> Any:
    """Trains to the last step and writes the report, whatever happens; returns the state."""
    config = self.config
    step = jax.jit(
        functools.partial(step_lib.train_step, objective=objective, optimizer=self._optimizer,
                          microbatches=config.fit.microbatches),
        donate_argnums=0, out_shardings=(self._shardings, None))
    with contextlib.ExitStack() as last:  # each of them is done, though a full disk stop another
      last.callback(self._report)
      for part in (self.checkpoints, batches, self.log):
        last.callback(part.close)
      last.enter_context(mesh_lib.use(self.mesh))
      return loop.fit(self.state, step, batches, config=config.fit, put=self.put, log=self.log,
                      checkpoints=self.checkpoints, hooks=hooks)

  def _report(self) -> None:
    if jax.process_index() == 0:
      folder = self.config.workdir
      self.log.say(f'wrote {report.write(folder, f"{self.stage}: {folder}")}')


def finetuned(config: Any, elements: float, *, batch_size: int, rate: float) -> Any:
  """Fills in what is unset: the batch, the steps of --epochs over so many elements of a batch, and
  the learning rate, `rate` times that of pretraining at this width."""
  fit, peak = config.fit, config.optim.learning_rate
  if not 0 < config.epochs < math.inf:
    raise InputError(f'--epochs={config.epochs}: give a number above 0.')
  batch_size = fit.batch_size or batch_size
  steps = fit.steps or max(1, round(config.epochs * elements / batch_size))
  peak = rate * optim.default_learning_rate(config.model.width) if peak is None else peak
  return dataclasses.replace(
      config, fit=dataclasses.replace(fit, batch_size=batch_size, steps=steps),
      optim=dataclasses.replace(config.optim, learning_rate=peak))


def fresh(config: Any, mesh: Any, optimizer: Any, beside: transformer.Params | None = None
          ) -> tuple[Callable[[], Any], Any, Any]:
  """What makes the first state, born sharded; its shapes; its shardings.

  What is `beside` the model is among its parameters, replicated.
  """
  def build(key):
    params_key, key = jax.random.split(key)
    params = transformer.init(config.model, params_key) | (beside or {})
    return state_lib.create(params, optimizer, key)
  key = jax.random.key(config.fit.seed)
  shapes = jax.eval_shape(build, key)
  shardings = mesh_lib.like_params(
      shapes, mesh_lib.tree_sharding(mesh, transformer.logical_axes(config.model)), mesh)
  return functools.partial(mesh_lib.born, mesh, build, shardings, key), shapes, shardings


def _loaded(config: Any, mesh: Any, tokenizer: Any) -> Any:
  """The parameters of --init_from, which must have our shape and our tokenizer."""
  opened = workdir.open_model(config.init_from, mesh)
  if opened.tokenizer.fingerprint != tokenizer.fingerprint:
    raise InputError(f'--init_from={config.init_from} was trained with another tokenizer: give '
                     f'--tokenizer={config.init_from}.')
  free = {name: getattr(opened.model, name) for name in workdir.FREE
          if name != 'context' or opened.model.positions == 'rope'}
  if opened.model != dataclasses.replace(config.model, **free):
    raise InputError(f'--init_from={config.init_from} holds another model: give the --model '
                     'flags of its run.flags.')
  return opened.params
