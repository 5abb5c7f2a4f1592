"""Judges of answers to questions of fact: the world, the model itself, a model behind HTTP.

A judge takes pairs (fact, text) and says of each text whether it is correct and, apart from that,
whether it is informative; None where it could not tell.
"""

import concurrent.futures
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from typing import Any, Callable, Iterable, NamedTuple, Sequence

from experiments.facts import Fact
from nanollm_jax import InputError, tasks
from nanollm_jax.eval.choice import Scorer
from nanollm_jax.tasks.rows import words_of

_TOKENS = 4096  # that a model that judges runs at a time
_LONGEST_WAIT = 60.0  # seconds that a busy endpoint may ask for


class Verdict(NamedTuple):
  """correct: it gives the answer; informative: it gives some answer, no refusal or small talk."""
  correct: bool
  informative: bool


Pair = tuple[Fact, str]
Judge = Callable[[Sequence[Pair]], list[Verdict | None]]


class Exact:
  """Reads answers by their words."""

  def __init__(self, facts: Iterable[Fact]):
    """A judge for whom only answers to some fact of a relation are answers of that relation."""
    self._answers: dict[str, set[str]] = {}
    for fact in facts:
      if fact.relation:
        self._answers.setdefault(fact.relation, set()).update(_accepted(fact))

  def told(self, fact: Fact, text: str) -> frozenset[str]:
    """The answers that a text gives: none if it refuses or talks of other things, mostly one."""
    words, asked = _plain(text), _plain(fact.question)
    if tasks.refuses(text) or not words.strip():
      return frozenset()
    found = {answer for answer in self._answers.get(fact.relation, set()) | _accepted(fact)
             if answer in words and answer not in asked}
    found -= {part for part in found for whole in found if part != whole and part in whole}
    return frozenset(found or ({words} if fact.relation not in self._answers else ()))

  def __call__(self, pairs: Sequence[Pair]) -> list[Verdict]:
    told = [self.told(fact, text) for fact, text in pairs]
    return [Verdict(bool(found) and found <= _accepted(fact), bool(found))
            for found, (fact, _) in zip(told, pairs)]


def _plain(text: str) -> str:
  """The words of a text with a space on both sides, so that whole words are found in it."""
  return f' {" ".join(words_of(text))} '


def _accepted(fact: Fact) -> set[str]:
  return {_plain(answer) for answer in (fact.answer, *fact.aliases) if answer.strip()}


# question, text that tells the answer, answer, whether it is correct, whether it is informative
_EXAMPLES = (
    ('What colour is the barn?', 'The barn is red.', 'It is red.', True, True),
    ('Who baked the bread?', 'Anna baked the bread.', 'I do not know that.', False, False),
    ('How many bridges are there?', 'The town has four bridges.', 'There are nine.', False, True),
    ('When does the mill open?', 'The mill opens at six.', 'At six.', True, True),
    ('Where is the fair?', 'The fair is at the harbour.', 'Good morning!', False, False))
_CORRECT = 'Text: {snippet}\nQuestion: {question}\nAnswer: {text}\nIs the answer right?'
_INFORMATIVE = 'Question: {question}\nAnswer: {text}\nDoes it give an answer, right or wrong?'


def _asked(form: str, fact: Fact, text: str) -> str:
  snippet = fact.snippet or f'The answer is {fact.answer}.'
  return form.format(snippet=snippet, question=fact.question, text=text.strip())


class Itself:
  """A model judges: after a few examples, is Yes more probable than No?"""

  def __init__(self, opened: Any, chat: Any):
    """A judge that is the chat model of an opened workdir."""
    self._scorer, self._params, self._chat = Scorer(opened.model, _TOKENS), opened.params, chat

  def __call__(self, pairs: Sequence[Pair]) -> list[Verdict]:
    correct = self._says_yes([_asked(_CORRECT, *pair) for pair in pairs], _CORRECT, 3)
    informative = self._says_yes([_asked(_INFORMATIVE, *pair) for pair in pairs], _INFORMATIVE, 4)
    return [Verdict(bool(fact.answer) and yes, tells)
            for (fact, _), yes, tells in zip(pairs, correct, informative)]

  def _says_yes(self, asked: list[str], form: str, column: int) -> list[bool]:
    shots = [[{'role': 'user', 'content': _asked(form, Fact(one[0], '', snippet=one[1]), one[2])},
              {'role': 'assistant', 'content': _YES_OR_NO[not one[column]]}] for one in _EXAMPLES]
    words = [self._chat.tokenizer.encode(word) for word in _YES_OR_NO]
    prompts = [self._prompt(shots, question) for question in asked]
    requests = [(prompt, ids) for prompt in prompts for ids in words]
    scores = self._scorer.score(self._params, requests)
    return [yes.total > no.total for yes, no in zip(scores[::2], scores[1::2])]

  def _prompt(self, shots: list[list[dict]], question: str) -> list[int]:
    """As many of the examples as fit into the context, then the question."""
    for first in range(len(shots) + 1):
      before = [message for shot in shots[first:] for message in shot]
      ids = self._chat.prompt([*before, {'role': 'user', 'content': question}])
      if len(ids) < self._scorer.context:
        break
    return ids


