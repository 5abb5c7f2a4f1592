"""The lm-eval adapter: its parts always, the whole where lm-eval is installed."""

import sys
import types
from typing import NamedTuple

import numpy as np
import pytest

from nanollm_jax import InputError
from nanollm_jax.eval import harness
from nanollm_jax.eval.choice import Score
from nanollm_jax.sample.engine import Sampling



class Words:
  """One id a word with the space before it, as byte-level BPE has it."""
  end = 0

  def encode(self, text):
    return [len(word) + 1 for word in text.replace(' ', '| ').split('|') if word]

  def decode(self, ids):
    return ' '.join(map(str, ids))


class Request(NamedTuple):
  args: tuple


class Model:
  """Scores a continuation by its length; answers with the length of what it was asked."""
  length = 6

  def score(self, params, requests):
    self.asked = requests
    return [Score(-np.ones(len(after), np.float32), len(after) == 1) for _, after in requests]

  def generate(self, params, prompts, each):
    self.prompts, self.each = prompts, each
    return [type('Made', (), {'ids': [len(prompt), 5, 6]}) for prompt in prompts]


def test_the_space_belongs_to_the_continuation():
  for context, continuation in (('a bc', ' def gh'), ('a bc ', 'def gh')):
    assert harness.split(Words(), context, continuation) == ([0, 2, 4], [5, 4])
  assert harness.split(Words(), '', 'abc') == ([0], [4])


def test_options_and_stops():
  assert harness.sampling_of({'until': ['x'], 'temperature': 0.7}) == Sampling(256, temperature=0.0)
  sampled = harness.sampling_of({'do_sample': True, 'temperature': 0.7, 'max_gen_toks': 4})
  assert sampled == Sampling(4, temperature=0.7)
  assert harness.cut('one Q: two\n', ['\n', 'Q:']) == 'one '
  assert harness.cut('one', 'n') == 'o' and harness.cut('one', []) == 'one'


def test_the_adapter_under_lm_eval():
  pytest.importorskip('lm_eval')
  model = Model()
  lm = harness.adapter(model, model, None, Words())
  scored = lm.loglikelihood([Request(('a', ' b c')), Request(('a', ' b'))])
  assert scored == [(-2.0, False), (-1.0, True)]
  assert lm.loglikelihood_rolling([Request(('a b c',))]) == [-3.0]
  assert model.asked == [([0], [2, 3, 3])]
  made = lm.generate_until([Request(('a b c d e f g', {'until': [' 6'], 'max_gen_toks': 2}))])
  assert made == ['4 5'] and model.each[0].max_tokens == 2


def test_without_lm_eval_the_remedy_is_named():
  try:
    import lm_eval  # noqa: F401
  except ImportError:
    with pytest.raises(InputError, match='pip install'):
      harness.adapter(None, None, None, None)


def test_a_prompt_keeps_half_of_the_context_at_least(monkeypatch):
  for name in ('lm_eval', 'lm_eval.api', 'lm_eval.api.model'):
    monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(LM=object))
  model = Model()
  lm = harness.adapter(model, model, None, Words())
  lm.generate_until([Request(('a bc def ghij klmno', {})), Request(('a bc', {'max_gen_toks': 1}))])
  assert [len(prompt) for prompt in model.prompts] == [3, 3] and model.prompts[1][0] == 0
