"""The lecture: a base model is no assistant; asked a question, it goes on with the document.

A tiny model reads notes about people, and a copy of it is finetuned on conversations. Both get the
same questions, about people of whom it has read and no conversation spoke: the base model as text,
its child as a conversation. Only the form of what comes is judged, not whether it is true.
python -m experiments.lecture.base_vs_assistant
"""

import dataclasses
import pathlib

from experiments import workdir
from experiments.lecture import arm, claim, memory
from experiments.lecture.questions import Questions, user
from nanollm_jax import flags
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.sample.engine import Sampling
from nanollm_jax.world import WorldConfig, question, truth

MODEL = ModelConfig(depth=3, width=96, heads=3, context=128)


@dataclasses.dataclass(frozen=True)
class Config:
  """Questions to a base model and to an assistant.

  workdir: where the models and the picture go.
  world: the size and the seed of the world.
  people: people of whom the model reads, `times` notes each.
  read_steps, chat_steps: of its pretraining, and of the finetuning to answer.
  asked: questions to each model.
  tokens: of an answer at most; those of conversations have 5 to 15, and a note goes on longer.
  """
  workdir: str = 'runs/base_vs_assistant'
  world: WorldConfig = WorldConfig()
  people: int = 240
  times: int = 40
  read_steps: int = 1500
  chat_steps: int = 1200
  batch_size: int = 8
  asked: int = 200
  tokens: int = 32
  seed: int = 0


def main(config: Config) -> None:
  folder, people = pathlib.Path(config.workdir), truth(config.world).people
  often = memory.known(people, config.people)
  training = dict(batch_size=config.batch_size, seed=config.seed)
  base = memory.read(folder / 'base', memory.notes(people, often, config.times, config.seed), MODEL,
                     vocabulary=2048, steps=config.read_steps, learning_rate=3e-3, **training)
  assistant = arm.train(
      folder / 'assistant', memory.conversations(people, often) + memory.manners(config.world),
      steps=config.chat_steps, init_from=base, **training)
  questions = Questions(arm.written(folder / 'questions' / 'rows.jsonl',
                                    question.questions(config.world)))
  read = {one.id for one in often}
  asked = [row for row in questions.of(['frequent', 'ordinary'], len(people))
           if row['person'] in read][:config.asked]
  answers, rows, points = arm.Answers(assistant), [], {}
  for place, (name, params, prompts) in enumerate((
      ('base', workdir.open_model(base).params, [row['question'] for row in asked]),
      ('assistant', assistant.params, [user(row['question']) for row in asked]))):
    made = answers.ask(params, prompts, sampling=Sampling(config.tokens, temperature=0.0))
    texts = [answers.chat.visible(one.ids) for one in made]
    print(f'  {name}: {asked[0]["question"]!r} -> {texts[0]!r}')
    ends = [one.finished for one in made]
    form = [end and is_answer(text, questions.values(row['attribute']))
            for end, text, row in zip(ends, texts, asked)]
    rows.append({'model': name, 'ends': claim.share(ends)[0], 'an answer': claim.share(form)[0],
                 'standard error': claim.share(form)[1], 'questions': len(asked),
                 'mean tokens': sum(len(one.ids) for one in made) / len(made)})
    points |= {f'{name}: {word}': [(place, *claim.share(hits))]
               for word, hits in (('ends', ends), ('an answer', form))}
  before, after = rows
  claim.conclude(
      config.workdir, 'base_vs_assistant',
      claim='a base model goes on with the text; finetuned on conversations it answers and stops',
      rows=rows,
      number=f'base ends {before["ends"]:.1%} and answers {before["an answer"]:.1%}; '
      f'assistant ends {after["ends"]:.1%} and answers {after["an answer"]:.1%}',
      expected='base ends under 5%; assistant ends over 95% and answers, rightly or not, over 90%',
      holds=before['ends'] < 0.05 and after['ends'] > 0.95 and after['an answer'] > 0.9,
      otherwise='more --chat_steps, or fewer --tokens if the base model ends documents of its own',
      picture=dict(title=f'Questions, and what comes within {config.tokens} tokens',
                   xlabel='0: base model, 1: finetuned on conversations', ylabel='share',
                   series=points))


def is_answer(text: str, values: set[str]) -> bool:
  """One sentence that tells some value of what was asked for, be it right or wrong."""
  told = text.strip().rstrip('.').lower()
  return (text.strip()[-1:] in ('.', '!') and '. ' not in told and '\n' not in told
          and any(str(value).lower() in told for value in values))


if __name__ == '__main__':
  flags.run(main, Config)
