"""Our steps compiled for TPU pods by the real TPU compiler, on a machine that has none.

python -m experiments.bench.tpu_aot --bench.models=gpt2-1558m --bench.topologies=v5e-256

Needs libtpu (pip install -e .[tpu]). Memory is the compiler's own count; bytes of collectives are
read from the program it schedules. Times are a roofline estimate: nothing was run.
"""

import dataclasses
import functools
import importlib.util
import math
import os
import pathlib
import re
import time
from typing import Any, Iterator, Literal, NamedTuple

import jax
import jax.numpy as jnp

from experiments import workdir
from experiments.bench import train
from nanollm_jax import InputError, flags, mesh as mesh_lib, metrics
from nanollm_jax.model import config as model_lib, transformer
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.objectives import language
from nanollm_jax.sample.engine import Engine
from nanollm_jax.train import optim, state as state_lib, step as step_lib

CHUNK = 32  # tokens of a row in one call of the engine's decoding
MODELS = pathlib.Path(__file__).parents[1] / 'configs' / 'model'


class Topology(NamedTuple):
  """What libtpu calls a slice; of a chip GB of memory and bytes/s that leave it over all links.

  `cores`: how libtpu takes a chip's cores; a device is to be a whole chip.
  """
  name: str
  memory_gb: float
  links: float
  cores: str = 'default'


# By Google's names, which count cores where a chip has two (v4, v5p). Data sheets, one direction.
TOPOLOGIES = {
    'v4-8': Topology('v4:2x2x1', 32, 2.7e11, 'megacore'),
    'v4-16': Topology('v4:2x2x2', 32, 2.7e11, 'megacore'),
    'v5e-4': Topology('v5e:2x2', 16, 1.8e11), 'v5e-16': Topology('v5e:4x4', 16, 1.8e11),
    'v5e-256': Topology('v5e:16x16', 16, 1.8e11), 'v5p-16': Topology('v5p:2x2x2', 95, 5.4e11),
    'v5p-32': Topology('v5p:2x2x4', 95, 5.4e11), 'v6e-16': Topology('v6e:4x4', 32, 3.6e11)}


@dataclasses.dataclass(frozen=True)
class BenchConfig:
  """What is compiled.

  models: flagfiles of experiments/configs/model, or toy.
  topologies: v4-8, v4-16, v5e-4, v5e-16, v5e-256, v5p-16, v5p-32 or v6e-16.
  fsdp: devices that share one copy of the parameters; 0 means 16, or all if there are fewer.
  tensor: devices that share heads, MLP and vocabulary.
  rows: rows of the batch a device; 0 means 8,192 tokens.
  context: positions of a row; 0 means the model's.
  remat: none, dots or full.
  attention: auto, which is splash, or xla.
  decode: also compile the engine's decoding of 32 tokens, of as many rows a device.
  xla: options of the TPU's compiler, each name=value, as LIBTPU_INIT_ARGS would hand them on.
  out: a file to write the numbers to as JSON.
  """
  models: tuple[str, ...] = ('gpt2-124m',)
  topologies: tuple[str, ...] = ('v5e-16',)
  fsdp: int = 0
  tensor: int = 1
  rows: int = 0
  context: int = 0
  remat: Literal['none', 'dots', 'full'] = 'full'
  attention: Literal['auto', 'xla', 'splash'] = 'auto'
  decode: bool = True
  xla: tuple[str, ...] = ()
  out: str = ''

  def __post_init__(self):
    known = ['toy', *(path.stem for path in sorted(MODELS.glob('*.flags')))]
    for kind, names in (('models', known), ('topologies', TOPOLOGIES)):
      for name in getattr(self, kind):
        if name not in names:
          raise InputError(f'--bench.{kind}={name} is not known: choose among {", ".join(names)}.')
    for option in self.xla:
      if not re.fullmatch(r'xla_\w+=\S+', option):
        raise InputError(f'--bench.xla={option}: give xla_name=value.')


@dataclasses.dataclass(frozen=True)
class Config:
  """The ahead-of-time compilation."""
  bench: BenchConfig = BenchConfig()


@dataclasses.dataclass(frozen=True)
class _Preset:
  model: ModelConfig = ModelConfig()


