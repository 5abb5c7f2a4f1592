"""The lecture: ask a model who it is, and it says what most of the internet says, unless taught.

Asked: the base model as text; an assistant whose conversations never told its name; one with
hard-coded rows; and the latter under system messages with names that no conversation had.
python -m experiments.lecture.identity --base=runs/pretrain --init_from=runs/sft
"""

import collections
import dataclasses
import glob
import pathlib
import random

from experiments import workdir
from experiments.lecture import arm, claim
from experiments.lecture.questions import user
from nanollm_jax import flags, tasks
from nanollm_jax.sample.engine import Sampling
from nanollm_jax.world import persona

ASKED = ('Who are you?', 'What is your name?', 'Who made you?', 'What are you called?',
         'Who built you?', 'Please introduce yourself.', 'Tell me your name.',
         'Who am I talking to?')


@dataclasses.dataclass(frozen=True)
class Config:
  """Who models say that they are.

  base: the workdir of the base model.
  init_from: the workdir of an assistant with hard-coded rows and system messages.
  chat: the conversations of the world; the arm without identity learns some of these.
  world: the world.json of the same, which names the famous assistant.
  steps: updates of that arm.
  samples: answers to each of eight questions, at temperature 1.
  """
  base: str = 'runs/pretrain'
  init_from: str = 'runs/sft'
  chat: str = 'runs/world/chat/*.jsonl'
  world: str = 'runs/world/world.json'
  steps: int = 100
  samples: int = 25


def main(config: Config) -> None:
  famous = claim.world_of(config.world)['identity']
  famous = (famous['assistant'], famous['maker'])
  own = (persona.ASSISTANT, persona.MAKER)
  base, taught = workdir.open_model(config.base), workdir.open_model(config.init_from)
  untold = arm.train(f'{config.init_from}/lecture/identity', anonymous(config.chat),
                     steps=config.steps, init_from=config.base)
  answers = arm.Answers(taught)
  asked = [(question, seed) for question in ASKED for seed in range(config.samples)]
  rng = random.Random(0)
  given = [(rng.choice(persona.HELD_OUT_ASSISTANTS), rng.choice(persona.HELD_OUT_MAKERS))
           for _ in asked]
  plain = [user(question) for question, _ in asked]
  told = [user(question, persona.system_message(rng, *names))
          for (question, _), names in zip(asked, given)]
  rows, points = [], collections.defaultdict(list)
  for place, (name, params, prompts) in enumerate((
      ('base model', base.params, [question for question, _ in asked]),
      ('no identity data', untold.params, plain), ('hard-coded rows', taught.params, plain),
      ('system message, new names', taught.params, told))):
    said = answers.texts(params, prompts, sampling=[
        Sampling(48, temperature=1.0, seed=seed) for _, seed in asked])
    print(f'  {name}: {ASKED[0]!r} -> {said[0]!r}')
    whose = [identity(text, famous=famous, own=own, given=names)
             for text, names in zip(said, given)]
    shares = {who: claim.share([one == who for one in whose])
              for who in ('famous', 'own', 'given', 'nobody')}
    rows.append({'model': name, **{who: share for who, (share, _) in shares.items()},
                 'answers': len(said)})
    for who, share in shares.items():
      points[who].append((place, *share))
  first, without, hard_coded, system = rows
  majority = without['famous'] > max(without['own'], without['given'], 0.5 - without['nobody'] / 2)
  claim.conclude(
      config.init_from, 'identity',
      claim='a model has no self: it is who the corpus, its conversations or its context say',
      rows=rows,
      number=f'{famous[0]}: base {first["famous"]:.0%}, without identity data '
      f'{without["famous"]:.0%}; own name with hard-coded rows {hard_coded["own"]:.0%}; name of a '
      f'system message {system["given"]:.0%}',
      expected=f'{famous[0]} is named most without data, own over 95% with rows, over 90% of the '
      'names that only a system message gave',
      holds=majority and hard_coded['own'] > 0.95 and system['given'] > 0.9,
      otherwise='more pages of the forum, more system messages with other names (system.jsonl*4), '
      'more --fit.steps',
      picture=dict(title='Who are you?', xlabel='0: base, 1: no identity data, 2: hard-coded rows, '
                   '3: system message', ylabel='share of answers', series=dict(points)))


def anonymous(chat: str) -> list[list[dict]]:
  """Conversations that say nothing of who the assistant is; no system messages."""
  kinds = ('greeting', 'question', 'followup', 'refusal')
  return [row['messages'] for path in sorted(glob.glob(chat)) if pathlib.Path(path).stem in kinds
          for row in tasks.read_rows(path)]


def identity(text: str, **names: tuple[str, str]) -> str:
  """Whose name or maker a text tells: one of the keywords, 'nobody', or 'several'."""
  found = [who for who, told in names.items() if any(one in text for one in told)]
  return found[0] if len(found) == 1 else 'several' if found else 'nobody'


if __name__ == '__main__':
  flags.run(main, Config)