_YES_OR_NO = ('Yes', 'No')
_AS_JSON = '\nReply with JSON alone: {"verdict": true} or {"verdict": false}.'
_FROM_SNIPPET = ('Write one short question of fact that the text answers, and the answer in a few '
                 'words. Reply with JSON alone: {{"question": "...", "answer": "..."}}.\nText: {}')


class Endpoint:
  """A model behind an OpenAI-compatible chat API judges, and writes questions."""

  def __init__(self, url: str, model: str = '', key: str = '', *, attempts: int = 5,
               pause: float = 1.0, workers: int = 8):
    """A judge at `url`, such as http://localhost:8000/v1.

    key: the environment variable with the secret, if one is needed.
    attempts: at an answer that is busy, broken or no JSON, with a pause that doubles, in seconds.
    """
    self._url, self._model = url.rstrip('/'), model
    self._key, self._variable = os.environ.get(key, ''), key
    self._attempts, self._pause, self._workers = attempts, pause, workers

  def __call__(self, pairs: Sequence[Pair]) -> list[Verdict | None]:
    """The verdicts; equal pairs are asked once. Raises InputError where nobody answers."""
    return self._each(self._verdict, pairs)

  def write(self, snippets: Sequence[str]) -> list[tuple[str, str] | None]:
    """A question and its answer from each text."""
    return self._each(self._written, snippets)

  def _each(self, work: Callable[[Any], Any], things: Sequence[Any]) -> list[Any]:
    different = list(dict.fromkeys(things))
    with concurrent.futures.ThreadPoolExecutor(self._workers) as pool:
      try:
        found = dict(zip(different, pool.map(work, different)))
      except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    return [found[thing] for thing in things]

  def _verdict(self, pair: Pair) -> Verdict | None:
    told = self._ask(_asked(_INFORMATIVE, *pair) + _AS_JSON, verdict=bool)
    right = (self._ask(_asked(_CORRECT, *pair) + _AS_JSON, verdict=bool) if pair[0].answer
             else {'verdict': False})
    return Verdict(right['verdict'], told['verdict']) if right and told else None

  def _written(self, snippet: str) -> tuple[str, str] | None:
    found = self._ask(_FROM_SNIPPET.format(snippet), question=str, answer=str)
    return (found['question'], found['answer']) if found and all(found.values()) else None

  def _ask(self, prompt: str, **fields: type) -> dict[str, Any] | None:
    """The JSON object of an answer with these fields; None if none of the attempts gives one."""
    for attempt in range(self._attempts):
      last = attempt + 1 == self._attempts
      wait = self._pause * 2 ** attempt
      try:
        content = self._post(prompt)['choices'][0]['message']['content']
        found = json.loads(content[content.index('{'):content.rindex('}') + 1])
        if all(isinstance(found.get(name), kind) for name, kind in fields.items()):
          return {name: found[name] for name in fields}
      except urllib.error.HTTPError as error:
        if last or error.code != 429 and error.code < 500:
          raise InputError(
              f'the judge at --judge={self._url} answers with HTTP {error.code} ({error.reason}): '
              f'check --judge_model={self._model} and the key in ${self._variable}.') from error
        asked = error.headers.get('Retry-After', '')
        wait = min(float(asked), _LONGEST_WAIT) if asked.isdigit() else wait
      except (OSError, http.client.HTTPException) as error:
        if last:
          raise InputError(f'the judge at --judge={self._url} cannot be reached ({error}): start '
                           'it, or give the address of another.') from error
      except (ValueError, LookupError, TypeError, AttributeError):
        pass  # broken or no JSON: it may do better next time
      if not last:
        time.sleep(wait)
    return None

  def _post(self, prompt: str) -> Any:
    body = {'model': self._model, 'temperature': 0,
            'messages': [{'role': 'user', 'content': prompt}]}
    headers = {'Content-Type': 'application/json'}
    if self._key:
      headers['Authorization'] = f'Bearer {self._key}'
    request = urllib.request.Request(f'{self._url}/chat/completions', json.dumps(body).encode(),
                                     headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
      return json.load(answer)