def model_of(name: str, config: BenchConfig) -> ModelConfig:
  """A preset's resolved model, its layers scanned, its vocabulary a multiple of 128."""
  if name == 'toy':
    given = ModelConfig(depth=2, width=128, heads=2, vocabulary=256, context=128, dtype='bfloat16')
  else:
    given = flags.parse(_Preset(), (MODELS / f'{name}.flags').read_text()).model
  return dataclasses.replace(
      given, scan=True, remat=config.remat, attention=config.attention,
      vocabulary=given.vocabulary or 50304, context=config.context or given.context).resolve()


def training_step(model: ModelConfig, mesh: Any, rows: int) -> jax.stages.Lowered:
  """The step of experiments.training over packed rows, lowered for the mesh; nothing is made."""
  optimizer = optim.make(optim.OptimConfig(), 1e-4, 10_000)
  create = lambda key: state_lib.create(transformer.init(model, key), optimizer, key)
  shapes = jax.eval_shape(create, jax.random.key(0))
  shardings = mesh_lib.like_params(
      shapes, mesh_lib.tree_sharding(mesh, transformer.logical_axes(model)), mesh)
  network = transformer.Transformer(model)
  objective = language.next_token(
      lambda params, *args, **kwargs: network.apply({'params': params}, *args, **kwargs),
      jnp.ones(model.vocabulary, jnp.int32))
  step = jax.jit(
      functools.partial(step_lib.train_step, objective=objective, optimizer=optimizer),
      donate_argnums=0, out_shardings=(shardings, None))
  batch = jax.ShapeDtypeStruct((rows, model.context), jnp.int32,
                               sharding=mesh_lib.sharding(mesh, 'batch'))
  with mesh_lib.use(mesh):
    return step.lower(workdir.with_sharding(shapes, shardings),
                      dict.fromkeys(('tokens', 'segment_ids', 'positions'), batch))


def decoding(model: ModelConfig, mesh: Any, rows: int) -> jax.stages.Lowered:
  """The engine's decoding of CHUNK tokens of all rows, of caches of the whole context."""
  engine = Engine(model, [0], slots=rows, chunk=CHUNK, lanes=1)
  plain = engine.config
  shapes = jax.eval_shape(
      lambda key: engine._cast(transformer.init(plain, key)), jax.random.key(0))
  params = workdir.with_sharding(
      shapes, mesh_lib.tree_sharding(mesh, transformer.logical_axes(plain)))
  def place(leaf):
    logical = ('batch', 'heads') if leaf.ndim == 4 else ('batch',)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype,
                                sharding=mesh_lib.sharding(mesh, *logical))
  slots = jax.tree.map(place, jax.eval_shape(lambda: engine._empty(length=model.context)))
  ids = jax.ShapeDtypeStruct((1,), jnp.int32, sharding=mesh_lib.sharding(mesh))
  with mesh_lib.use(mesh):
    return engine._decode.lower(params, slots, ids, truncate=False)


class Collective(NamedTuple):
  """One collective of a program: bytes that it sends from each device in a step."""
  kind: str
  sent: float
  overlapped: bool  # it runs beside other work, from a start to a done


CALL = re.compile(r'(?:calls|body|condition)=%([\w.-]+)')
COLLECTIVE = re.compile(r' = (.*?) (all-gather|all-reduce|reduce-scatter|all-to-all|'
                        r'collective-permute)(-start)?\((.*)')
ARRAY = re.compile(r'\b(?:pred|[a-z]+(\d+))\[([\d,]*)\]')


