"""Direct preference optimisation: a policy learns from rankings, without a reward model or RL.

python -m experiments.preference --flagfile=experiments/configs/preference/laptop.flags
"""

import dataclasses
import functools
import json
import pathlib
from typing import Any, Sequence

import jax
import numpy as np
import optax

from experiments import sft, training, workdir
from nanollm_jax import InputError, flags, mesh as mesh_lib
from nanollm_jax.data import rankings
from nanollm_jax.data.rankings import Ranked, RankingDataConfig
from nanollm_jax.eval import bits_per_byte
from nanollm_jax.mesh import MeshConfig
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.objectives import preference
from nanollm_jax.objectives.preference import PreferenceConfig
from nanollm_jax.sample.engine import Engine, Sampling
from nanollm_jax.text import known
from nanollm_jax.text.chat import Chat
from nanollm_jax.train import loop
from nanollm_jax.train.optim import OptimConfig


@dataclasses.dataclass(frozen=True)
class Config:
  """Direct preference optimisation.

  workdir: where everything of the run goes; a run that is there goes on.
  init_from: the workdir of the policy, which is also the reference.
  epochs: passes over the rankings where --fit.steps is unset.
  prompts: what a user says while the model learns.
  """
  workdir: str = 'runs/preference'
  init_from: str = 'runs/sft'
  epochs: float = 1.0
  prompts: tuple[str, ...] = ('Tell me a joke about a pelican.',)
  model: ModelConfig = ModelConfig()
  data: RankingDataConfig = RankingDataConfig()
  preference: PreferenceConfig = PreferenceConfig()
  optim: OptimConfig = OptimConfig(schedule='linear', final=0.0, weight_decay=0.0)
  fit: loop.FitConfig = loop.FitConfig()
  mesh: MeshConfig = MeshConfig()
  sample: Sampling = Sampling(max_tokens=128)


def main(config: Config) -> None:
  # 1. Who we are.
  mesh_lib.connect()
  if not config.init_from:
    raise InputError('--init_from is empty: preferences finetune a policy, so give its workdir.')
  tokenizer = known.from_name_or_file(config.init_from)
  chat = Chat(tokenizer)
  config = dataclasses.replace(config, model=workdir.model_from(config.init_from, config.model))
  with mesh_lib.first():
    held = rankings.prepare(config.data, chat, config.model.context, config.workdir)
  config = training.finetuned(config, len(held['train']), batch_size=16, rate=0.02)
  size = rankings.size([one for some in held.values() for one in some], config.model.context)
  run = training.Run('Preferences', config, tokenizer, rows=size)

  # 2. Where batches come from.
  if config.preference.loss != 'simpo':
    same_reference(config, workdir.open_model(config.init_from, run.mesh).params)
    held = {split: referred(run, some, size) for split, some in held.items()}
  batches = run.batches(held['train'], rankings.Batches, completions=size[0], length=size[1])

  # 3. What is minimised.
  objective = preference.rankings(run.apply, config.preference)
  run.start(batches)

  # 4. What we watch.
  engine = Engine(config.model, [chat.end_of_turn, tokenizer.end], slots=16)
  hooks = [sft.showing(engine, chat, config, run.log)]
  if 'validation' in held:
    measured = jax.jit(objective)
    hooks.append(loop.Hook(config.fit.eval_every, lambda _, state: {
        f'validation/{name}': value for name, value in bits_per_byte.evaluate(
            measured, state.params, in_order(run, held['validation'], size),
            config.fit.eval_batches).items()}))

  # 5. Go.
  run.fit(objective, batches, hooks)


def same_reference(config: Config, params: Any) -> None:
  """Raises InputError where a run goes on with another reference than it began with."""
  norm = float(optax.global_norm(params))  # by which it is known again
  path = pathlib.Path(config.workdir) / 'reference.json'
  begun = (path.parent / 'checkpoints').is_dir() and any((path.parent / 'checkpoints').iterdir())
  if begun and path.exists() and not np.isclose(json.loads(path.read_text()), norm, rtol=1e-5):
    raise InputError(f'--init_from={config.init_from} holds another model than this run began as, '
                     'and preferences are measured from that: give the one it began as, or another '
                     '--workdir to begin anew.')
  if jax.process_index() == 0:
    path.write_text(json.dumps(norm))


def in_order(run: training.Run, held: Sequence[Ranked], size: tuple[int, int]) -> Any:
  """Yields rankings once, in batches on the devices."""
  index, count = mesh_lib.share(run.mesh)
  ours, rows = held[index::count], run.config.fit.batch_size // count
  for at in range(0, -(-len(held) // count), rows):
    batch = rankings.batch_of(ours[at:at + rows], rows, *size)
    if run.config.preference.loss != 'simpo':  # one without rankings has none
      batch.setdefault('ref_logprobs', np.zeros((rows, size[0]), np.float32))
    yield run.put(batch)


def referred(run: training.Run, held: Sequence[Ranked], size: tuple[int, int]) -> list[Ranked]:
  """Rankings with the log-probabilities of the model that the policy begins as."""
  params = workdir.open_model(run.config.init_from, run.mesh).params
  rows, found = run.config.fit.batch_size, []
  with mesh_lib.use(run.mesh):
    said = jax.jit(functools.partial(preference.completion_logprobs, run.apply),
                   out_shardings=mesh_lib.sharding(run.mesh))
    for at in range(0, len(held), rows):
      some = held[at:at + rows]
      for one, logprobs in zip(some, np.asarray(said(params, rankings.batch_of(some, rows, *size)))):
        found.append(one._replace(ref_logprobs=logprobs[:len(one.ids)]))
  return found


if __name__ == '__main__':
  flags.run(main, Config)
