"""Supervised finetuning: the algorithm of pretraining, fed conversations.

python -m experiments.sft --flagfile=experiments/configs/sft/laptop.flags
"""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import evaluate, training, workdir
from nanollm_jax import flags, mesh as mesh_lib, metrics
from nanollm_jax.data import conversations, shards
from nanollm_jax.data.conversations import ChatDataConfig
from nanollm_jax.eval import generative
from nanollm_jax.mesh import MeshConfig
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.objectives import language
from nanollm_jax.sample.engine import Engine, Sampling
from nanollm_jax.tasks import Task
from nanollm_jax.text import known
from nanollm_jax.text.chat import Chat
from nanollm_jax.text.tokenizer import END, Tokenizer
from nanollm_jax.train import loop
from nanollm_jax.train.optim import OptimConfig


@dataclasses.dataclass(frozen=True)
class Config:
  """Supervised finetuning.

  workdir: where everything of the run goes; a run that is there goes on.
  init_from: the workdir of the model that is finetuned; empty begins with a fresh --model.
  tokenizer: of a fresh model; one that is finetuned keeps its own.
  epochs: passes over the conversations where --fit.steps is unset.
  prompts: what a user says while the model learns.
  answers: conversations held out of training that are answered at each evaluation, and problems
    of each task.
  tasks: what is graded at each evaluation; named as in --tasks of experiments.evaluate.
  """
  workdir: str = 'runs/sft'
  init_from: str = 'runs/pretrain'
  tokenizer: str = 'runs/tokenizer'
  epochs: float = 1.0
  prompts: tuple[str, ...] = ('Who are you?',)
  answers: int = 64
  tasks: tuple[str, ...] = ()
  model: ModelConfig = ModelConfig()
  data: ChatDataConfig = ChatDataConfig()
  optim: OptimConfig = OptimConfig(schedule='linear', final=0.0, weight_decay=0.0)
  fit: loop.FitConfig = loop.FitConfig()
  mesh: MeshConfig = MeshConfig()
  sample: Sampling = Sampling(max_tokens=128, temperature=0.0)


def main(config: Config) -> None:
  # 1. Who we are.
  mesh_lib.connect()
  tokenizer = known.from_name_or_file(config.init_from or config.tokenizer)
  chat = Chat(tokenizer)
  model = (workdir.model_from(config.init_from, config.model) if config.init_from else
           config.model.resolve(tokenizer.size))
  config = dataclasses.replace(config, model=model)
  with mesh_lib.first():
    held = conversations.prepare(config.data, chat, config.model.context, config.workdir)
  config = training.finetuned(config, held['train'].tokens / config.model.context,
                              batch_size=32, rate=0.1)
  run = training.Run('Supervised finetuning', config, tokenizer)

  # 2. Where batches come from.
  batches = run.batches(held['train'])

  # 3. What is minimised.
  objective = language.next_token(run.apply, jnp.asarray(tokenizer.byte_lengths), chat.end_of_turn)
  run.start(batches, functools.partial(begin_specials, tokenizer, config.init_from))

  # 4. What we watch.
  engine = Engine(config.model, [chat.end_of_turn, tokenizer.end], slots=16)
  every = config.fit.eval_every
  hooks = [showing(engine, chat, config, run.log)]
  if 'validation' in held:
    hooks += [run.validation(objective, held['validation']),
              loop.Hook(every, functools.partial(answer, engine, held['validation'], config))]
  if config.tasks and config.answers < 1:
    raise InputError(f'--answers={config.answers} leaves nothing to ask of --tasks='
                     f'{",".join(config.tasks)}: give some, or leave --tasks out.')
  for name in config.tasks:
    hooks.append(loop.Hook(every, functools.partial(
        solve, evaluate.task_of(name), engine, chat, config)))
  forgotten = pathlib.Path(config.init_from or config.workdir) / 'tokens'
  if (forgotten / 'validation-00000.tokens').exists():
    documents = shards.open_shards(forgotten, 'validation', tokenizer.fingerprint)
    hooks.append(run.validation(language.next_token(
        run.apply, jnp.asarray(tokenizer.byte_lengths)), documents, 'pretraining'))

  # 5. Go.
  run.fit(objective, batches, hooks)
  run.log.say(f'talk to it: python -m experiments.chat --init_from={config.workdir}')


def begin_specials(tokenizer: Tokenizer, init_from: str, params: Any) -> Any:
  """Rows of specials that pretraining never saw begin at the mean of all others, plus noise.

  A model that has been finetuned keeps the rows it learned.
  """
  if '--data.documents' not in (pathlib.Path(init_from) / 'run.flags').read_text():
    return params
  new = np.zeros(len(params['embedding']), bool)
  new[[token for name, token in tokenizer.special.items() if name != END]] = True

  def begin(table_VD):
    mean_D, std = table_VD[~new].mean(axis=0), table_VD[~new].std()
    noise_VD = 0.1 * std * jax.random.normal(jax.random.key(0), table_VD.shape)
    return jnp.where(new[:, None], mean_D + noise_VD, table_VD)

  return params | {name: begin(params[name]) for name in ('embedding', 'head') if name in params}


def answer(engine: Engine, held: Any, config: Config, _: int, state: Any) -> dict[str, float]:
  """Answers the first turns of conversations held out: do the answers end, and how long are they?"""
  prompts = []
  for index in range(min(config.answers, len(held))):
    prompt = held[index][:int(np.argmax(held.mask(index)))].tolist()
    if len(prompt) < config.model.context:
      prompts.append(prompt)
  made = engine.generate(state.params, prompts, config.sample)
  return made and {'validation/finished': sum(one.finished for one in made) / len(made),
          'validation/answer_tokens': sum(len(one.ids) for one in made) / len(made)}


def solve(task: Task, engine: Engine, chat: Chat, config: Config, _: int,
          state: Any) -> dict[str, float]:
  """The accuracy on the first held-out problems of a task."""
  found, _ = generative.evaluate(task, engine, state.params, chat, examples=config.answers,
                                 sampling=config.sample)
  return {f'{task.name}/accuracy': found['accuracy'].value}


def showing(engine: Engine, chat: Chat, config: Any, log: metrics.Log) -> loop.Hook:
  """Answers --prompts every --fit.sample_every steps; InputError where one does not fit."""
  prompts = [chat.prompt([{'role': 'user', 'content': prompt}]) for prompt in config.prompts]
  engine.check(prompts)

  def show(step: int, state: Any) -> None:
    for prompt, made in zip(config.prompts, engine.generate(state.params, prompts, config.sample)):
      log.text(step, 'answer', prompt, chat.tokenizer.decode(made.ids))

  return loop.Hook(config.fit.sample_every, show)


if __name__ == '__main__':
  flags.run(main, Config)
