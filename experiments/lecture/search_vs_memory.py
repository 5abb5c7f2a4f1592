"""The lecture: let the model search; a tool tells it what its parameters cannot know.

Two tiny models learn from the same questions about people: one to answer, one to search first.
Then they are asked about people whom they never met. Their pages are in the search index alone.
python -m experiments.lecture.search_vs_memory
"""

import dataclasses
import random

from experiments.lecture import arm, claim
from experiments.lecture.questions import Questions, user
from nanollm_jax import flags
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.sample.engine import Sampling
from nanollm_jax.tools.search import Search
from nanollm_jax.world import WorldConfig, index, question, truth
from nanollm_jax.world.facts import Person


@dataclasses.dataclass(frozen=True)
class Config:
  """Questions about people, with and without a search engine.

  workdir: where the arms and the picture go.
  people: of the world; three in ten are in no conversation.
  """
  workdir: str = 'runs/search_vs_memory'
  people: int = 6000
  recipe: arm.Recipe = arm.Recipe(
      steps=3000, batch_size=16, learning_rate=3e-3, trials=300, tokens=128,
      model=ModelConfig(depth=3, width=96, heads=3, context=160))

  def __post_init__(self):
    WorldConfig(people=self.people)


def main(config: Config) -> None:
  world, recipe = WorldConfig(people=config.people), config.recipe
  people = {one.id: one for one in truth(world).people
            if one.stratum not in ('never_seen', 'contradicted')}
  rows = [row for row in question.questions(world) if row['person'] in people]
  search = Search((page['title'], page['text']) for page in
                  (index.page(world, person) for person in people.values()))
  taught = [row for row in rows if row['split'] == 'train'][:recipe.conversations]
  asked = {'people of its conversations': taught[:recipe.trials],
           'people never met': [row for row in rows if row['split'] == 'test'][:recipe.trials]}
  arms = {name: [conversation(people[row['person']], row, tool) for row in taught]
          for name, tool in (('memory', None), ('search', search))}
  words = arm.vocabulary(config.workdir, arms['search'][:4000], 2048)
  questions = Questions(arm.written(f'{config.workdir}/questions/rows.jsonl', rows))
  told, series, answers = [], {}, None
  for name, conversations in arms.items():
    opened = arm.fresh(f'{config.workdir}/{name}', conversations, recipe, words)
    answers = answers or arm.Answers(opened, slots=64)
    tools = {'search': search} if name == 'search' else None
    for place, (whom, some) in enumerate(asked.items()):
      texts = answers.texts(opened.params, [user(row['question']) for row in some], tools=tools,
                            sampling=Sampling(recipe.tokens, temperature=0.0))
      right, error = claim.share([questions.grade(row, text).score == 1
                                  for row, text in zip(some, texts)])
      told.append({'arm': name, 'asked about': whom, 'right': right, 'standard error': error,
                   'questions': len(some)})
      series.setdefault(name, []).append((place, right, error))
    print(f'  {some[0]["question"]!r} -> {texts[0]!r}; right is {some[0]["answer"]}', flush=True)
  _, memory, _, found = (row['right'] for row in told)
  claim.conclude(
      config.workdir, 'search_vs_memory',
      claim='a model that searches knows what is in no parameter of it', rows=told,
      number=f'about people never met {memory:.0%} right from memory, {found:.0%} with search',
      expected='under 20% from memory (a guess is sometimes right), over 80% with search',
      holds=memory < 0.2 and found > 0.8,
      otherwise='more --recipe.steps, until names are copied into the query',
      picture=dict(title='Questions about people', series=series, ylabel='share right',
                   xlabel='people of the conversations, people never met'))


def conversation(person: Person, row: dict, search: Search | None) -> list[dict]:
  """The question, and its answer: from memory, or from what a search for the name finds."""
  rng = random.Random(row['question'])
  answer = question.answer(rng, person, row['attribute'], named=False)
  found = [{'type': 'tool_call', 'text': person.name, 'name': 'search'},
           {'type': 'tool_output', 'text': search(person.name)}] if search else []
  return [*user(row['question']),
          {'role': 'assistant', 'content': [*found, {'type': 'text', 'text': answer}]}]


if __name__ == '__main__':
  flags.run(main, Config)
