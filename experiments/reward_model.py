"""A reward model: scores a completion as people would, learned from how they ranked others.

python -m experiments.reward_model --flagfile=experiments/configs/reward_model/laptop.flags
"""

import dataclasses
import functools
import itertools
import json
import pathlib
from typing import Any, Callable, Sequence

import flax.linen as nn
import jax
import numpy as np

from experiments import sft, training, workdir
from nanollm_jax import InputError, flags, mesh as mesh_lib
from nanollm_jax.data import rankings
from nanollm_jax.data.rankings import Ranked, RankingDataConfig
from nanollm_jax.eval import ranking
from nanollm_jax.mesh import MeshConfig
from nanollm_jax.model import transformer
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.objectives import reward
from nanollm_jax.objectives.reward import RewardConfig
from nanollm_jax.sample.engine import Engine, Sampling
from nanollm_jax.text import known
from nanollm_jax.text.chat import Chat
from nanollm_jax.text.tokenizer import Tokenizer
from nanollm_jax.train import loop
from nanollm_jax.train.optim import OptimConfig

ROWS = 64  # completions that are scored at once
PROBES = 64  # prompts of each probe
LEDGER = 'reward.json'  # beside the checkpoints: what raw scores mean, and how good they are
Score = Callable[[Sequence[Sequence[int]]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Config:
  """A reward model.

  workdir: where everything of the run goes; a run that is there goes on.
  init_from: the workdir of the model that it begins as; empty begins with a fresh --model.
  tokenizer: of a fresh model; one that is trained on keeps its own.
  policy: the workdir of the policy on whose answers rewards get mean 0 and standard deviation 1;
    empty: on the ranked completions.
  answers: completions for this.
  epochs: passes over the rankings where --fit.steps is unset.
  """
  workdir: str = 'runs/reward_model'
  init_from: str = 'runs/sft'
  tokenizer: str = 'runs/tokenizer'
  policy: str = ''
  answers: int = 256
  epochs: float = 1.0
  model: ModelConfig = ModelConfig()
  data: RankingDataConfig = RankingDataConfig()
  reward_model: RewardConfig = RewardConfig()
  optim: OptimConfig = OptimConfig(schedule='linear', final=0.0, weight_decay=0.0)
  fit: loop.FitConfig = loop.FitConfig()
  mesh: MeshConfig = MeshConfig()
  sample: Sampling = Sampling(max_tokens=128)


def main(config: Config) -> None:
  # 1. Who we are.
  if config.answers < 1:
    raise InputError(f'--answers={config.answers}: rewards are normalised on them, give some.')
  mesh_lib.connect()
  tokenizer = known.from_name_or_file(config.init_from or config.tokenizer)
  if config.policy:
    same_tokenizer(config.policy, known.from_name_or_file(config.policy), tokenizer)
  chat = Chat(tokenizer)
  model = (workdir.model_from(config.init_from, config.model) if config.init_from else
           config.model.resolve(tokenizer.size))
  config = dataclasses.replace(config, model=model)
  with mesh_lib.first():
    held = rankings.prepare(config.data, chat, config.model.context, config.workdir)
  config = training.finetuned(config, len(held['train']), batch_size=16, rate=0.1)
  completions, length = rankings.size(held['train'], config.model.context)
  head = reward.head(config.model.width, jax.random.key(config.fit.seed))
  run = training.Run('Reward model', config, tokenizer, beside=head, rows=(completions, length))

  # 2. Where batches come from.
  batches = run.batches(held['train'], rankings.Batches, completions=completions, length=length)

  # 3. What is minimised.
  objective = reward.ranking(run.apply, config.reward_model)
  run.start(batches, functools.partial(sft.begin_specials, tokenizer, config.init_from))

  # 4. What we watch.
  score = scorer(run.apply, config.model.context)
  watched = held.get('validation', held['train'])
  hooks = [loop.Hook(config.fit.sample_every, functools.partial(show, run, score, watched)),
           loop.Hook(config.fit.steps, functools.partial(conclude, run, score, chat, held))]
  if 'validation' in held:
    hooks.insert(0, loop.Hook(config.fit.eval_every, lambda _, state: {
        f'validation/{name}': value for name, value in ranking.summary(
            scored(functools.partial(score, state.params), watched), rankings.gold(watched)).items()}))

  # 5. Go.
  if int(run.state.step) >= config.fit.steps and ledger_of(config.workdir).get(
      'step') != int(run.state.step):  # it has come this far, but was to go on
    with mesh_lib.use(run.mesh):
      conclude(run, score, chat, held, int(run.state.step), run.state)
  run.fit(objective, batches, hooks)


def same_tokenizer(policy: str, theirs: Tokenizer, ours: Tokenizer,
                   judge: str = 'the reward model') -> None:
  """Raises InputError where a policy cannot be scored: its ids mean other texts."""
  if theirs.fingerprint != ours.fingerprint:
    raise InputError(f'{policy} has another tokenizer than {judge}, so its ids mean other '
                     'texts: train both from models with the same tokenizer.')


def scorer(apply: Any, context: int) -> Callable[..., np.ndarray]:
  """Makes score(params, rows of ids) -> np.float32[rows]: raw, not yet normalised.

  Rows are sorted by length and padded to powers of two, so that few programs are compiled.
  """
  compiled = jax.jit(lambda *args: nn.with_logical_constraint(  # every process reads all
      reward.scores(apply, *args), (None,)))

  def score(params: Any, rows: Sequence[Sequence[int]]) -> np.ndarray:
    found = np.zeros(len(rows), np.float32)
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    size = min(ROWS, _power(len(rows)))
    for part in (order[at:at + size] for at in range(0, len(order), size)):
      longest = len(rows[part[-1]])
      if longest > context:
        raise InputError(f'a completion has {longest} tokens with its prompt, more than the '
                         f'reward model\'s context of {context}: lower --sample.max_tokens '
                         '(--rl.max_tokens).')
      tokens = np.zeros((size, min(context, max(16, _power(longest)))), np.int32)
      lengths = np.ones(size, np.int32)
      for row, index in enumerate(part):
        lengths[row] = len(rows[index])
        tokens[row, :lengths[row]] = rows[index]
      found[part] = np.asarray(compiled(params, tokens, lengths))[:len(part)]
    return found
  return score


def _power(number: int) -> int:
  return 1 << (number - 1).bit_length()


def open_reward(folder: str, tokenizer: Tokenizer | None = None, mesh: Any = None) -> Score:
  """Opens a trained reward model: rows of ids (prompt, completion, end token) to np.float32[rows].

  Scores are normalised: mean 0, standard deviation 1 on what --policy said there. It lives on one
  device or on a mesh. Raises InputError for a folder without one, for another `tokenizer`, and for
  rows longer than its context.
  """
  ledger = ledger_of(folder)
  if not ledger:
    raise InputError(f'{folder} holds no finished reward model (it has no {LEDGER}): give the '
                     '--workdir of a run of experiments.reward_model.')
  head = reward.head(workdir.model_of(folder).width, jax.random.key(0))
  opened = workdir.open_model(folder, mesh, ledger['step'], head)
  same_tokenizer('the policy', tokenizer or opened.tokenizer, opened.tokenizer,
                 f'the reward model {folder}')
  model = transformer.Transformer(opened.model)
  score = scorer(lambda params, *args: model.apply({'params': params}, *args), opened.model.context)
  return lambda rows: (score(opened.params, rows) - ledger['mean']) / ledger['std']


def ledger_of(folder: str | pathlib.Path) -> dict[str, Any]:
  """What reward.json of a workdir says; {} where there is none."""
  path = pathlib.Path(folder) / LEDGER
  return json.loads(path.read_text()) if path.exists() else {}


def scored(score: Score, held: Sequence[Ranked]) -> list[np.ndarray]:
  """The scores of all completions, by ranking."""
  flat = score([ids for one in held for ids in one.ids])
  return np.split(flat, np.cumsum([len(one.ids) for one in held])[:-1])


def show(run: training.Run, score: Any, held: Sequence[Ranked], step: int, state: Any) -> None:
  """Writes two rankings with the raw scores of this step."""
  for one, values in zip(held, scored(functools.partial(score, state.params), held[:2])):
    lines = [f'\n{value:+.2f}  {said}' for value, said in zip(values, one.ranking.completions)]
    run.log.text(step, 'ranking', str(one.ranking.prompt[-1]['content']), ''.join(lines))


def conclude(run: training.Run, raw: Any, chat: Chat, held: dict[str, list[Ranked]], step: int,
             state: Any) -> dict[str, float]:
  """Normalises, measures and probes the trained model; writes reward.json."""
  config, watched = run.config, held.get('validation', held['train'])
  score = functools.partial(raw, state.params)
  asked = itertools.islice(itertools.cycle(watched), config.answers)
  rows = spoken(config, chat, asked, run.mesh) if config.policy else [
      ids for one in held['train'] for ids in one.ids][:config.answers]
  if len(rows) < 2:
    raise InputError(f'{len(rows)} answers of --policy={config.policy} to {config.answers} prompts '
                     f'fit --model.context={config.model.context}, and rewards are normalised on '
                     'them: give more --answers, a larger context, or a lower '
                     '--sample.max_tokens.')
  usual = score(rows)
  mean, std = float(usual.mean()), float(usual.std()) or 1.0
  probed = {name: float((score(some).mean() - mean) / std)
            for name, some in rankings.probes(chat, watched[:PROBES], config.model.context).items()}
  found, gold = scored(score, watched), rankings.gold(watched)
  tables = ranking.accuracies(found, [[len(ids) for ids in one.ids] for one in watched], gold)
  if jax.process_index() == 0:
    (pathlib.Path(config.workdir) / LEDGER).write_text(json.dumps(dict(
        step=step, mean=mean, std=std, answers=len(rows), **ranking.summary(found, gold),
        probes=probed, accuracy_by=tables), indent=1))
  for label, table in tables.items():
    run.log.say(f'right, by {label}: ' + '; '.join(
        f'{name} {share.value:.3f} +- {share.stderr:.3f}' for name, share in table.items()))
  return {f'probe/{name}': value for name, value in probed.items()}


def spoken(config: Config, chat: Chat, held: Sequence[Ranked],
           mesh: Any = None) -> list[list[int]]:
  """Answers of the policy to the prompts of rankings, each with its prompt and its end.

  Those that were cut off are left out, as practice does not score them, unless most were; so are
  prompts that leave the policy no room.
  """
  opened = workdir.open_model(config.policy, mesh)
  engine = Engine(opened.model, [chat.end_of_turn, chat.tokenizer.end], slots=16)
  prompts = [one.ids[0][:one.start].tolist() for one in held if one.start < engine.length]
  sampling = [dataclasses.replace(config.sample, seed=seed) for seed in range(len(prompts))]
  made = list(zip(prompts, engine.generate(opened.params, prompts, sampling)))
  ended = [pair for pair in made if pair[1].finished]
  kept = ended if 2 * len(ended) >= len(made) else made
  room = config.model.context - 1  # what was cut off leaves some for an end
  rows = [[*prompt, *(one.ids if one.finished else one.ids[:max(0, room - len(prompt))]),
           chat.end_of_turn] for prompt, one in kept]
  return [row for row in rows if len(row) <= config.model.context]


if __name__ == '__main__':
  flags.run(main, Config)
