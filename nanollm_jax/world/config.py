"""The size and the seed of the miniature internet, and the counts that follow from them."""

import dataclasses
import math

from nanollm_jax import InputError
from nanollm_jax.world import words

# Shares of the inhabitants; the ordinary are all the others.
SHARES = {'frequent': 0.06, 'rare': 0.20, 'search_only': 0.10, 'never_seen': 0.16,
          'contradicted': 0.08}
PAGES = {'frequent': (26, 35), 'ordinary': (4, 7), 'rare': (1, 1), 'search_only': (0, 0),
         'contradicted': (8, 12)}  # at least and at most, of each person
COPIES = (0, 1, 2, 4, 8, 16, 32, 64)  # a canary with no copy is held out
HELD_OUT = 0.15  # of the pairs (word, dialect): in no document
VALIDATION = 0.03  # of the documents


@dataclasses.dataclass(frozen=True)
class WorldConfig:
  """The size and the seed of the miniature internet.

  people: inhabitants; pages of every kind grow with them, about 9 kB of text for each
  seed: another seed is another world: other people, towns, speech, secrets and pages
  towns: towns, among which the birthplaces are spread
  canaries: secrets planted at each number of copies (1, 2, 4 ... 64), and as many with no copy
  textbook: how many textbook chapters, as a multiple of the usual number
  stories: how many short stories, as a multiple of the usual number
  conversations: how many conversations, as a multiple of the usual 14 for each person
  web: junk pages on the web, as a multiple of the pages that hold documents; 0 makes no web
  """
  people: int = 1000
  seed: int = 0
  towns: int = 40
  canaries: int = 4
  textbook: float = 1.0
  stories: float = 1.0
  conversations: float = 1.0
  web: float = 1.0

  def __post_init__(self):
    ranges = {'people': (20, 2_000_000), 'towns': (2, len(words.TOWNS)), 'canaries': (0, 1000),
              'textbook': (0, 1000), 'stories': (0, 1000), 'conversations': (0, 1000),
              'web': (0, 1000)}
    for name, (low, high) in ranges.items():
      value = getattr(self, name)
      if not (math.isfinite(value) and low <= value <= high):
        raise InputError(
            f'--world.{name}={value} is out of range: give a number from {low} to {high}.')


def strata(config: WorldConfig) -> list[str]:
  """The stratum of each inhabitant; at least one of each, and two never seen."""
  sizes = {name: max(2 if name == 'never_seen' else 1, round(share * config.people))
           for name, share in SHARES.items()}
  ordinary = config.people - sum(sizes.values())
  return ['ordinary'] * ordinary + [name for name, size in sizes.items() for _ in range(size)]
