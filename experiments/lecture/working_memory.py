"""The lecture: parameters are a vague recollection, the context window is a working memory.

A tiny model is told of some people often, of others once or never, and learns to answer from a note
about others, half of which say something else than it was told. Then it is asked about people of
whom it has read no note: without one, and with one that agrees with what it was told or does not.
python -m experiments.lecture.working_memory
"""

import collections
import dataclasses
import random

from experiments.lecture import arm, claim, memory
from experiments.lecture.questions import STRATA, Questions, user
from nanollm_jax import flags
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.sample.engine import Sampling
from nanollm_jax.world import WorldConfig, question, truth
from nanollm_jax.world.facts import ATTRIBUTES, World, falsified

ASKED = tuple(name for name in ATTRIBUTES if name != 'friend')  # of friends no note says otherwise


@dataclasses.dataclass(frozen=True)
class Config:
  """Questions about people, with and without a note.

  workdir: where the model and the picture go.
  world: its people are told of as often as they have pages: from 0 to 35 times.
  recipe: its conversations are those with a note, its trials those about people of each stratum.
  """
  workdir: str = 'runs/working_memory'
  world: WorldConfig = WorldConfig(people=240)
  recipe: arm.Recipe = arm.Recipe(
      conversations=24_000, steps=2000, batch_size=8, learning_rate=3e-3, trials=120, tokens=32,
      model=ModelConfig(depth=3, width=96, heads=3, context=128))


def main(config: Config) -> None:
  world, recipe = truth(config.world), config.recipe
  rng = random.Random(recipe.seed)
  told = [memory.asking(rng, person, attribute) for person in world.people
          for attribute in ASKED for _ in range(person.pages)]
  taught = told + with_notes(rng, world, recipe.conversations)
  opened = arm.fresh(f'{config.workdir}/assistant', taught, recipe,
                     arm.vocabulary(config.workdir, taught[::4], 1900))
  questions = Questions(arm.written(f'{config.workdir}/questions/rows.jsonl',
                                    (row for row in question.questions(config.world)
                                     if row['attribute'] in ASKED)))
  pages = {person.id: person.pages for person in world.people}
  answers, sampling = arm.Answers(opened, slots=64), Sampling(recipe.tokens, temperature=0.0)
  rows, lines, every = [], collections.defaultdict(list), collections.defaultdict(list)
  for stratum in STRATA:
    if not (asked := questions.of([stratum], recipe.trials)):
      continue  # a small world has nobody of some strata
    alone, read = (answers.texts(opened.params, prompts, sampling=sampling) for prompts in (
        [user(row['question']) for row in asked],
        [user(with_note(row['snippet'], row['question'])) for row in asked]))
    hits = collections.defaultdict(list)
    for row, text, noted in zip(asked, alone, read):
      agrees = row['snippet_answer'] == row['answer']
      hits['memory'].append(questions.grade(row, text).score == 1)
      hits['note agrees' if agrees else 'note contradicts'].append(
          questions.grade(row, noted, row['snippet_answer']).score == 1)
      if not agrees:
        every['overruled'].append(questions.grade(row, noted).score == 1)
    mean = sum(pages[row['person']] for row in asked) / len(asked)
    rows.append({'people': stratum, 'told of': mean, 'questions': len(asked)} | {
        name: claim.share(hits[name])[0] if name in hits else float('nan')
        for name in ('memory', 'note agrees', 'note contradicts')})
    for name, found in hits.items():
      lines[name].append((mean, *claim.share(found)))
      every[name] += found
  print(f'  {with_note(row["snippet"], row["question"])!r} -> {noted!r}')
  follows, error = claim.share(every['note contradicts'])
  agrees, overruled = (claim.share(every[name])[0] for name in ('note agrees', 'overruled'))
  memories = [row['memory'] for row in rows]
  claim.conclude(
      config.workdir, 'working_memory',
      claim='what stands in the context is told, even against what the parameters hold',
      rows=rows,
      number=f'from memory {max(memories):.0%} right about people it was told of most, '
      f'{min(memories):.0%} least; with a note {agrees:.0%}; of {len(every["overruled"])} notes '
      f'against what it was told {follows:.0%} (+- {error:.0%}) followed, {overruled:.0%} '
      'overruled',
      expected='over half right from memory of the best known and under a quarter of the least, '
      'over 80% with a note, over 80% of the contradictions followed',
      holds=max(memories) > 0.5 and min(memories) < 0.25 and min(agrees, follows) > 0.8,
      otherwise='to copy from notes more --recipe.steps and --recipe.conversations; to remember '
      'fewer --world.people',
      picture=dict(title='Recollection and working memory', xlabel='times told of the person',
                   ylabel='share right (as noted)',
                   series={name: sorted(points) for name, points in lines.items()}))


def with_notes(rng: random.Random, world: World, count: int) -> list[list[dict]]:
  """Questions behind a note that answers them, half of the notes with another value than is true.

  Only of people who are not held out.
  """
  made, people = [], [one for one in world.people
                      if question.split(one) == 'train' and one.stratum != 'never_seen']
  for _ in range(count):
    person, attribute = rng.choice(people), rng.choice(ASKED)
    if rng.random() < 0.5:
      person = falsified(rng, person, attribute, world.towns)
    asked, answer = memory.asking(rng, person, attribute)
    note = question.note(rng, person, attribute, ATTRIBUTES)
    made.append([*user(with_note(note, asked['content'])), answer])
  return made


def with_note(note: str, asked: str) -> str:
  """A note with a question behind it."""
  return f'Read this: {note} {asked}'


if __name__ == '__main__':
  flags.run(main, Config)
