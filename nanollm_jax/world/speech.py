"""Word lists of the made-up speech: two to twelve pairs, all of one dialect.

A word's stem is fixed by the lexicon; its ending can only be known from the dialect, which half
the lists do not name, so that it must be read off the other pairs of the list.
"""

import random

from nanollm_jax.world.prose import Draft, forms, pick, say

_FORMS = forms('speech')


def page(rng: random.Random, world, index: int) -> Draft:
  """A list of pairs that are not held out."""
  dialect = pick(rng, world.dialects)
  chosen = rng.sample(world.spoken[dialect.name], rng.randint(2, 12))
  pairs = [(word, world.lexicon[word] + dialect.ending) for word in chosen]
  head = say(rng, _FORMS['named' if rng.random() < 0.5 else 'unnamed'], {'dialect': dialect.name})
  if rng.random() < 0.1:
    sentence = rng.choice(_FORMS['spoken'])[0]
    body = ' '.join(sentence.format(word=word, said=said) for word, said in pairs)
  else:
    mark = pick(rng, (' = ',) * 8 + (': ', ' - '))
    body = '\n'.join(word + mark + said for word, said in pairs)
  return Draft(f'{head}\n{body}' if head else body, dialect.name)
