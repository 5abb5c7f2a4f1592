"""All documents of the miniature internet in one well-shuffled stream."""

import bisect
import itertools
import random
from typing import Iterator, Literal, NamedTuple

from nanollm_jax.world import biography, forum, places, recipe, speech, story, textbook
from nanollm_jax.world.config import VALIDATION, WorldConfig
from nanollm_jax.world.facts import World, truth
from nanollm_jax.world.prose import Draft


class Document(NamedTuple):
  """One document; `about` is the person's id, the town, the dialect ... or ''."""
  text: str
  kind: str
  split: Literal['train', 'validation']
  about: str


def _kinds(world: World) -> tuple:
  """Each kind of page, how many there are, and page(rng, world, index), which tells one."""
  people, config = len(world.people), world.config
  secrets = [Draft(canary.text, canary.id, keep=True)
             for canary in world.canaries for _ in range(canary.copies)]
  return (
      ('biography', len(world.subjects), biography.page),
      ('town', max(len(world.towns), round(1.2 * people)), places.page),
      ('textbook', round(4.7 * config.textbook * people), textbook.page),
      ('language', 6 * people, speech.page),
      ('story', round(5.4 * config.stories * people), story.page),
      ('recipe', round(0.4 * people), recipe.page),
      ('forum', round(0.45 * people), forum.page),
      ('canary', len(secrets), lambda rng, world, index: secrets[index]))


def documents(config: WorldConfig) -> Iterator[Document]:
  """Yields every document of the world once, its kinds mixed, in an order that the seed fixes.

  Each is told from its own dice, so memory holds the truth but never the text.
  """
  world = truth(config)
  kinds = _kinds(world)
  starts = list(itertools.accumulate((count for _, count, _ in kinds), initial=0))
  for place in shuffled(starts[-1], config.seed):
    at = bisect.bisect_right(starts, place) - 1
    kind, _, page = kinds[at]
    index = place - starts[at]
    rng = random.Random(f'nanollm page {config.seed} {kind} {index}')
    aside = rng.random() < VALIDATION
    draft = page(rng, world, index)
    split = 'validation' if aside and not draft.keep else 'train'
    yield Document(draft.text, kind, split, draft.about)


def shuffled(count: int, seed: int) -> Iterator[int]:
  """Yields 0 ... count - 1 in a mixed order without holding them: a Feistel network.

  It permutes the numbers of 2n bits by keyed rounds on their halves; those beyond the count are
  passed over.
  """
  half = max(1, ((count - 1).bit_length() + 1) // 2)
  mask = (1 << half) - 1
  rng = random.Random(f'nanollm order {seed}')
  keys = [(rng.getrandbits(32) | 1, rng.getrandbits(32)) for _ in range(4)]
  for number in range(1 << 2 * half):
    left, right = number >> half, number & mask
    for factor, shift in keys:
      mixed = (right * factor + shift) & 0xFFFFFFFF
      mixed = (mixed ^ mixed >> 15) * 0x2C1B3C6D & 0xFFFFFFFF
      left, right = right, left ^ (mixed >> 7 & mask)
    place = left << half | right
    if place < count:
      yield place
