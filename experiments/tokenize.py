"""Shows how a tokenizer splits a text: one colour a token, then the ids.

python -m experiments.tokenize --tokenizer=o200k_base 'ubiquitous strawberry'
"""

import dataclasses
import itertools
import os
import pathlib
import sys

from nanollm_jax import InputError, flags
from nanollm_jax.text import known

_COLOURS = (153, 157, 223, 218, 189)  # pale backgrounds of the 256-colour terminal


@dataclasses.dataclass(frozen=True)
class Config:
  """What to show tokens of.

  tokenizer: a tokenizer.json, a workdir that has one, or gpt2, cl100k_base, o200k_base,
    o200k_im (may be followed by :RANK_FILE); the newest runs/*/tokenizer.json if empty
  """
  tokenizer: str = ''


def main(config: Config, words: list[str]) -> None:
  tokenizer = known.from_name_or_file(config.tokenizer or _newest())
  if not words and sys.stdin.isatty():
    raise InputError('there is no text: give it as a word, or pipe it in.')
  text = ' '.join(words) if words else sys.stdin.buffer.read().decode(errors='replace')
  ids = tokenizer.encode(text)
  coloured = sys.stdout.isatty() and not os.environ.get('NO_COLOR')
  print(render([tokenizer.token_bytes(token) for token in ids], coloured))
  print(*ids)
  size = len(tokenizer.decode_bytes(ids))
  print(f'{len(ids)} tokens, {size} bytes, {size / max(len(ids), 1):.2f} bytes a token')


def render(tokens: list[bytes], coloured: bool) -> str:
  """One line of tokens; bytes that are no UTF-8 alone and control characters are escaped."""
  shown = []
  for token in tokens:
    piece = token.decode(errors='backslashreplace')
    shown.append(''.join(char if char.isprintable() else repr(char)[1:-1] for char in piece))
  if not coloured:
    return '|'.join(shown)
  return ''.join(f'\x1b[30;48;5;{colour}m{piece}\x1b[0m'
                 for colour, piece in zip(itertools.cycle(_COLOURS), shown))


def _newest() -> pathlib.Path:
  found = sorted(pathlib.Path('runs').glob('*/tokenizer.json'),
                 key=lambda path: path.stat().st_mtime)
  if not found:
    raise InputError('there is no runs/*/tokenizer.json yet: make one with '
                     f'experiments.train_tokenizer or give --tokenizer={next(iter(known.KNOWN))}.')
  return found[-1]


if __name__ == '__main__':
  flags.run(main, Config)
