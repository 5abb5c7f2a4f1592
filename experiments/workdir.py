"""A workdir: what one run leaves and the next one opens with --init_from."""

import dataclasses
import json
import pathlib
from typing import Any, NamedTuple

import jax

from nanollm_jax import InputError, checkpoint, flags, mesh as mesh_lib, metrics
from nanollm_jax.model import transformer
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.text import known
from nanollm_jax.text.tokenizer import Tokenizer

# Flags that a run may change when it goes on in its workdir; all others make it another run.
MAY_CHANGE = ('workdir', 'init_from', 'tokenizer', 'prompts', 'data.workers', 'fit.steps',
              'fit.log_every', 'fit.eval_', 'fit.sample_every', 'fit.save_every', 'fit.keep',
              'fit.patience', 'fit.profile_steps', 'model.remat', 'model.attention', 'mesh.',
              'sample.')
# Of a model: what may differ from the run that it comes from.
FREE = ('context', 'dtype', 'remat', 'attention')


@dataclasses.dataclass(frozen=True)
class _Stored:
  """The part of a run.flags that says which model a workdir holds."""
  model: ModelConfig = ModelConfig()


class Opened(NamedTuple):
  """A trained model: its resolved config, its parameters and its tokenizer."""
  model: ModelConfig
  params: transformer.Params
  tokenizer: Tokenizer


def open_model(workdir: str, mesh: Any = None, step: int | None = None,
               beside: transformer.Params | None = None) -> Opened:
  """Opens the newest (or given) checkpoint of a workdir, on one device or sharded over a mesh.

  Of what a stage has `beside` the model, only what has the names and shapes given here is read.
  """
  config = model_of(workdir)
  shapes = jax.eval_shape(lambda key: transformer.init(config, key), jax.random.key(0))
  shapes |= jax.eval_shape(lambda: beside or {})
  if mesh is None:
    place = jax.tree.map(lambda _: jax.sharding.SingleDeviceSharding(jax.devices()[0]), shapes)
  else:
    place = mesh_lib.tree_sharding(mesh, transformer.logical_axes(config))
    place |= jax.tree.map(lambda _: mesh_lib.sharding(mesh), beside or {})
  params = checkpoint.load_params(workdir, with_sharding(shapes, place), step)
  return Opened(config, params, known.from_name_or_file(workdir))


def model_of(workdir: str) -> ModelConfig:
  """The resolved model that a workdir holds."""
  stored = pathlib.Path(workdir) / 'run.flags'
  if not stored.exists():
    raise InputError(f'--init_from={workdir} is not a workdir (it has no run.flags): give the '
                     '--workdir of a finished run, such as runs/pretrain.')
  model = flags.parse(_Stored(), stored.read_text()).model
  if model.width is None:
    raise InputError(f'--init_from={workdir} holds no model: give the --workdir of a run that '
                     'trained one, such as runs/pretrain.')
  return model.resolve()


def model_from(init_from: str, given: ModelConfig) -> ModelConfig:
  """The model of --init_from with those of the FREE fields that are given here.

  Raises InputError where another field is given and differs: its shape cannot be changed.
  """
  model = model_of(init_from)
  changed = {name: value for name, value in dataclasses.asdict(given).items()
             if value not in (None, getattr(model, name))}
  fixed = set(changed) - set(FREE) | ({'context'} if model.positions == 'learned' else set())
  if wrong := sorted(fixed & set(changed)):
    raise InputError(f'--model.{wrong[0]}={changed[wrong[0]]} differs from the model in '
                     f'--init_from={init_from}: leave the flag out.')
  return dataclasses.replace(model, **changed)


def with_sharding(shapes: Any, shardings: Any) -> Any:
  """A tree of ShapeDtypeStructs that also say where each array lives."""
  return jax.tree.map(
      lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
      shapes, shardings)


def begin(config: Any, tokenizer: Tokenizer, extra: dict[str, Any]) -> None:
  """Writes run.flags, tokenizer.json and environment.json, or checks them against a run there.

  Raises InputError where the workdir holds a run of another stage, with other flags or another
  tokenizer.
  """
  folder = pathlib.Path(config.workdir)
  if (folder / 'checkpoints').is_dir() and any((folder / 'checkpoints').iterdir()):
    about = folder / 'environment.json'
    stage = json.loads(about.read_text()).get('stage') if about.exists() else extra['stage']
    if stage != extra['stage']:
      raise InputError(f'--workdir={folder} holds a run of another stage, {stage}: give another '
                       '--workdir.')
    before = flags.parse(config, (folder / 'run.flags').read_text())
    changed = [(name, old, new) for (name, _, new, _), (_, _, old, _) in
               zip(flags.leaves(config), flags.leaves(before))
               if old != new and not name.startswith(MAY_CHANGE)]
    if changed:
      listed = ', '.join(f'--{name}={old} (now {new})' for name, old, new in changed)
      raise InputError(f'--workdir={folder} holds a run with {listed}: give its flags to go on, '
                       'or another --workdir to begin anew.')
    if known.from_name_or_file(folder).fingerprint != tokenizer.fingerprint:
      raise InputError(f'--workdir={folder} was trained with another tokenizer: give that one, or '
                       'another --workdir to begin anew.')
  if jax.process_index() == 0:
    flags.save(config, folder)
    tokenizer.save(folder / 'tokenizer.json')
    aside = folder / 'environment.json.partial'  # the others may read meanwhile
    aside.write_text(json.dumps(metrics.environment() | extra, indent=1))
    aside.replace(folder / 'environment.json')
