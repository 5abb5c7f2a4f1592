"""Frozen dataclasses to absl flags and back: define, read, save, run.

A config is a frozen dataclass; a field that is itself a dataclass becomes a dotted prefix, so
`model: ModelConfig` with a field `depth` is the flag `--model.depth`. The docstring of a config
explains its fields in lines `name: help`, and these lines are the flags' help.
"""

import contextlib
import dataclasses
import errno
import inspect
import os
import pathlib
import re
import sys
import traceback
import typing
from typing import Any, Callable, Iterator, Mapping, Sequence

from absl import app
from absl import flags as absl_flags
from absl import logging

from nanollm_jax import InputError, OutOfStep

DEFINE = {bool: absl_flags.DEFINE_bool, int: absl_flags.DEFINE_integer,
          float: absl_flags.DEFINE_float, str: absl_flags.DEFINE_string}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a disk, a quota, the largest file allowed
LOST = 75  # how a program exits when it is sound but another process of its job is gone
RUNTIME = re.compile('(ABORTED|CANCELLED|DEADLINE_EXCEEDED|INTERNAL|UNAVAILABLE|UNKNOWN): ')


def leaves(config: Any, prefix: str = '') -> Iterator[tuple[str, Any, Any, str]]:
  """Yields (dotted name, type, value, help) for every leaf field of a config, in order."""
  hints = typing.get_type_hints(type(config))
  help_of = field_help(type(config))
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if dataclasses.is_dataclass(value):
      yield from leaves(value, f'{prefix}{field.name}.')
    else:
      yield prefix + field.name, hints[field.name], value, help_of.get(field.name, '')


def field_help(config_class: type) -> dict[str, str]:
  """Reads the lines `name: help` of a docstring; indented lines continue the help."""
  found = re.findall(r'^(\w+): (.+(?:\n +.+)*)', inspect.getdoc(config_class) or '', re.MULTILINE)
  return {name: ' '.join(text.split()) for name, text in found}


def define(config: Any, flag_values: absl_flags.FlagValues = absl_flags.FLAGS) -> None:
  """Defines one absl flag for each leaf of `config`, whose values are the defaults.

  Leaves are int, float, bool, str, tuple[str or int, ...], Literal of strings, or one of these
  `| None`, where None means "follows from the other flags". The whole config is built again
  as a flag validator, so what its __post_init__ refuses is a flag error with its sentence.
  """
  options = {'flag_values': flag_values, 'module_name': sys.argv[0]}
  for name, hint, value, help_text in leaves(config):
    if type(None) in typing.get_args(hint):  # of `int | None`
      hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) is typing.Literal:
      absl_flags.DEFINE_enum(name, value, typing.get_args(hint), help_text, **options)
    elif typing.get_origin(hint) is tuple:
      absl_flags.DEFINE_list(name, [str(one) for one in value], help_text, **options)
    else:
      DEFINE[hint](name, value, help_text, **options)

  def validate(values: Mapping[str, Any]) -> bool:
    try:
      _rebuild(config, values)
    except InputError as error:
      raise absl_flags.IllegalFlagValueError(str(error)) from error
    return True

  absl_flags.register_multi_flags_validator(
      [name for name, *_ in leaves(config)], validate, flag_values=flag_values)


def _rebuild(config: Any, values: Mapping[str, Any], prefix: str = '') -> Any:
  fields, hints = {}, typing.get_type_hints(type(config))
  for field in dataclasses.fields(config):
    value, name = getattr(config, field.name), prefix + field.name
    if dataclasses.is_dataclass(value):
      fields[field.name] = _rebuild(value, values, f'{name}.')
    elif isinstance(value, tuple):
      fields[field.name] = _tuple(name, typing.get_args(hints[field.name])[0], values[name])
    else:
      fields[field.name] = values[name]
  return type(config)(**fields)


def _tuple(name: str, kind: type, values: Sequence[str]) -> tuple[Any, ...]:
  try:
    return tuple(map(kind, values))
  except ValueError as error:
    raise InputError(f'--{name}={",".join(values)} is not a list of whole numbers with commas '
                     'between.') from error


def read(config: Any, flag_values: absl_flags.FlagValues = absl_flags.FLAGS) -> Any:
  """Returns a config of the same class whose leaves hold the parsed flags' values."""
  return _rebuild(config, {name: flag_values[name].value for name, *_ in leaves(config)})


