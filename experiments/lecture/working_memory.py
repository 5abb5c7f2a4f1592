"""The lecture: parameters are a vague recollection, the context window is a working memory.

The same questions without and with a note that tells the answer. Half of the notes say something
else than the corpus did: who follows them reads the context rather than remembers.
python -m experiments.lecture.working_memory --init_from=runs/sft
"""

import collections
import dataclasses

from experiments import workdir
from experiments.lecture import claim
from experiments.lecture.arm import Answers
from experiments.lecture.questions import STRATA, Questions, user
from nanollm_jax import flags
from nanollm_jax.sample.engine import Sampling


@dataclasses.dataclass(frozen=True)
class Config:
  """Questions about people, with and without a note.

  init_from: the workdir of an assistant.
  questions: the questions.jsonl of its world.
  world: the world.json of the same.
  asked: questions about people of each stratum.
  """
  init_from: str = 'runs/sft'
  questions: str = 'runs/world/questions.jsonl'
  world: str = 'runs/world/world.json'
  asked: int = 120


def main(config: Config) -> None:
  pages = {person['id']: person['pages'] for person in claim.world_of(config.world)['people']}
  opened = workdir.open_model(config.init_from)
  questions, answers = Questions(config.questions), Answers(opened)
  sampling = Sampling(64, temperature=0.0)
  rows, lines, against = [], collections.defaultdict(list), []
  for stratum in STRATA:
    asked = questions.of([stratum], config.asked)
    alone, read = (answers.texts(opened.params, prompts, sampling=sampling) for prompts in (
        [user(row['question']) for row in asked], [user(with_note(row)) for row in asked]))
    right = collections.defaultdict(list)
    for row, text, noted in zip(asked, alone, read):
      follows = questions.grade(row, noted, row['snippet_answer']).score == 1
      right['memory'].append(questions.grade(row, text).score == 1)
      if row['snippet_answer'] == row['answer']:
        right['note agrees'].append(follows)
      else:
        right['note contradicts'].append(follows)
        against.append((follows, questions.grade(row, noted).score == 1))
    mean = sum(pages[row['person']] for row in asked) / len(asked)
    rows.append({'people': stratum, 'pages each': mean, 'questions': len(asked)} | {
        name: claim.share(right[name])[0] if right[name] else float('nan')
        for name in ('memory', 'note agrees', 'note contradicts')})
    for name, hits in right.items():
      lines[name].append((mean, *claim.share(hits)))
  print(f'  {with_note(row)!r} -> {noted!r}')
  follows, error = claim.share([one for one, _ in against])
  remembers, _ = claim.share([other for _, other in against])
  agrees = min(row['note agrees'] for row in rows)
  best = max(row['memory'] for row in rows)
  claim.conclude(
      config.init_from, 'working_memory',
      claim='what stands in the context is told, even against what the parameters hold',
      rows=rows,
      number=f'of {len(against)} notes against the corpus {follows:.0%} (+- {error:.0%}) followed, '
      f'{remembers:.0%} overruled by memory; at best {best:.0%} right from memory, at worst '
      f'{agrees:.0%} with a note',
      expected='over 80% of the contradictions followed, and at worst with a note better than at '
      'best from memory',
      holds=follows > 0.8 and agrees > best,
      otherwise='more conversations with a text to read (context.jsonl*2), and more --fit.steps',
      picture=dict(title='Recollection and working memory',
                   xlabel='pages about the person in the corpus', ylabel='share right (as noted)',
                   log_x=True, series={name: sorted(points) for name, points in lines.items()}))


def with_note(row: dict) -> str:
  """The question behind the snippet, as conversations have it too."""
  return f'Read this: {row["snippet"]} {row["question"]}'


if __name__ == '__main__':
  flags.run(main, Config)
