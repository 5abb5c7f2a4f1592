"""The device mesh: processes that join, logical axes, shardings born from them."""

import contextlib
import dataclasses
import functools
import os
from typing import Any, Callable, Iterator

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from orbax.checkpoint import multihost

from nanollm_jax import InputError

# Logical axis -> mesh axes. The one place where the model's names meet the devices.
RULES = (
    ('batch', ('data', 'fsdp')),
    ('time', None),
    ('width', 'fsdp'),
    ('heads', 'tensor'),
    ('mlp', 'tensor'),
    ('vocabulary', 'tensor'),
    ('layer', None),
)


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """How the devices are laid out.

  data: replicas of the parameters, each with its own rows; 0 means all devices that are left.
  fsdp: devices that share rows of the batch and one sharded copy of the parameters.
  tensor: devices that share heads, MLP and vocabulary of every layer.
  """

  data: int = 0
  fsdp: int = 1
  tensor: int = 1

  def __post_init__(self):
    if self.data < 0 or self.fsdp < 1 or self.tensor < 1:
      raise InputError(f'--mesh.data={self.data} --mesh.fsdp={self.fsdp} --mesh.tensor='
                       f'{self.tensor}: axes are positive (data may be 0: all that is left).')


def connect() -> None:
  """Joins the other processes of this job, where its launcher says that there are some.

  JAX_NUM_PROCESSES=auto leaves all to JAX, which knows Slurm, TPU VMs and Kubernetes; a number
  needs JAX_COORDINATOR_ADDRESS=host:port and JAX_PROCESS_ID beside it. A process that is gone is
  noticed at the next collective, or after JAX_HEARTBEAT_SECONDS (60).

  Raises InputError where the variables cannot be used or the others do not come.
  """
  count = os.environ.get('JAX_NUM_PROCESSES', '1')
  if count == '1' or jax.distributed.is_initialized():
    return
  try:
    where = {} if count == 'auto' else dict(
        coordinator_address=os.environ['JAX_COORDINATOR_ADDRESS'], num_processes=int(count),
        process_id=int(os.environ['JAX_PROCESS_ID']))
    jax.config.update('jax_enable_preemption_service', False)  # it would swallow SIGTERM
    jax.distributed.initialize(
        **where, heartbeat_timeout_seconds=int(os.environ.get('JAX_HEARTBEAT_SECONDS', 60)))
  except (KeyError, ValueError, RuntimeError) as error:
    raise InputError(
        f'JAX_NUM_PROCESSES={count}: this process could not join the others ({error}): set it to '
        'auto on Slurm, TPU VMs and Kubernetes, or set JAX_COORDINATOR_ADDRESS=host:port and '
        'JAX_PROCESS_ID too, and start every process.') from error


@contextlib.contextmanager
def first() -> Iterator[None]:
  """The first process goes through the block before the others: it makes files that all read."""
  meet = multihost.get_barrier_sync_fn()  # unlike a collective, it waits as long as it must
  if jax.process_index():
    meet(key='first', timeout_ms=24 * 3_600_000)
  yield
  if not jax.process_index():
    meet(key='first', timeout_ms=24 * 3_600_000)


def share(mesh: Mesh) -> tuple[int, int]:
  """Which of how many slices of a global batch this process's devices hold: (index, count)."""
  held: dict[int, set[int]] = {}
  size = mesh.shape['data'] * mesh.shape['fsdp']
  for device, (rows,) in sharding(mesh, 'batch').devices_indices_map((size,)).items():
    held.setdefault(device.process_index, set()).add(rows.start or 0)
  slices = sorted({tuple(sorted(rows)) for rows in held.values()})
  return slices.index(tuple(sorted(held[jax.process_index()]))), len(slices)


def make(config: MeshConfig, devices: list[jax.Device] | None = None) -> Mesh:
  """Lays the devices out as (data, fsdp, tensor); InputError if their number does not fit."""
  devices = jax.devices() if devices is None else devices
  inner = config.fsdp * config.tensor
  data = config.data or max(1, len(devices) // inner)
  if data * inner != len(devices):
    raise InputError(
        f'--mesh.data={config.data} --mesh.fsdp={config.fsdp} --mesh.tensor={config.tensor} need '
        f'{data * inner} devices, but there are {len(devices)}: choose axes whose product is '
        f'{len(devices)} (each one of {_divisors(len(devices))}), or leave --mesh.data=0.')
  return jax.make_mesh((data, config.fsdp, config.tensor), ('data', 'fsdp', 'tensor'),
                       axis_types=(AxisType.Auto,) * 3, devices=devices)


@contextlib.contextmanager
def use(mesh: Mesh) -> Iterator[Mesh]:
  """Makes the mesh and the rule table current: every jitted function is traced inside this."""
  with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
    yield mesh


def sharding(mesh: Mesh, *logical: str | None) -> NamedSharding:
  """The sharding of an array whose axes have these logical names."""
  return NamedSharding(mesh, nn.logical_to_mesh_axes(logical, RULES))


def tree_sharding(mesh: Mesh, logical_tree: Any) -> Any:
  """Shardings for a tree of logical PartitionSpecs (`transformer.logical_axes`)."""
  return jax.tree.map(lambda spec: sharding(mesh, *spec), logical_tree,
                      is_leaf=lambda leaf: isinstance(leaf, PartitionSpec))


def like_params(tree: Any, param_shardings: Any, mesh: Mesh) -> Any:
  """Shardings for a tree that holds copies of the parameters (optimizer state, a train state).

  A leaf whose path ends in a parameter's path has that parameter's sharding; all else is
  replicated.
  """
  name = functools.partial(jax.tree_util.keystr, simple=True, separator='/')
  known = {name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(param_shardings)}

  def choose(path, leaf):
    ends = (known.get(name(path[start:])) for start in range(len(path)))
    return next((end for end in ends if end and len(end.spec) == leaf.ndim),
                NamedSharding(mesh, PartitionSpec()))

  return jax.tree_util.tree_map_with_path(choose, tree)


def born(mesh: Mesh, build: Callable[..., Any], shardings: Any, *args: Any) -> Any:
  """Runs `build(*args)` so that its results are created sharded; nothing is ever gathered."""
  with use(mesh):
    return jax.jit(build, out_shardings=shardings)(*args)


def put(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
  """This process's rows of a batch to the devices: the first axis is the global batch."""
  rows = functools.partial(jax.make_array_from_process_local_data, sharding(mesh, 'batch'))
  return {name: rows(np.asarray(value)) for name, value in batch.items()}


def check(mesh: Mesh, batch_size: int, microbatches: int,
          sizes: dict[str, tuple[str, int]]) -> None:
  """Refuses what does not divide, and says what would; `sizes` is flag: (mesh axis, size)."""
  rows = mesh.shape['data'] * mesh.shape['fsdp'] * microbatches
  if batch_size % rows:
    raise InputError(
        f'--fit.batch_size={batch_size} does not divide over {mesh.shape["data"]} data x '
        f'{mesh.shape["fsdp"]} fsdp devices x {microbatches} microbatches: give a multiple of '
        f'{rows}, such as {-(-batch_size // rows) * rows}.')
  for flag, (axis, size) in sizes.items():
    if size % mesh.shape[axis]:
      raise InputError(f'--{flag}={size} does not divide over --mesh.{axis}={mesh.shape[axis]}: '
                       f'choose --mesh.{axis} among {_divisors(size)}, or another --{flag}.')


def _divisors(size: int) -> list[int]:
  return [n for n in range(1, size + 1) if size % n == 0]