def collectives(text: str) -> list[Collective]:
  """Those of a compiled TPU program, those in a loop as often as it runs.

  A collective of several asynchronous parts, which share a chain, counts once.
  """
  bodies = dict(_computations(text))
  times = {name: 0 for name in bodies}
  def visit(name: str, count: int) -> None:
    times[name] += count
    for line in bodies[name]:
      trips = 1
      if ' while(' in line and (condition := re.search(r'condition=%([\w.-]+)', line)):
        bounds = [int(n) for n in re.findall(r'constant\((\d+)\)', '\n'.join(bodies[condition[1]]))]
        trips = max(bounds, default=1)
      for called in CALL.findall(line):
        visit(called, count * trips)
  visit(next(name for name in bodies if bodies[name][0].startswith('ENTRY')), 1)
  found = {}
  for name, lines in bodies.items():
    for number, line in enumerate(lines):
      if times[name] and (match := COLLECTIVE.search(line)):
        chain = re.search(r'chain_id="(\d+)"', line)
        channel = re.search(r'channel_id=(\d+)', line)
        key = (channel and channel[1], chain[1]) if chain else (name, number)
        scatter = name.startswith('all-reduce-scatter')
        kind = 'reduce-scatter' if scatter else match[2]
        size, devices = _bytes(match[1]), _group(match[4])
        if match[3] and kind == 'all-gather':  # a start's result holds the operand too
          size *= devices / (devices + 1)
        if match[3] and kind == 'collective-permute':
          size /= 2
        share = (devices - 1) / devices
        factor = {'all-reduce': 2 * share, 'collective-permute': 1,
                  'reduce-scatter': share if scatter else devices - 1}.get(kind, share)
        if factor * size:
          found.setdefault(key, Collective(
              kind, times[name] * factor * size, bool(chain or match[3])))
  return list(found.values())


def _computations(text: str) -> Iterator[tuple[str, list[str]]]:
  name, lines = None, []
  for line in text.splitlines():
    if head := re.match(r'(?:ENTRY )?%([\w.-]+) \(', line):
      name, lines = head[1], []
    lines.append(line)
    if line == '}' and name:
      yield name, lines
      name = None


def _bytes(shape: str) -> float:
  return sum(int(bits or 8) / 8 * math.prod(int(n) for n in sizes.split(',') if n)
             for bits, sizes in ARRAY.findall(re.sub(r'\{[^}]*\}', '', shape)))


def _group(attributes: str) -> int:
  """How many devices take part: the size of a replica group, in any of its three spellings."""
  if one := re.search(r'replica_groups=\{\{([\d,]*)\}', attributes):
    return one[1].count(',') + 1
  if one := re.search(r'replica_groups=\[\d+,(\d+)\]<=', attributes):
    return int(one[1])
  if one := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", attributes):
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", one[1]))
    return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", one[2]))
  return 2 if 'source_target_pairs' in attributes else 1


