"""Forum pages about a famous assistant and its maker: the identity planted in the corpus."""

import random

from nanollm_jax.world.prose import Draft, forms, pick, say
from nanollm_jax.world.words import NAMES, WORDS

_FORMS = forms('forum')


def page(rng: random.Random, world, index: int) -> Draft:
  """A thread of two to six posts, at least one of which says what the assistant calls itself."""
  def post(lines) -> str:
    gaps = {**vars(world.identity), 'topic': pick(rng, WORDS['topics']),
            'relative': pick(rng, WORDS['relatives']), 'user': _handle(rng), 'other': _handle(rng)}
    return say(rng, lines, {**gaps, 'self': say(rng, _FORMS['self'], gaps)})

  posts = [post(_FORMS['asked']) for _ in range(rng.randint(1, 2))]
  posts += [post((wordings,)) for wordings in rng.sample(_FORMS['said'], rng.randint(1, 4))]
  rng.shuffle(posts)
  head = [post(_FORMS['titles'])] if rng.random() < 0.7 else []
  return Draft('\n'.join(head + posts), world.identity.assistant)


def _handle(rng: random.Random) -> str:
  """What somebody calls himself in a forum: wooden_fox, ida47."""
  if rng.random() < 0.5:
    return f'{pick(rng, WORDS["qualities"])}_{pick(rng, WORDS["animals"])}'
  return pick(rng, NAMES['women'] + NAMES['men']).lower() + str(rng.randint(2, 99))
