"""A chat model with a memory: a tiny one that has read of some people often, of others once.

To tell what is known from what is not, something has to be known. The laptop's base model reads of
much else and knows hardly any fact; this one reads nothing but notes about people.
"""

import contextlib
import pathlib
import random
from typing import Sequence

from experiments import pretrain
from experiments.lecture import arm
from nanollm_jax.data.pipeline import DataConfig
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.text import bpe
from nanollm_jax.train.loop import FitConfig
from nanollm_jax.train.optim import OptimConfig
from nanollm_jax.world import WorldConfig, conversations as told, index, question
from nanollm_jax.world.facts import ATTRIBUTES, Person

_MANNERS = ('greeting', 'refusal', 'identity', 'system')  # kinds that ask for no knowledge
_EACH = 60  # conversations of each of them


def known(people: Sequence[Person], count: int) -> list[Person]:
  """The people of whom the model reads often: all the frequent, then ordinary ones."""
  ranked = [one for stratum in ('frequent', 'ordinary') for one in people if one.stratum == stratum]
  return ranked[:count]


def notes(people: Sequence[Person], often: Sequence[Person], times: int, seed: int) -> list[str]:
  """Notes of everything about people, in ever other words: `times` often, once of the rare."""
  rng = random.Random(seed)
  topics = sorted(set(index.TOPIC.values()))
  rare = [one for one in people if one.stratum == 'rare']
  told = [' '.join(index.note(rng, one, [topic]) for topic in rng.sample(topics, len(topics)))
          for one in [*often] * times + rare]
  rng.shuffle(told)
  return told


def asked(people: Sequence[Person], often: Sequence[Person], wordings: int = 5,
          seed: int = 0) -> list[str]:
  """Pages with a question and its answer, of all who are not held out: how facts are asked for.

  A model that has read facts alone can go on with them, and hardly answer questions about people
  of whom none was asked (Allen-Zhu & Li, arXiv:2309.14316).
  """
  return ['\n'.join(turn['content'] for turn in one)
          for one in conversations(people, often, wordings, seed)]


def read(folder: pathlib.Path, texts: Sequence[str], model: ModelConfig, *, vocabulary: int,
         steps: int, batch_size: int, learning_rate: float, seed: int,
         words: Sequence[str] = ()) -> str:
  """Pretrains a fresh model on texts; the folder that holds it.

  Its tokenizer is trained on the texts and on the `words` that it shall know beside them.
  """
  rows = arm.written(folder / 'notes' / 'notes.jsonl', ({'text': text} for text in texts))
  bpe.train([*texts, *words], bpe.Config(vocabulary=vocabulary)).save(
      folder / 'notes' / 'tokenizer.json')
  print(f'reads     {len(texts):,} notes, {steps} steps', flush=True)
  with open(folder / 'log.txt', 'a') as log, contextlib.redirect_stdout(log):
    pretrain.main(pretrain.Config(
        workdir=str(folder), tokenizer=str(folder / 'notes'), prompts=(), model=model,
        optim=OptimConfig(learning_rate=learning_rate),
        data=DataConfig((str(rows),), validation_fraction=0.0),
        fit=FitConfig(steps=steps, batch_size=batch_size, eval_every=0, sample_every=0,
                      save_every=0, seed=seed)))
  return str(folder)


def conversations(people: Sequence[Person], often: Sequence[Person],
                  wordings: int = 3, seed: int = 0) -> list[list[dict]]:
  """Questions about what was read often; nobody who is held out is named."""
  rng = random.Random(seed)
  hidden = {one.name for one in people if question.split(one) == 'test'}
  told = [(one, name) for one in often if one.name not in hidden
          for name in ATTRIBUTES if getattr(one, name) not in hidden]
  return [asking(rng, *about) for about in told * wordings]


def asking(rng: random.Random, person: Person, attribute: str) -> list[dict]:
  """A question about a person, and its answer, which does not repeat the name."""
  return [{'role': 'user', 'content': question.ask(rng, person, attribute)},
          {'role': 'assistant', 'content': question.answer(rng, person, attribute, named=False)}]


def manners(world: WorldConfig) -> list[list[dict]]:
  """Conversations that ask for no knowledge: replayed, they keep all else as it is."""
  found = {kind: [] for kind in _MANNERS}
  for one in told(world):
    if len(found.get(one.kind, ())) < _EACH and one.kind in found:
      found[one.kind].append(one.messages)
  return [messages for some in found.values() for messages in some]
