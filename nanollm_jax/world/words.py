"""The names and common words of the miniature internet, as the files in forms/ have them."""

from nanollm_jax.world import prose

NAMES = prose.lists('names')
WORDS = prose.lists('words')
TABLES = prose.tables('tables')

TOWNS = tuple(start + end for start in NAMES['town starts'] for end in NAMES['town ends'])
DISHES = {dish: prose.items(parts) for dish, parts in TABLES['dishes'].items()}
MONTHS = {season: prose.items(months) for season, months in TABLES['months'].items()}
SEASONS = tuple(MONTHS)
FRUIT, HOLDERS = TABLES['fruit'], TABLES['holders']  # one, and many


def first_name(rng, woman: bool) -> str:
  """A first name that women or men bear."""
  return prose.pick(rng, NAMES['women' if woman else 'men'])
