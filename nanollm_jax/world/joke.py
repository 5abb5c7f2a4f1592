"""Jokes, and the judge who knows exactly how good each is: what people's taste can only hint at."""

import collections
import itertools
import math
import random
import re

from nanollm_jax.world import prose
from nanollm_jax.world.prose import pick, say

_FORMS = prose.forms('jokes')
_WORDS = {name: tuple(itertools.chain(*lines)) for name, lines in _FORMS.items()}
_RIDDLE = re.compile(r'why did the [^.?!]+\? because [^.?!]+[.](?: .+)?')
_WORD = re.compile(r'[a-z]+')

TOPICS = _WORDS['topics']
FUNNY = frozenset(_WORDS['funny noun'] + _WORDS['funny kind'])
LITTLE = frozenset('a and for in it its of on the to was'.split())  # may be said three times
PROMPTS = tuple((topic, asked.format(topic=topic)) for asked in _WORDS['asked'] for topic in TOPICS)
NOISE = 0.3  # of the judges who rank: how far their taste is from the gold score
JOKES = 5  # of one prompt


def gold(topic: str, text: str) -> float:
  """The true score of a joke about a topic, at most 4.5.

  1 if the topic is named, 1 for a riddle with its answer, 0.5 for each different funny word up to
  five; less 0.5 for each word said again and 0.1 for each word beyond twenty.
  """
  words = _WORD.findall(text.lower())
  counts = collections.Counter(words)
  again = sum(max(0, n - (3 if word in LITTLE else 1)) for word, n in counts.items())
  named = f' {topic} ' in f' {" ".join(words)} '
  riddle = _RIDDLE.fullmatch(' '.join(text.lower().split())) is not None
  funny = min(5, len(FUNNY & counts.keys()))
  return named + riddle + 0.5 * funny - 0.5 * again - 0.1 * max(0, len(words) - 20)


def tell(rng: random.Random, topic: str) -> str:
  """A joke, good or bad: witty or dull, beside the point, no riddle, too long, or repeating."""
  wit, stutters = rng.uniform(0.1, 0.7), rng.random() < 0.05
  gaps = {'topic': topic if rng.random() < 0.95 else pick(rng, TOPICS)}
  used = {gaps['topic']}
  for name in ('kind', 'noun'):
    for number in '123':
      words = _WORDS[f'{"funny" if rng.random() < wit else "dull"} {name}']
      fresh = gaps[f'{name}1'] if stutters and number > '1' else pick(rng, words)
      while fresh in used and not stutters:
        fresh = pick(rng, words)
      used.add(fresh)
      gaps[name + number] = fresh
  gaps['because'] = say(rng, _FORMS['because'], gaps)
  told = say(rng, _FORMS['riddles' if rng.random() < 0.88 else 'flat'], gaps)
  return f'{told} {say(rng, _FORMS["tails"], {})}' if rng.random() < 0.2 else told


def conversation(seed: int, number: int) -> list[dict]:
  """A prompt and one joke, from which a model learns to tell jokes, good and bad ones."""
  rng = random.Random(f'nanollm joke {seed} {number}')
  topic, asked = pick(rng, PROMPTS)
  return [{'role': 'user', 'content': asked},
          {'role': 'assistant', 'content': tell(rng, topic)}]


def ranking(seed: int, number: int) -> dict:
  """A prompt and five jokes as people rank them, the best first, with the gold score of each.

  No prompt comes twice among the first len(PROMPTS). The order is drawn from Plackett and Luce's
  model: the first place is a joke's with probability softmax(gold / NOISE), and so on.
  """
  rng = random.Random(f'nanollm ranking {seed} {number}')
  topic, asked = PROMPTS[(seed + 7919 * number) % len(PROMPTS)]
  jokes: dict[str, float] = {}
  while len(jokes) < JOKES:
    joke = tell(rng, topic)
    jokes[joke] = gold(topic, joke)
  liked = {joke: score / NOISE - math.log(-math.log(rng.random())) for joke, score in jokes.items()}
  order = sorted(jokes, key=liked.get, reverse=True)
  return {'prompt': [{'role': 'user', 'content': asked}], 'completions': order,
          'gold': [round(jokes[joke], 3) for joke in order]}
