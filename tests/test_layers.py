"""The house: imports run down only, rooms of one floor do not know each other."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FLOORS = [
    {'serve', 'eval'},
    {'train', 'data', 'sample', 'interop', 'web'},
    {'world', 'text', 'tasks', 'tools', 'model', 'objectives', 'mesh', 'checkpoint', 'metrics',
     'report', 'flags'},
]
FLOOR = {room: height for height, rooms in enumerate(reversed(FLOORS)) for room in rooms}
NEIGHBOURS = {('report', 'metrics')}  # a page is made from what metrics wrote
NO_JAX = {'world', 'web', 'text', 'data', 'tasks', 'tools', 'flags'}


def imports(path: pathlib.Path) -> set[str]:
  """Every dotted module that a file imports, wherever the import stands."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      found |= {f'{node.module}.{alias.name}' for alias in node.names}
  return found


def room_of(path: pathlib.Path) -> str:
  return path.relative_to(ROOT / 'nanollm_jax').parts[0].removesuffix('.py')


FILES = sorted(path for path in (ROOT / 'nanollm_jax').rglob('*.py') if room_of(path) != '__init__')


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_down(path):
  room = room_of(path)
  assert room in FLOOR, f'{room} has no floor: give it one in HOUSE and here'
  for module in imports(path):
    assert not module.startswith(('experiments', 'launch', 'tests')), module
    if module.startswith('nanollm_jax.'):
      other = module.split('.')[1]
      if other in FLOOR and other != room:
        assert FLOOR[other] < FLOOR[room] or (room, other) in NEIGHBOURS, f'{path} imports {module}'
    if room in NO_JAX:
      assert module.split('.')[0] not in ('jax', 'flax', 'optax', 'orbax'), f'{path}: {module}'


def test_objectives_see_no_model_and_train_sees_no_stage():
  for path in FILES:
    modules = ' '.join(imports(path))
    if room_of(path) == 'objectives':
      assert 'nanollm_jax.model' not in modules
    if room_of(path) == 'model':
      assert 'nanollm_jax.mesh' not in modules
    if room_of(path) == 'train':
      assert 'nanollm_jax.objectives' not in modules and 'nanollm_jax.model' not in modules