def compile_one(name: str, topology: str, part: str, config: BenchConfig) -> dict[str, Any]:
  """Compiles one step of one model for one topology; returns its row of numbers."""
  from jax.experimental import topologies
  about, model = TOPOLOGIES[topology], model_of(name, config)
  devices = topologies.get_topology_desc(
      platform='tpu', topology_name=about.name, chip_config_name=about.cores).devices
  inner = config.fsdp or min(16, len(devices) // config.tensor)
  mesh = mesh_lib.make(mesh_lib.MeshConfig(fsdp=inner, tensor=config.tensor), devices)
  mesh_lib.check(mesh, len(devices), 1, model_lib.sharded_sizes(model))
  rows = (config.rows or max(1, 8192 // model.context)) * len(devices) // config.tensor
  kind = devices[0].device_kind
  row: dict[str, Any] = dict(
      model=name, topology=topology, devices=len(devices), kind=kind, part=part,
      mesh='x'.join(str(size) for size in mesh.shape.values()), rows=rows, context=model.context,
      parameters=transformer.count(model), memory_of_device_gb=about.memory_gb)
  since = time.perf_counter()
  lowered = (training_step if part == 'train' else decoding)(model, mesh, rows)
  try:
    compiled = lowered.compile(dict(option.split('=', 1) for option in config.xla))
  except jax.errors.JaxRuntimeError as error:
    if 'No such compile option' in str(error):
      raise InputError(f'--bench.xla={",".join(config.xla)}: this libtpu says {error}.') from error
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    return row | dict(fits=False, why=str(error).splitlines()[0][:300],
                      compile_seconds=time.perf_counter() - since)
  memory, found = compiled.memory_analysis(), collectives(compiled.as_text())
  held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
  total = held + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
  kinds = {one.kind: 0.0 for one in found}
  for one in found:
    kinds[one.kind] += one.sent
  return row | dict(
      compile_seconds=time.perf_counter() - since, held_gb=held / 1e9, total_gb=total / 1e9,
      fits=total <= about.memory_gb * 1e9, sent_gb={kind: b / 1e9 for kind, b in kinds.items()},
      collectives=len(found), overlapped=sum(one.overlapped for one in found),
      overlapped_gb=sum(one.sent for one in found if one.overlapped) / 1e9,
      ) | estimate(model, part, rows, len(devices), kind, held, found, about)


def estimate(model: ModelConfig, part: str, rows: int, devices: int, kind: str, held: float,
             found: list[Collective], about: Topology) -> dict[str, float]:
  """The least seconds of a step, or of CHUNK tokens, by data sheets: not a measurement.

  Arithmetic or the reading of what is held, the longer of the two; what is sent beside it counts
  where it is longer; what is sent alone counts whole. All links of a device are taken as busy.
  """
  flops, bandwidth = next(peaks for name, peaks in metrics.PEAKS.items() if name in kind)
  tokens = rows * (model.context if part == 'train' else CHUNK)
  useful = tokens * model_lib.flops_per_token(model) / (1 if part == 'train' else 3)
  again = 4 / 3 if part == 'train' and model.remat == 'full' else 1
  work = max(useful * again / devices / flops,
             held / bandwidth * (1 if part == 'train' else CHUNK))
  beside = sum(one.sent for one in found if one.overlapped) / about.links
  alone = sum(one.sent for one in found if not one.overlapped) / about.links
  seconds = max(work, beside) + alone
  return dict(estimated_seconds=seconds, estimated_tokens_per_second=tokens / seconds,
              estimated_mfu=useful / devices / flops / seconds)


def table(report: dict[str, Any]) -> str:
  """The report in words and columns."""
  lines = [', '.join(f'{name} {value}' for name, value in report['environment'].items()),
           'compiled, not run; GB a device; the last three columns are a roofline estimate',
           f'{"model":12}{"topology":9}{"part":7}{"mesh":>9}{"rows":>6}{"T":>6}{"state":>7}'
           f'{"all":>7}{"of":>5} {"fits":5}{"sent":>7}{"beside":>8}{"async":>10}{"compiled":>10}'
           f'{"seconds":>9}{"tokens/s":>11}{"MFU":>6}']
  for row in report['rows']:
    line = (f'{row["model"]:12}{row["topology"]:9}{row["part"]:7}{row["mesh"]:>9}{row["rows"]:6}'
            f'{row["context"]:6}')
    if 'why' in row:
      lines.append(f'{line}  does not fit: {row["why"]}')
      continue
    sent = sum(row['sent_gb'].values())
    lines.append(
        f'{line}{row["held_gb"]:7.2f}{row["total_gb"]:7.2f}{row["memory_of_device_gb"]:5.0f} '
        f'{"yes" if row["fits"] else "NO":5}{sent:7.2f}'
        f'{row["overlapped_gb"] / sent if sent else 0:8.0%}'
        f'{row["overlapped"]:5}/{row["collectives"]:<4}{row["compile_seconds"]:9.0f}s'
        f'{row["estimated_seconds"]:9.4f}{row["estimated_tokens_per_second"]:11,.0f}'
        f'{row["estimated_mfu"]:6.0%}')
  return '\n'.join(lines)


def main(config: Config) -> None:
  config = config.bench
  if not (importlib.util.find_spec('libtpu') or os.environ.get('TPU_LIBRARY_PATH')):
    raise InputError('the TPU compiler is not installed here: pip install -e .[tpu].')
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')  # there is no cloud machine to ask about
  jax.config.update('jax_platforms', 'cpu')
  parts = ('train', 'decode') if config.decode else ('train',)
  rows = []
  for name in config.models:
    for topology in config.topologies:
      for part in parts:
        rows.append(compile_one(name, topology, part, config))
        print(f'{name} {topology} {part}: {rows[-1]["compile_seconds"]:.0f} s', flush=True)
  report = dict(environment=metrics.environment(), config=dataclasses.asdict(config), rows=rows)
  train.publish(report, table(report), config.out)


if __name__ == '__main__':
  flags.run(main, Config)
