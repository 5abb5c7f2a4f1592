"""Our models inside EleutherAI's lm-eval, an optional extra: pip install nanollm_jax[eval]."""

import dataclasses
from typing import Any

from nanollm_jax import InputError
from nanollm_jax.eval.choice import Request, Scorer
from nanollm_jax.sample.engine import Engine, Sampling


def adapter(scorer: Scorer, engine: Engine, params: Any, tokenizer: Any) -> Any:
  """An `lm_eval.api.model.LM`, to be given to `lm_eval.simple_evaluate(model=...)`.

  Every text begins with the document mark, as in training. The engine stops at its own stop ids;
  an answer is cut at the first of a task's stop strings. Raises InputError without lm-eval.
  """
  try:
    from lm_eval.api.model import LM
  except ImportError as error:
    raise InputError('lm-eval is not installed: pip install "nanollm_jax[eval]".') from error

  class Adapter(LM):
    def loglikelihood(self, requests, disable_tqdm: bool = False):
      scores = scorer.score(params, [split(tokenizer, *request.args) for request in requests])
      return [(score.total, score.greedy) for score in scores]

    def loglikelihood_rolling(self, requests, disable_tqdm: bool = False):
      texts = [([tokenizer.end], tokenizer.encode(request.args[0])) for request in requests]
      return [score.total for score in scorer.score(params, texts)]

    def generate_until(self, requests, disable_tqdm: bool = False):
      prompts, each = [], []
      for text, options in (request.args for request in requests):
        sampling = sampling_of(options)
        room = max(engine.length - sampling.max_tokens, engine.length // 2)
        prompts.append([tokenizer.end, *tokenizer.encode(text)][-room:])
        each.append(sampling)
      made = engine.generate(params, prompts, each)
      return [cut(tokenizer.decode(one.ids), request.args[1].get('until', []))
              for one, request in zip(made, requests)]

  return Adapter()


def split(tokenizer: Any, context: str, continuation: str) -> Request:
  """Two texts as one request; the space between them belongs to the continuation."""
  stem = context.rstrip()
  whole = [tokenizer.end, *tokenizer.encode(context + continuation)]
  start = 1 + len(tokenizer.encode(stem))
  return whole[:start], whole[start:]


def sampling_of(options: dict[str, Any]) -> Sampling:
  """How lm-eval's generation options are drawn: greedy unless it says do_sample."""
  sampling = Sampling(max_tokens=options.get('max_gen_toks', 256), temperature=0.0)
  if not options.get('do_sample'):
    return sampling
  return dataclasses.replace(sampling, temperature=options.get('temperature', 1.0),
                             top_k=options.get('top_k', 0), top_p=options.get('top_p', 1.0))


def cut(text: str, until: str | list[str]) -> str:
  """The text before the first stop string."""
  for stop in [until] if isinstance(until, str) else until:
    text = text.split(stop)[0] if stop else text
  return text
