"""The tokenizer: text to token ids and back, over any byte-level BPE vocabulary."""

import base64
import codecs
import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from typing import Iterable, Iterator, Sequence

import numpy as np
import tiktoken

from nanollm_jax import InputError
from nanollm_jax.text import bulk

END = '<|endoftext|>'
SPECIALS = (
    END, '<|im_start|>', '<|im_sep|>', '<|im_end|>',  # the document mark; the marks of a turn
    '<|think_start|>', '<|think_end|>',
    '<|python_start|>', '<|python_end|>', '<|output_start|>', '<|output_end|>',  # tool and answer
    '<|search_start|>', '<|search_end|>',
    '<|mask|>', *(f'<|extra_{k}|>' for k in range(8)))  # masking; sentinels of span corruption

LONGEST = 400_000  # characters that are encoded at one time, as by Llama 3's reference tokenizer

UNKNOWN = '\ufffd'.encode()
_FORMAT = 'nanollm_jax tokenizer 1'


def parts(text: str) -> list[str]:
  """Cuts a text that is too long for the split regex, whose engine dies of 10^6 spaces in a row."""
  return [text[start:start + LONGEST] for start in range(0, len(text), LONGEST)]


def special_ids(merged: int) -> dict[str, int]:
  """Ids of SPECIALS right after `merged` ranks; `<|reserved_k|>` fill up to a multiple of 64."""
  padding = -(merged + len(SPECIALS)) % 64
  names = SPECIALS + tuple(f'<|reserved_{k}|>' for k in range(padding))
  return {name: merged + k for k, name in enumerate(names)}


