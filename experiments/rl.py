"""Reinforcement learning: the loop of every stage, fed what the policy itself has sampled.

python -m experiments.rl --init_from=runs/sft --task=apples
"""

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments import evaluate, reward_model, training, workdir
from experiments.rollouts import Reward, RewardConfig, RlConfig, Rollouts
from nanollm_jax import InputError, checkpoint, flags, mesh, metrics
from nanollm_jax.eval import generative
from nanollm_jax.mesh import MeshConfig
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.objectives import language, policy
from nanollm_jax.objectives.policy import PolicyConfig
from nanollm_jax.sample.engine import Engine, Sampling
from nanollm_jax.tasks import Task
from nanollm_jax.text import chat as chat_lib, known
from nanollm_jax.text.tokenizer import Tokenizer
from nanollm_jax.train import loop, optim
from nanollm_jax.train.optim import OptimConfig

SHOWN = 4  # held-out problems whose answers are printed


@dataclasses.dataclass(frozen=True)
class Config:
  """Reinforcement learning.

  workdir: where everything of the run goes; a run that is there goes on.
  init_from: the workdir of the model that begins, an assistant; it is also the reference of KL.
  task: what is practised: its training problems; named as in --tasks of experiments.evaluate.
  tools: python, search:PAGES.jsonl.
  eval_examples: held-out problems that are asked at each evaluation; 0 for none.
  eval_samples: answers to each, for pass@k and maj@k.
  """
  workdir: str = 'runs/rl'
  init_from: str = 'runs/sft'
  task: str = 'apples'
  tools: tuple[str, ...] = ()
  eval_examples: int = 64
  eval_samples: int = 16
  rl: RlConfig = RlConfig()
  reward: RewardConfig = RewardConfig()
  policy: PolicyConfig = PolicyConfig()
  model: ModelConfig = ModelConfig()
  optim: OptimConfig = OptimConfig(schedule='constant', weight_decay=0.0)
  fit: loop.FitConfig = loop.FitConfig(steps=100, log_every=1, eval_every=20, sample_every=20,
                                       save_every=50)
  mesh: MeshConfig = MeshConfig()

  def __post_init__(self):
    if self.eval_examples < 0 or self.eval_samples < 1:
      raise InputError(f'--eval_examples={self.eval_examples} (0 or more), --eval_samples='
                       f'{self.eval_samples} (at least 1): one is out of range.')


def resolve(config: Config) -> Config:
  """Fills in the model, the rows of an update and the learning rate; checks them."""
  model, fit, rows = workdir.model_from(config.init_from, config.model), config.fit, config.rl.rows
  fit = dataclasses.replace(fit, batch_size=fit.batch_size or rows, steps=fit.steps or 100)
  if rows % fit.batch_size:
    raise InputError(f'--fit.batch_size={fit.batch_size} does not divide the {rows} rows that '
                     '--rl.prompts and --rl.group make: give a divisor.')
  if config.reward.kl_target and config.policy.kl != 'reward':
    raise InputError(f'--reward.kl_target={config.reward.kl_target} needs --policy.kl=reward.')
  if config.reward.kl_target and not config.policy.kl_coefficient:
    raise InputError('--reward.kl_target adapts --policy.kl_coefficient by factors, and nothing '
                     'comes of 0: give a coefficient to begin with.')
  if config.rl.method == 'expert' and config.policy != PolicyConfig():
    raise InputError('--rl.method=expert repeats right answers as they are, and the --policy flags '
                     'say nothing to it: leave them out, or give --rl.method=policy.')
  if config.rl.method == 'policy' and config.rl.group < 2:
    raise InputError(f'--rl.group={config.rl.group}: advantages compare the completions of one '
                     'prompt: give at least 2.')
  rate = config.optim.learning_rate
  rate = 0.05 * optim.default_learning_rate(model.width) if rate is None else rate
  return dataclasses.replace(config, model=model, fit=fit,
                             optim=dataclasses.replace(config.optim, learning_rate=rate))


def main(config: Config) -> None:
  train(config, evaluate.task_of(config.task, ''))


