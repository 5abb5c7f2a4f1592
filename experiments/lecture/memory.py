"""A chat model with a memory: one that has read of some people often, of others once.

The laptop's base model has met each fact of the frequent people some thirty times, in as many
wordings, and still knows few of them. To tell what is known from what is not, something has to be.
"""

import contextlib
import itertools
import pathlib
import random
from typing import Sequence

from experiments import pretrain, workdir
from experiments.lecture import arm
from nanollm_jax import tasks
from nanollm_jax.data.pipeline import DataConfig
from nanollm_jax.train.loop import FitConfig
from nanollm_jax.train.optim import OptimConfig
from nanollm_jax.world import index, question
from nanollm_jax.world.facts import ATTRIBUTES, Person

_MANNERS = ('greeting', 'refusal', 'identity', 'system')  # kinds that ask for no knowledge
_EACH = 150  # conversations of each of them


def known(people: Sequence[Person], count: int) -> list[Person]:
  """The people of whom the model reads often: all the frequent, then ordinary ones."""
  ranked = [one for stratum in ('frequent', 'ordinary') for one in people if one.stratum == stratum]
  return ranked[:count]


def read(folder: pathlib.Path, init_from: str, people: Sequence[Person], often: Sequence[Person],
         *, times: int, steps: int, batch_size: int, seed: int) -> str:
  """Pretrains on with notes of everything about people: `times` often, once of the rare."""
  rng = random.Random(seed)
  topics = sorted(set(index.TOPIC.values()))
  rare = [one for one in people if one.stratum == 'rare']
  notes = [' '.join(index.note(rng, one, [topic]) for topic in rng.sample(topics, len(topics)))
           for one in [*often] * times + rare]
  rng.shuffle(notes)
  arm.written(folder / 'notes.jsonl', ({'text': note} for note in notes))
  print(f'reads     {len(notes):,} notes, {steps} steps', flush=True)
  with open(folder / 'log.txt', 'a') as log, contextlib.redirect_stdout(log):
    pretrain.main(pretrain.Config(
        workdir=str(folder), tokenizer=init_from, init_from=init_from, prompts=('Once',),
        model=workdir.model_of(init_from), optim=OptimConfig(learning_rate=2e-3),
        data=DataConfig((str(folder / 'notes.jsonl'),), validation_fraction=0.0),
        fit=FitConfig(steps=steps, batch_size=batch_size, eval_every=0, sample_every=0,
                      save_every=0, seed=seed)))
  return str(folder)


def conversations(world: str, people: Sequence[Person], often: Sequence[Person],
                  wordings: int = 3, seed: int = 0) -> list[list[dict]]:
  """Questions about what was read often, and manners; nobody who is held out is named."""
  rng = random.Random(seed)
  hidden = {one.name for one in people if question.split(one) == 'test'}
  told = [(one, name) for one in often if one.name not in hidden
          for name in ATTRIBUTES if getattr(one, name) not in hidden]
  asked = [[{'role': 'user', 'content': question.ask(rng, *about)},
            {'role': 'assistant', 'content': question.answer(rng, *about)}]
           for about in told * wordings]
  return asked + manners(world)


def manners(world: str) -> list[list[dict]]:
  """Conversations that ask for no knowledge: replayed, they keep all else as it is."""
  return [row['messages'] for kind in _MANNERS for row in
          itertools.islice(tasks.read_rows(f'{world}/chat/{kind}.jsonl'), _EACH)]