def parse(config: Any, text: str) -> Any:
  """Returns `config` with the values of a saved flagfile's text; unknown flags are passed over.

  Needs no global flags, so one run can read how another was configured.
  """
  flag_values = absl_flags.FlagValues()
  define(config, flag_values)
  lines = [line.strip() for line in text.splitlines()]
  flag_values(['parse', *(line for line in lines if line.startswith('--'))], known_only=True)
  return read(config, flag_values)


def to_text(config: Any) -> str:
  """Renders a config as a flagfile: one `--name=value` a line; None is left out.

  Raises InputError for a value with a line break, which a flagfile cannot hold.
  """
  flag_values = absl_flags.FlagValues()
  define(config, flag_values)
  lines = [flag_values[name].serialize() for name, *_ in leaves(config)]
  if broken := next((line for line in lines if len(line.splitlines()) > 1), None):
    raise InputError(f'{broken.split("=")[0]} has a line break, which run.flags cannot hold: '
                     'leave it out.')
  return '\n'.join(filter(None, lines)) + '\n'


def spare_model(workdir: str | pathlib.Path) -> None:
  """Raises InputError where the workdir of a stage that trains none holds a trained model."""
  folder = pathlib.Path(workdir) / 'checkpoints'
  if folder.is_dir() and any(folder.iterdir()):
    raise InputError(f'--workdir={workdir} holds a trained model: give another --workdir.')


def save(config: Any, workdir: str | pathlib.Path) -> None:
  """Writes the resolved config as `run.flags` into the workdir, which is made if missing.

  Raises InputError where the workdir cannot be written.
  """
  path = pathlib.Path(workdir)
  try:
    path.mkdir(parents=True, exist_ok=True)
    (path / 'run.flags.partial').write_text(to_text(config))  # a full disk leaves the old one
    (path / 'run.flags.partial').replace(path / 'run.flags')
  except OSError as error:
    if error.errno in FULL:
      raise
    raise InputError(f'--workdir={workdir} cannot be written ({error.strerror}): '
                     'give a folder that you may write to.') from error


def run(main: Callable[..., None], config_class: type) -> None:
  """Parses the command line into a config and calls main.

  `main(config)` runs, or `main(config, words)` with the positional words if it takes two.
  An InputError, a full disk or Ctrl-C ends in one sentence and a non-zero exit code.
  """
  config = config_class()
  takes_words = len(inspect.signature(main).parameters) > 1
  define(config)
  if 'jax' in sys.modules:  # JAX's own flags, e.g. --jax_platforms=cpu, may stand in flagfiles
    sys.modules['jax'].config.config_with_absl()

  def start(argv: Sequence[str]) -> None:
    if not absl_flags.FLAGS['verbosity'].present:
      logging.set_verbosity(logging.FATAL)  # orbax tells of each save, and each thread of a failed one
    if argv[1:] and not takes_words:
      raise app.UsageError(f'unexpected word {argv[1]!r}: flags begin with -- and values '
                           'follow after =.')
    try:
      main(read(config), *([list(argv[1:])] if takes_words else []))
    except InputError as error:
      _leave(f'error: {error}')
    except KeyboardInterrupt:
      _leave('stopped.')
    except Exception as error:
      if isinstance(error, OSError) and error.errno in FULL:
        where = error.filename or getattr(read(config), 'workdir', 'a file')
        _leave(f'error: {where} could not be written ({error.strerror}): make room and start '
               'the same command again; what was saved before stays good.')
      if isinstance(error, OutOfStep):
        _leave(f'error: {error}', LOST)
      if not _one_of_several():
        raise
      if RUNTIME.match(str(error)):  # a collective that fails says so at once, in several types
        _leave('error: another process of this job is gone, or a device failed '
               f'({str(error).splitlines()[0]}): start all of them again; they go on from the '
               'newest whole checkpoint.', LOST)
      _leave(traceback.format_exc(), told=False)  # another one's end may have brought it about

  app.run(start)


def _leave(sentence: str, code: int = 1, told: bool = True) -> None:
  """Ends the program; one of several processes ends at once, since the others wait for it.

  launch/supervise.sh is told of an error that is not to be repeated: srun returns one exit code
  for all processes, which may be that of another.
  """
  if code == 1 and told and 'NANOLLM_ERROR' in os.environ:
    with contextlib.suppress(OSError):
      pathlib.Path(os.environ['NANOLLM_ERROR']).touch()
  if not _one_of_several():
    sys.exit(sentence)
  print(sentence, file=sys.stderr, flush=True)
  os._exit(code)


def _one_of_several() -> bool:
  return 'jax' in sys.modules and sys.modules['jax'].distributed.is_initialized()
