"""A really full disk: a command for which a folder is a file system of its own, however small."""

import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def run(folder: pathlib.Path, size: int, *command: str) -> subprocess.CompletedProcess:
  """Runs a command in a mount namespace with a tmpfs at `folder`, which ends with it."""
  inside = ['unshare', '--map-root-user', '--mount', 'sh', '-c',
            'mount -t tmpfs -o size="$0" tmpfs "$1" && shift && exec "$@"']
  if not shutil.which('unshare') or subprocess.run(
      [*inside, '4096', folder, 'true'], capture_output=True, check=False).returncode:
    pytest.skip('a small file system cannot be mounted here')
  return subprocess.run([*inside, str(size), folder, *command], cwd=ROOT, capture_output=True,
                        text=True, timeout=100, check=False)
