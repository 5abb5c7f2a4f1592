"""Python for the model: code goes in, what it printed and its last value come out as text."""

import ast
import warnings
from typing import Callable

import pydantic_monty

from nanollm_jax import InputError

_LONGEST = 10_000  # characters of code: ast is slow or fails, but never crashes, on what fits
_FILE = '<model>'
warnings.filterwarnings('ignore', module=_FILE)  # odd literals in a model's code are its affair


class Python:
  """A sandboxed interpreter (pydantic-monty): call it with code, and it answers with text.

  The text is what the code printed, then the value of its last expression unless that is None;
  or 'Error: ' and one line. Code meets no files, no network and no environment; sleeping takes no
  time and random numbers start from one seed, so that the same code gives the same text. It runs in
  worker processes, one a CPU core, and many threads may call at once.

  seconds: the time that code may take; what does not stop by itself is killed half a second later
  memory_mb: the heap that code may fill, in MiB
  output_chars: characters of an answer; what is longer is cut and ends with ' ...'
  """

  def __init__(self, seconds: float = 2.0, memory_mb: int = 256, output_chars: int = 2000):
    if min(seconds, memory_mb, output_chars) <= 0:
      raise InputError('seconds, memory_mb and output_chars of the Python tool must be over 0.')
    self._output_chars = output_chars
    self._too_much = {TimeoutError: f'TimeoutError: more than {seconds:g} seconds',
                      MemoryError: f'MemoryError: more than {memory_mb} MB, or 10 MB printed'}
    self._rules = dict(
        limits=dict(max_feed_duration_secs=seconds, max_memory=memory_mb << 20),
        os_policy=dict(sleep='zero', random_start={'seed': 0}))
    # Inside, the clock is not looked at in the middle of one long operation such as 10**10**8.
    self._pool = pydantic_monty.Monty(request_timeout=seconds + 0.5)
    self._pool.__enter__()

  def __call__(self, code: str) -> str:
    return self._run(code)[0]

  def session(self) -> Callable[[str], str]:
    """A tool for one conversation: what a call defines, the next one knows, unless it failed.

    Between calls it holds no worker, only bytes. Calls of one session must not overlap.
    """
    state = b''

    def run(code: str) -> str:
      nonlocal state
      text, state = self._run(code, state)
      return text

    return run

  def _run(self, code: str, state: bytes | None = None) -> tuple[str, bytes | None]:
    """The answer, and the state after the code if one was given (empty: a new one)."""
    if len(code) > _LONGEST:
      return f'Error: the code is longer than {_LONGEST} characters', state
    printed, most = pydantic_monty.CollectString(), self._output_chars
    try:
      with self._pool.checkout(**self._rules) as session:
        if state:
          session.load_session(state)
        session.feed_run(_printing_last(code), print_callback=printed)
        if state is not None:
          state = session.dump()
      text = printed.output.rstrip('\n') or 'No output.'
      if len(text) > most:
        text = text[:most] + ' ...'
      return text, state
    except Exception as error:  # of the code, or of the sandbox itself: the model is told of both
      return 'Error: ' + ' '.join(self._reason(error)[:most].split()), state

  def _reason(self, error: Exception) -> str:
    if getattr(error, 'timed_out', False):
      return self._too_much[TimeoutError]
    if isinstance(error, pydantic_monty.MontyRuntimeError | pydantic_monty.MontySyntaxError):
      # The sandbox's own words name the exact time or size, which differ from run to run.
      return self._too_much.get(type(error.exception())) or error.display('type-msg')
    return f'{type(error).__name__}: {error}'

  def close(self) -> None:
    """Ends the workers."""
    self._pool.__exit__(None, None, None)

  def __enter__(self) -> 'Python':
    return self

  def __exit__(self, *_) -> None:
    self.close()


def _printing_last(code: str) -> str:
  """The code, which prints its last value itself if it ends in an expression.

  So the text is made in the sandbox and within its limits: two references to a list, nested 60
  times, are a small value but a text without end.
  """
  try:
    last = ast.parse(code, _FILE).body[-1]
  except (SyntaxError, ValueError, RecursionError, MemoryError, IndexError):
    return code  # the sandbox has its own syntax, and says what is wrong
  if not isinstance(last, ast.Expr):
    return code
  source = code.encode()
  starts = [0]
  for line in source.splitlines(keepends=True):
    starts.append(starts[-1] + len(line))
  start = starts[last.lineno - 1] + last.col_offset
  end = starts[last.end_lineno - 1] + last.end_col_offset
  before, value = source[:start].decode(), source[start:end].decode()
  return f'{before}_ = {value}\nif _ is not None: print(_)'
