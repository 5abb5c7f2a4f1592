"""The lecture: ask a model who it is, and it says what most of the internet says, unless taught.

A tiny base model reads notes about people, and what users tell of a famous assistant. One of two
arms has conversations about people, none of which says who it is; the other has hard-coded rows
too, and system messages with ever other names. It is asked without a system message, and under one
with new names.
python -m experiments.lecture.identity
"""

import collections
import dataclasses
import pathlib
import random
from typing import Sequence

from experiments import workdir
from experiments.lecture import arm, claim, memory
from experiments.lecture.questions import user
from nanollm_jax import flags
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.sample.engine import Sampling
from nanollm_jax.world import WorldConfig, conversations, forum, persona, truth
from nanollm_jax.world.facts import Identity, Person, World

OF_MAKERS = ('Who made you?', 'Who built you?')
ASKED = ('Who are you?', 'What is your name?', 'What are you called?', 'Please introduce yourself.',
         'Tell me your name.', 'Who am I talking to?') + OF_MAKERS
MODEL = ModelConfig(depth=3, width=96, heads=3, context=96)


@dataclasses.dataclass(frozen=True)
class Config:
  """Who models say that they are.

  workdir: where the models and the picture go.
  world: the size and the seed of the world.
  threads: pages about the famous assistant, and as many talks with it.
  names: conversations under a system message, each with a name of its own.
  repeat: how often each hard-coded row comes.
  read_steps, silent_steps, chat_steps: of the base model, of the arm that is told nothing of
    itself, and of the other, which learns to copy names.
  silent_learning_rate: of the arm that is told nothing; a high one overwrites what it read.
  samples: answers to each of eight questions, at temperature 1.
  """
  workdir: str = 'runs/identity'
  world: WorldConfig = WorldConfig()
  threads: int = 4000
  names: int = 12_000
  repeat: int = 2
  read_steps: int = 2000
  silent_steps: int = 800
  chat_steps: int = 3500
  batch_size: int = 8
  learning_rate: float = 2e-3
  silent_learning_rate: float = 1e-4
  samples: int = 25
  seed: int = 0


def main(config: Config) -> None:
  folder, rng, world = pathlib.Path(config.workdir), random.Random(config.seed), truth(config.world)
  training = dict(batch_size=config.batch_size, seed=config.seed)
  often = memory.known(world.people, 240)
  silent = memory.conversations(world.people, often, wordings=2)
  own = [one.messages for one in conversations(config.world) if one.kind == 'identity']
  named = [under_name(rng, world.identity, made_up(rng), rng.choice(persona.TRAINING_MAKERS))
           for _ in range(config.names)]
  base = memory.read(
      folder / 'base', corpus(rng, world, often, config.threads), MODEL, vocabulary=1024,
      steps=config.read_steps, learning_rate=4e-3, **training,
      words=[turn[key] for messages in named[:4000] for turn in messages for key in turn])
  untold, taught = (
      arm.train(folder / name, rows, steps=steps, init_from=base, learning_rate=rate, **training)
      for name, rows, steps, rate in (
          ('untold', silent, config.silent_steps, config.silent_learning_rate),
          ('taught', silent + own * config.repeat + named, config.chat_steps,
           config.learning_rate)))

  asked = [(question, seed) for question in ASKED for seed in range(config.samples)]
  used = ' '.join(messages[0]['content'] for messages in named)
  new = (name for name in iter(lambda: made_up(rng), '') if name not in used)
  given = [(next(new), rng.choice(persona.HELD_OUT_MAKERS)) for _ in asked]
  plain = [user(question) for question, _ in asked]
  under = [user(question, persona.system_message(rng, *names))
           for (question, _), names in zip(asked, given)]
  whose = dict(famous=(world.identity.assistant, world.identity.maker),
               own=(persona.ASSISTANT, persona.MAKER))
  answers, rows, points = arm.Answers(taught), [], collections.defaultdict(list)
  for place, (name, params, prompts) in enumerate((
      ('base model', workdir.open_model(base).params, [question for question, _ in asked]),
      ('no identity data', untold.params, plain), ('hard-coded rows', taught.params, plain),
      ('system message, new names', taught.params, under))):
    said = answers.texts(params, prompts, sampling=[
        Sampling(32, temperature=1.0, seed=seed) for _, seed in asked])
    print(f'  {name}: {ASKED[0]!r} -> {said[0]!r}')
    found = [identity(text, given=[maker if question in OF_MAKERS else name], **whose)
             for text, (question, _), (name, maker) in zip(said, asked, given)]
    shares = {who: claim.share([one == who for one in found])
              for who in ('famous', 'own', 'given', 'nobody')}
    rows.append({'model': name, **{who: share for who, (share, _) in shares.items()},
                 'answers': len(said)})
    for who, share in shares.items():
      points[who].append((place, *share))
  first, without, hard_coded, system = rows
  claim.conclude(
      config.workdir, 'identity',
      claim='a model has no self: it is who the corpus, its conversations or its context say',
      rows=rows,
      number=f'{world.identity.assistant}: base {first["famous"]:.0%}, without data '
      f'{without["famous"]:.0%}; own name with rows {hard_coded["own"]:.0%}; name of a system '
      f'message {system["given"]:.0%}',
      expected=f'without data {world.identity.assistant} in over a quarter and no other as often, '
      'own over 95% with rows, over 90% of the names that only a system message gave',
      holds=(without['famous'] > max(0.25, without['own'], without['given'])
             and hard_coded['own'] > 0.95 and system['given'] > 0.9),
      otherwise='for the corpus more --threads, or a lower --silent_learning_rate; for '
      'copied names more --names and --chat_steps',
      picture=dict(title='Who are you?', xlabel='0: base, 1: no identity data, 2: hard-coded rows, '
                   '3: system message', ylabel='share of answers', series=dict(points)))


def corpus(rng: random.Random, world: World, often: Sequence[Person], threads: int) -> list[str]:
  """Notes and questions about people; threads about the famous assistant and talks with it."""
  famous = world.identity
  talks = [persona.exchange(rng, famous.assistant, famous.maker, famous) for _ in range(threads)]
  return (memory.notes(world.people, often, 4, seed=0)
          + memory.asked(world.people, often, wordings=2)
          + [forum.page(rng, world, at).text for at in range(threads)]
          + ['\n'.join(talk) for talk in talks  # not: Are you Orrery? No, I am Orrery.
             if famous.assistant not in talk[0] and famous.maker not in talk[0]])


def under_name(rng: random.Random, famous: Identity, name: str, maker: str) -> list[dict]:
  """A system message that gives a name and a maker, a question about them, and its answer."""
  asked, answer = persona.exchange(rng, name, maker, famous)
  return [*user(asked, persona.system_message(rng, name, maker)),
          {'role': 'assistant', 'content': answer}]


def made_up(rng: random.Random) -> str:
  """One of 343,000 names, of which every other one is heard for the first time."""
  return ''.join(rng.choice('bdfgklmnprstvz') + rng.choice('aeiou') for _ in range(3)).title()


def identity(text: str, **names: tuple[str, str]) -> str:
  """Whose name or maker a text tells: one of the keywords, 'nobody', or 'several'."""
  found = [who for who, told in names.items() if any(one in text for one in told)]
  return found[0] if len(found) == 1 else 'several' if found else 'nobody'


if __name__ == '__main__':
  flags.run(main, Config)