def train(config: Config, task: Task, reward: Reward | None = None) -> None:
  """Practises a task; its grades are the rewards unless a reward is given."""
  # 1. Who we are.
  mesh.connect()
  tokenizer = known.from_name_or_file(config.init_from)
  chat = chat_lib.Chat(tokenizer)
  config = resolve(config)
  run = training.Run('Reinforcement learning', config, tokenizer)
  calls = chat_lib.bind(chat, evaluate.tools_of(config.tools)) if config.tools else ()

  # 2. Where batches come from.
  if config.reward.init_from and reward is None:
    reward = reward_of(config.reward, tokenizer, run.mesh)
  start = workdir.open_model(config.init_from, run.mesh)
  engine = Engine(config.model, [chat.end_of_turn], slots=config.rl.slots)
  batches = Rollouts(config, task, reward, chat, engine, calls, run, start.params)

  # 3. What is minimised.
  if config.rl.method == 'policy':
    objective = policy.objective(run.apply, config.policy, config.rl.temperature,
                                 config.rl.max_tokens)
  else:
    objective = language.next_token(run.apply, jnp.asarray(tokenizer.byte_lengths),
                                    chat.end_of_turn)
  run.start(batches)

  # 4. What we watch.
  fit, common = config.fit, (task, engine, chat, config, calls)
  def look(step: int, state: Any) -> dict[str, float]:
    found = measure(*common, state)
    return found | (crop(run, batches, step, state, found['test/accuracy'])
                    if config.reward.init_from and config.reward.crop else {})
  hooks = [loop.Hook(fit.log_every, batches.numbers),
           loop.Hook(fit.sample_every, functools.partial(show, *common, run.log))]
  if config.eval_examples:
    hooks.insert(1, loop.Hook(fit.eval_every, look))
  if config.eval_examples and fit.eval_every and int(run.state.step) == 0:
    with mesh.use(run.mesh):
      run.log.numbers(0, look(0, run.state))

  # 5. Go.
  run.fit(objective, batches, hooks)


def reward_of(config: RewardConfig, tokenizer: Tokenizer, on: Any = None) -> Reward:
  """What the reward models of --reward.init_from say together of rows of ids.

  NaN of rows that are longer than the context of one of them.
  """
  members = [reward_model.open_reward(folder, tokenizer, on) for folder in config.init_from]
  room = min(workdir.model_of(folder).context for folder in config.init_from)

  def reward(rows: list[list[int]]) -> np.ndarray:
    fits = np.array([len(row) <= room for row in rows])
    found, fitting = np.full(len(rows), np.nan, np.float32), [row for row in rows if len(row) <= room]
    if fitting:
      found[fits] = config.of(np.stack([member(fitting) for member in members]))
    return found

  return reward


def crop(run: training.Run, batches: Rollouts, step: int, state: Any,
         score: float) -> dict[str, float]:
  """Saves a step that the judge finds best so far, for the next stage; the rest is regret.

  A learned reward goes on rising when what it stands for has long begun to fall.
  """
  best = checkpoint.best(run.config.workdir)
  if not best or score > best['score']:
    run.checkpoints.save(step, state, batches.get_state())
    run.checkpoints.wait()  # best.json never names a step that is not whole
    best = dict(step=step, score=score)
  best |= dict(last=step, regret=best['score'] - score)
  checkpoint.mark_best(run.config.workdir, **best)
  if step == run.config.fit.steps:
    run.log.say(f'best of all looks was {best["score"]:.3f} at step {best["step"]}, the last is '
                f'{score:.3f}: --init_from={run.config.workdir} opens the best.')
  return {'test/best': best['score'], 'test/regret': best['regret']}


def measure(task: Task, engine: Engine, chat: chat_lib.Chat, config: Config, calls: Any,
            state: Any) -> dict[str, float]:
  """Accuracy, pass@k and maj@k on held-out problems."""
  found, _ = generative.evaluate(
      task, engine, state.params, chat, examples=config.eval_examples, calls=calls,
      samples=config.eval_samples, sampling=Sampling(config.rl.max_tokens, config.rl.temperature))
  return {f'test/{name}': one.value for name, one in found.items()} | {
      'test/accuracy_stderr': found['accuracy'].stderr}


def show(task: Task, engine: Engine, chat: chat_lib.Chat, config: Config, calls: Any,
         log: metrics.Log, step: int, state: Any) -> None:
  """Answers the same held-out problems each time: of the first four those that fit."""
  shown = min(SHOWN, task.size('test')) if task.size else SHOWN
  questions = [task.example(index, 'test').question for index in range(shown)]
  asked = [(question, prompt) for question in questions if len(
      prompt := chat.prompt([{'role': 'user', 'content': question}])) < engine.length]
  made = engine.generate(state.params, [prompt for _, prompt in asked],
                         Sampling(config.rl.max_tokens, config.rl.temperature), calls)
  for (question, _), one in zip(asked, made):
    log.text(step, 'rollout', question, chat.tokenizer.decode(one.ids))


if __name__ == '__main__':
  flags.run(main, Config)
