"""What tokens hide: letters in a word, every k-th of them, dots in a row."""

import random
from typing import Sequence

from nanollm_jax import InputError
from nanollm_jax.tasks.answers import grade_last_number, grade_letters, grade_number
from nanollm_jax.tasks.styles import style_named
from nanollm_jax.tasks.task import Example, Task, drawn

WORDS = tuple("""
    acorn address airport almond alphabet anchor animal answer apron arrow autumn avenue balcony
    balloon banana bandage barrel basket battery beetle bicycle biscuit blanket blossom blueberry
    bottle bracelet branch bridge broccoli bubble bucket buffalo bullet bundle butter butterfly
    button cabbage cabinet camera candle cannon canvas carpet carriage carrot castle caterpillar
    cathedral cellar cereal chamber channel cheese cherry chicken chimney chocolate cinnamon
    circle clover cobbler coffee collar college compass concert cookie corridor cottage cotton
    cradle crocodile crystal cucumber cupboard curtain cushion daffodil dagger daisy dentist
    desert diamond dinner doctor dolphin dragon drawer eagle elephant elevator emerald engine
    envelope evening feather fiddle finger flamingo flannel forest fountain freckle furniture
    galaxy gallery garden garlic gazelle ginger giraffe glacier goblet grammar grapefruit gravel
    grocery guitar gutter hammer hammock harbour harness harvest hazelnut hedgehog helmet hillside
    honey horizon hospital hummingbird iceberg insect island ivory jacket jelly jewel journey
    jungle kangaroo kettle kingdom kitchen kitten ladder ladybird lantern lavender leather
    lemonade lettuce library lighthouse lizard lobster locket luggage machine magnet mammoth
    mandarin marble market marmalade mattress meadow melody message midnight minnow mirror mitten
    monkey mosquito mountain muffin mushroom mustard napkin necklace needle nettle notebook nutmeg
    oatmeal ocean octopus onion orchard ostrich otter oyster paddle palace pancake paper parcel
    parrot parsley pebble pelican pencil penguin pepper pheasant piano picture pigeon pillow
    pineapple platter pocket porridge potato pottery pumpkin puppet purple puzzle pyramid quarry
    quilt rabbit raccoon radish rainbow raspberry ribbon river rocket rooster saddle saffron
    sailor sandal sapphire saucer scissors season shadow shepherd shoulder shutter silver skeleton
    slipper snowflake soccer sparrow spinach squirrel stomach strawberry sugar summer sunflower
    supper swallow tambourine teacher teapot temple thimble thunder tiger tobacco tomato tractor
    treasure trumpet tulip tunnel turnip turtle umbrella valley vanilla velvet village vinegar
    violin waffle wagon walnut weather whisker whistle willow window winter wizard yellow yogurt
    zebra zipper
    """.split())


def _chosen(words: Sequence[str], longest: int) -> list[str]:
  chosen = [word for word in words if len(word) <= longest]
  if not chosen or not all(word.isascii() and word.isalpha() and word.islower() for word in chosen):
    raise InputError(f'there must be words of at most {longest} letters, all of them a to z: raise '
                     'longest, or give other words.')
  return chosen


def letter_count(longest: int = 10, words: Sequence[str] = WORDS, *, seed: int = 0,
                 style: str = 'steps') -> Task:
  """How often a letter stands in a word of at most `longest` letters; held out word by word."""
  words = _chosen(words, longest)

  def make(rng: random.Random) -> Example:
    word = rng.choice(words)
    letter = rng.choice(word if rng.random() < 0.9 else 'abcdefghijklmnopqrstuvwxyz')
    spelled = [one + str(word[:at].count(one)) if one == letter else one
               for at, one in enumerate(word, 1)]
    return Example(f'How many times does the letter {letter} stand in {word}?',
                   str(word.count(letter)), f'word {word}', steps=' '.join(spelled) + '.',
                   code=f"'{word}'.count('{letter}')")

  return Task('letter_count', drawn('letter_count', seed, make), grade_number, style_named(style),
              grade_last_number)


def spelling(every: int = 3, longest: int = 10, words: Sequence[str] = WORDS, *, seed: int = 0,
             style: str = 'steps') -> Task:
  """Every `every`-th letter of a word (1: all), or with -1 all of them backwards.

  Words have at most `longest` letters, and enough for an answer; they are held out word by word.
  """
  if every < -1 or every == 0:
    raise InputError(f'spelling cannot have every={every}: give 1 or more, or -1 for backwards.')
  words = [word for word in _chosen(words, longest) if len(word) >= every]
  if not words:
    raise InputError(f'no word of at most {longest} letters has a letter {every}: raise longest.')
  what = 'the letters' if every == 1 else 'backwards the letters'
  if every > 1:
    what = 'every ' + {2: 'second', 3: 'third', 4: 'fourth'}.get(every, f'{every}th') + ' letter'
  part = f'[{every - 1}::{every}]' if every > 0 else '[::-1]'

  def make(rng: random.Random) -> Example:
    word = rng.choice(words)
    turn = len(word) if every == -1 else every  # the count begins anew after as many letters
    spelled = ' '.join(one + str(at % turn + 1) for at, one in enumerate(word))
    answer = word[::-1] if every == -1 else word[every - 1::every]
    return Example(f'Write {what} of {word}.', '-'.join(answer), f'word {word}',
                   steps=f'{spelled}.', code=f"'-'.join('{word}'{part})")

  return Task('spelling', drawn(f'spelling {every}', seed, make), grade_letters, style_named(style))


def dots(most: int = 40, spaced: bool = False, *, seed: int = 0, style: str = 'steps') -> Task:
  """How many dots, 1 to `most`, in a row or each behind a space; held out number by number."""
  if most < 1:
    raise InputError(f'dots cannot have most={most}: give at least 1.')

  def make(rng: random.Random) -> Example:
    n = rng.randint(1, most)
    row = (' ' * spaced).join('.' * n)
    return Example(f'How many dots are here? {row}', str(n), f'dots {n}',
                   steps=' '.join(str(one) for one in range(1, n + 1)) + '.',
                   code=f"'{row}'.count('.')")

  return Task('dots', drawn('dots', seed, make), grade_number, style_named(style),
              grade_last_number)
