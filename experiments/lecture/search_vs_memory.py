"""The lecture: let the model search; a tool tells it what its parameters cannot know.

Asked of people whom no conversation spoke of: the assistant alone, and with a search engine over
the pages of the world. Of people in the stratum search_only no document tells at all.
python -m experiments.lecture.search_vs_memory --init_from=runs/sft
"""

import dataclasses

from experiments import workdir
from experiments.lecture import claim
from experiments.lecture.arm import Answers
from experiments.lecture.questions import STRATA, Questions, user
from nanollm_jax import flags
from nanollm_jax.sample.engine import Sampling
from nanollm_jax.tools.search import Search


@dataclasses.dataclass(frozen=True)
class Config:
  """Questions about people, with and without a search engine.

  init_from: the workdir of an assistant whose conversations had searches.
  questions: the questions.jsonl of its world.
  pages: what is searched.
  world: the world.json of the same.
  asked: questions about people of each stratum.
  """
  init_from: str = 'runs/sft'
  questions: str = 'runs/world/questions.jsonl'
  pages: str = 'runs/world/pages.jsonl'
  world: str = 'runs/world/world.json'
  asked: int = 120


def main(config: Config) -> None:
  people = {person['id']: person for person in claim.world_of(config.world)['people']}
  opened = workdir.open_model(config.init_from)
  questions, answers = Questions(config.questions), Answers(opened)
  search = Search.from_jsonl(config.pages)
  sampling = Sampling(160, temperature=0.0)
  rows, memory, found = [], [], []
  for stratum in STRATA:
    asked = questions.of([stratum], config.asked)
    prompts = [user(row['question']) for row in asked]
    alone = answers.texts(opened.params, prompts, sampling=sampling)
    made = answers.ask(opened.params, prompts, sampling=sampling, tools={'search': search})
    told = [answers.chat.visible(one.ids) for one in made]
    called = [not all(one.sampled) for one in made]
    right = [questions.grade(row, text).score == 1 for row, text in zip(asked, alone)]
    with_search = [questions.grade(row, text, indexed(row, people[row['person']]) if call else None
                                   ).score == 1 for row, text, call in zip(asked, told, called)]
    pages = sum(people[row['person']]['pages'] for row in asked) / len(asked)
    memory.append((pages, *claim.share(right)))
    found.append((pages, *claim.share(with_search)))
    rows.append({'people': stratum, 'pages each': pages, 'questions': len(asked),
                 'right alone': memory[-1][1], 'searched': claim.share(called)[0],
                 'right with search': found[-1][1], 'standard error': found[-1][2]})
  print(f'  {asked[0]["question"]!r}\n  alone: {alone[0]!r}; with search: '
        f'{answers.chat.parse_turn(made[0].ids)}')
  unseen = rows[-1]
  claim.conclude(
      config.init_from, 'search_vs_memory',
      claim='an assistant that searches knows what is in no parameter of it',
      rows=rows,
      number=f'of people in no document {unseen["right alone"]:.0%} right alone, '
      f'{unseen["right with search"]:.0%} with search',
      expected='under 20% alone (a guess of a value is sometimes right), over 80% with search',
      holds=unseen['right alone'] < 0.2 and unseen['right with search'] > 0.8,
      otherwise='more searches among the conversations (search.jsonl*2), and more --fit.steps',
      picture=dict(title='Questions about people', xlabel='pages about the person in the corpus',
                   ylabel='share right', log_x=True,
                   series={'alone': sorted(memory), 'with search': sorted(found)}))


def indexed(row: dict, person: dict) -> str:
  """What the person's page says: of the contradicted, of one attribute another than the corpus."""
  return person['index_value'] if person['index_attribute'] == row['attribute'] else row['answer']


if __name__ == '__main__':
  flags.run(main, Config)
