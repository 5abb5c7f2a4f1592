"""The styles in which a solution is told: what stands before the answer, and after it.

With the same problem in each style one measures what the tokens before an answer are worth. The
answer always has the one form `Answer: X.`
"""

import re
from typing import Callable

from nanollm_jax import InputError
from nanollm_jax.tasks.task import Example


def steps(example: Example) -> str:
  """The steps, then the answer."""
  return f'{example.steps} Answer: {example.answer}.'


def answer_first(example: Example) -> str:
  """The answer, then the same steps, which can only justify it."""
  return f'Answer: {example.answer}. {example.steps.lstrip()}'


def direct(example: Example) -> str:
  """The answer alone."""
  return f'Answer: {example.answer}.'


def pieces(text: str) -> int:
  """Words, single digits and signs in a text: about its tokens in a small vocabulary."""
  return len(re.findall(r'[^\W\d_]+|\S', text))


def filler(example: Example, count: Callable[[str], int] = pieces) -> str:
  """As many ` .` as `count` finds pieces in the steps, then the answer (arXiv:2404.15758)."""
  return ' .' * count(example.steps) + f' Answer: {example.answer}.'


def tool(example: Example) -> list[dict[str, str]]:
  """A call of Python, what it gives, and the answer. Raises InputError where there is no code."""
  if not example.code:
    raise InputError(f'a problem like "{example.question}" has no code: take another style '
                     'than tool.')
  return [{'type': 'tool_call', 'name': 'python', 'text': example.code},
          {'type': 'tool_output', 'text': example.answer},
          {'type': 'text', 'text': direct(example)}]


STYLES = {'steps': steps, 'answer_first': answer_first, 'direct': direct, 'filler': filler,
          'tool': tool}


def style_named(name: str) -> Callable[[Example], str | list[dict[str, str]]]:
  """The style of that name. Raises InputError for another name."""
  if name not in STYLES:
    raise InputError(f'{name!r} is no style: take one of {", ".join(STYLES)}.')
  return STYLES[name]
