"""The lecture: a base model is no assistant; asked a question, it goes on with the document.

The same questions, about well-known people of whom no conversation spoke, are put to the base model
as text, and to its finetuned child as conversations, with a search engine that it may call.
python -m experiments.lecture.base_vs_assistant --base=runs/pretrain --init_from=runs/sft
"""

import dataclasses

from experiments import workdir
from experiments.lecture import claim
from experiments.lecture.arm import Answers
from experiments.lecture.questions import Questions, user
from nanollm_jax import flags
from nanollm_jax.sample.engine import Sampling
from nanollm_jax.tools.search import Search


@dataclasses.dataclass(frozen=True)
class Config:
  """Questions to a base model and to an assistant.

  base: the workdir of the base model.
  init_from: the workdir of the assistant finetuned from it.
  questions: the questions.jsonl of the world that both learned.
  pages: what the assistant can search.
  asked: questions to each model.
  tokens: that a user may see of an answer; those of conversations have 10 to 20.
  """
  base: str = 'runs/pretrain'
  init_from: str = 'runs/sft'
  questions: str = 'runs/world/questions.jsonl'
  pages: str = 'runs/world/pages.jsonl'
  asked: int = 144
  tokens: int = 32


def main(config: Config) -> None:
  base, assistant = workdir.open_model(config.base), workdir.open_model(config.init_from)
  questions, answers = Questions(config.questions), Answers(assistant)
  asked = questions.of(['frequent'], config.asked)
  search = {'search': Search.from_jsonl(config.pages)}
  rows, points = [], {}
  for place, (name, params, prompts, tools) in enumerate((
      ('base', base.params, [row['question'] for row in asked], None),
      ('assistant', assistant.params, [user(row['question']) for row in asked], search))):
    made = answers.ask(params, prompts, tools=tools, sampling=Sampling(160, temperature=0.0))
    texts = [answers.chat.visible(one.ids) for one in made]
    print(f'  {name}: {asked[0]["question"]!r} -> {texts[0]!r}')
    lengths = [len(assistant.tokenizer.encode(text)) for text in texts]
    ends = [one.finished and length <= config.tokens for one, length in zip(made, lengths)]
    form = [end and is_answer(text, questions.values(row['attribute']))
            for end, text, row in zip(ends, texts, asked)]
    rows.append({'model': name, 'ends': claim.share(ends)[0], 'an answer': claim.share(form)[0],
                 'standard error': claim.share(form)[1], 'questions': len(asked),
                 'mean tokens': sum(lengths) / len(lengths)})
    points |= {f'{name}: {word}': [(place, *claim.share(hits))]
               for word, hits in (('ends', ends), ('an answer', form))}
  before, after = rows
  claim.conclude(
      config.init_from, 'base_vs_assistant',
      claim='a base model goes on with the text; finetuned on conversations it answers and stops',
      rows=rows,
      number=f'base ends {before["ends"]:.1%} and answers {before["an answer"]:.1%}; '
      f'assistant ends {after["ends"]:.1%} and answers {after["an answer"]:.1%}',
      expected='base ends under 5%; assistant ends over 95% and answers in form over 90%',
      holds=before['ends'] < 0.05 and after['ends'] > 0.95 and after['an answer'] > 0.9,
      otherwise='more --fit.steps of finetuning, or fewer --tokens if the base model ends '
      'documents of its own',
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
