"""The lecture: few-shot prompts make a base model translate; it learns in its context.

Every dialect of the made-up language has its own ending, which only the other pairs of a list
tell. The pairs asked for are in no document.
python -m experiments.lecture.in_context --init_from=runs/pretrain
"""

import dataclasses
import random

from experiments import workdir
from experiments.lecture import claim
from nanollm_jax import flags
from nanollm_jax.sample.engine import Engine, Sampling


@dataclasses.dataclass(frozen=True)
class Config:
  """Translation of held-out pairs against the number of examples.

  init_from: the workdir of a base model.
  world: the world.json of the documents it was trained on.
  trials: questions at each number of shots.
  """
  init_from: str = 'runs/pretrain'
  world: str = 'runs/world/world.json'
  trials: int = 200


def main(config: Config) -> None:
  world = claim.world_of(config.world)
  lexicon, endings = world['lexicon'], {one['name']: one['ending'] for one in world['dialects']}
  model, params, tokenizer = workdir.open_model(config.init_from)
  rng = random.Random(0)
  held_out = {tuple(pair) for pair in world['held_out_pairs']}
  questions = rng.sample(sorted(held_out), min(config.trials, len(held_out)))
  engine = Engine(model, [tokenizer.end, *tokenizer.encode('\n')], slots=32)
  rows, right, ending = [], [], []
  for shots in (0, 1, 2, 4, 8):
    prompts = [[tokenizer.end, *tokenizer.encode(prompt(question, shots, lexicon, endings, held_out, rng))]
               for question in questions]
    made = engine.generate(params, prompts, Sampling(16, temperature=0))
    said = [tokenizer.decode(one.ids).strip() for one in made]
    exact = [text == lexicon[word] + endings[dialect]
             for (word, dialect), text in zip(questions, said)]
    ends = [text.endswith(endings[dialect]) for (_, dialect), text in zip(questions, said)]
    right.append((shots, *claim.share(exact)))
    ending.append((shots, *claim.share(ends)))
    rows.append({'shots': shots, 'right ending': ending[-1][1], 'right word': right[-1][1],
                 'standard error': right[-1][2], 'trials': len(questions)})
  print(f'  {tokenizer.decode(prompts[0][1:])!r} -> {said[0]!r}')
  gain = ending[-1][1] - ending[0][1]
  noise = (ending[-1][2] ** 2 + ending[0][2] ** 2) ** 0.5
  claim.conclude(
      config.init_from, 'in_context',
      claim='examples in the prompt teach a task that the parameters do not hold',
      rows=rows,
      number=f'right ending {ending[0][1]:.0%} without, {ending[-1][1]:.0%} with 8 examples; '
      f'whole word {right[0][1]:.0%} and {right[-1][1]:.0%}',
      expected=f'near chance (1/{len(endings)} = {1 / len(endings):.0%}) without, over half with 8',
      holds=gain > 3 * noise and ending[-1][1] > 0.5
      and ending[0][1] < 1 / len(endings) + 3 * ending[0][2],
      otherwise='attention must learn to copy an ending: about twice the --fit.steps or '
      '--model.width=256',
      picture=dict(title='Translation into a made-up dialect', xlabel='examples in the prompt',
                   ylabel='share right', series={'ending': ending, 'whole word': right}))


def prompt(question: tuple[str, str], shots: int, lexicon: dict[str, str], endings: dict[str, str],
           held_out: set[tuple[str, str]], rng: random.Random) -> str:
  """A list as the corpus has them, with `shots` pairs of the dialect, then the word alone."""
  word, dialect = question
  known = [other for other in lexicon if other != word and (other, dialect) not in held_out]
  pairs = [f'{other} = {lexicon[other]}{endings[dialect]}\n' for other in rng.sample(known, shots)]
  return 'Some words:\n' + ''.join(pairs) + f'{word} ='


if __name__ == '__main__':
  flags.run(main, Config)