@dataclasses.dataclass(frozen=True)
class Tokenizer:
  """A byte-level BPE vocabulary: merges over the bytes of what a regex splits.

  pattern_name: what others call the split pattern; 'qwen2' and 'llama-bpe' are llama.cpp's words
  pattern: the split regex itself
  ranks: bytes of every ordinary token to its id, which is also its merge priority
  special: name of every special token to its id; no ordinary text ever gives one of these ids
  """
  pattern_name: str
  pattern: str
  ranks: dict[bytes, int]
  special: dict[str, int]

  @functools.cached_property
  def _encoding(self) -> tiktoken.Encoding:
    return tiktoken.Encoding(self.pattern_name, pat_str=self.pattern, mergeable_ranks=self.ranks,
                             special_tokens=self.special)

  @functools.cached_property
  def _bulk(self) -> bulk.Encode | None:
    return bulk.encoder(self.pattern_name, self.ranks, LONGEST)

  @functools.cached_property
  def size(self) -> int:
    """The vocabulary size: one more than the highest id, specials included."""
    return 1 + max(max(self.ranks.values()), max(self.special.values()))

  @property
  def end(self) -> int:
    """The id of `<|endoftext|>`, which stands on both sides of a document."""
    return self.special[END]

  def encode(self, text: str) -> list[int]:
    """Encodes ordinary text: a special's name inside `text` is spelled out, never its id.

    A lone surrogate (half a UTF-16 pair, which no UTF-8 text holds) becomes U+FFFD. A text over
    400,000 characters is encoded in parts of that length.
    """
    encode = self._encoding.encode_ordinary
    if len(text) <= LONGEST:
      return encode(text)
    return [token for part in parts(text) for token in encode(part)]

  def encode_batch(self, texts: Sequence[str], threads: int = 1) -> list[list[int]]:
    """Encodes many texts in order, as `encode` does; threads help.

    With the extra `fast` installed, most texts are not encoded by tiktoken (see bulk.py).
    """
    if self._bulk:
      return [self.encode(text) if ids is None else ids
              for text, ids in zip(texts, self._bulk(texts, threads))]
    if threads == 1:
      return [self.encode(text) for text in texts]
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
      return list(pool.map(self.encode, texts))

  def decode_bytes(self, ids: Sequence[int]) -> bytes:
    """Joins the bytes of ids (any integer sequence or array); specials give their names.

    Raises InputError for an id that the vocabulary does not have.
    """
    try:
      return self._encoding.decode_bytes(np.asarray(ids, np.int64).tolist())
    except (KeyError, OverflowError) as error:
      raise InputError(f'{error}: not in this vocabulary of {self.size} ids: decode '
                       'with the tokenizer that the model was trained with.') from error

  def decode(self, ids: Sequence[int]) -> str:
    """Decodes ids to text; bytes that are no UTF-8 become U+FFFD.

    So do ids that the vocabulary does not have: a model with a larger one may sample them.
    """
    return self._bytes_of(ids).decode('utf-8', errors='replace')

  def _bytes_of(self, ids: Sequence[int]) -> bytes:
    try:
      return self.decode_bytes(ids)
    except InputError:
      return b''.join(self._encoding.decode_bytes([token]) if token in self._known else UNKNOWN
                      for token in np.asarray(ids, np.int64).tolist())

  @functools.cached_property
  def _known(self) -> frozenset[int]:
    return frozenset(self.ranks.values()) | frozenset(self.special.values())

  def stream(self, chunks: Iterable[Sequence[int]]) -> Iterator[str]:
    """Decodes ids that come a few at a time: the texts join to `decode` of all ids.

    A character whose bytes have not all come waits for them.
    """
    decoder = codecs.getincrementaldecoder('utf-8')('replace')
    for ids in chunks:
      yield decoder.decode(self._bytes_of(ids))
    yield decoder.decode(b'', final=True)

  def token_bytes(self, token: int) -> bytes:
    """The bytes of one id; a special gives its name. Raises as decode_bytes."""
    return self.decode_bytes([token])

  @functools.cached_property
  def byte_lengths(self) -> np.ndarray:
    """Bytes of text that each id stands for, np.int32[V]; 0 for specials and unused ids."""
    lengths = np.zeros(self.size, np.int32)
    lengths[list(self.ranks.values())] = [len(token) for token in self.ranks]
    return lengths

  @functools.cached_property
  def fingerprint(self) -> str:
    """A sha256 over pattern, ranks and specials: equal exactly where all ids are."""
    return _digest(self.pattern, self._tokens(), self.special)

  def _tokens(self) -> list[str]:
    return [base64.b64encode(token).decode() for token in sorted(self.ranks, key=self.ranks.get)]

  def save(self, path: str | os.PathLike) -> None:
    """Writes the vocabulary as JSON, token bytes in base64 in the order of their ids."""
    fields = {'format': _FORMAT, 'pattern_name': self.pattern_name, 'pattern': self.pattern,
              'special': self.special, 'fingerprint': self.fingerprint,
              'byte_lengths': self.byte_lengths.tolist(), 'tokens': self._tokens()}
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + '.partial')
    partial.write_text(json.dumps(fields, indent=0))
    partial.replace(path)


def _digest(pattern: str, tokens: list[str], special: dict[str, int]) -> str:
  return hashlib.sha256(json.dumps([pattern, tokens, sorted(special.items())]).encode()).hexdigest()


def load(path: str | os.PathLike) -> Tokenizer:
  """Reads what `Tokenizer.save` wrote.

  Raises InputError where the file is missing, of another format, or altered since it was saved.
  """
  try:
    fields = json.loads(pathlib.Path(path).read_bytes())
    if fields['format'] != _FORMAT:
      raise ValueError(fields['format'])
    tokens, special = fields['tokens'], fields['special']
    ranks = {base64.b64decode(token): rank for rank, token in enumerate(tokens)}
    tokenizer = Tokenizer(fields['pattern_name'], fields['pattern'], ranks, special)
    sound = (_digest(fields['pattern'], tokens, special) == fields['fingerprint']
             and tokenizer.byte_lengths.tolist() == fields['byte_lengths'])
  except OSError as error:
    raise InputError(f'{path} cannot be read ({error.strerror}): make one with '
                     'experiments.train_tokenizer or give --tokenizer.') from error
  except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
    raise InputError(f'{path} is not a {_FORMAT!r} file: make one with '
                     'experiments.train_tokenizer.') from error
  if not sound:
    raise InputError(f'{path} was altered after it was saved (its fingerprint does not match): '
                     'restore the file or train the tokenizer again.')
  return tokenizer
