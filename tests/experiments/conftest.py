"""A small corpus, its tokenizer, the smallest pretraining run, the smallest assistant."""

import json
import pathlib
import random

import pytest

from experiments import pretrain, sft
from nanollm_jax import tasks
from nanollm_jax.data.conversations import ChatDataConfig
from nanollm_jax.data.pipeline import DataConfig
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.sample.engine import Sampling
from nanollm_jax.text import bpe
from nanollm_jax.train.loop import FitConfig
from nanollm_jax.train.optim import OptimConfig


def sentences(count: int, seed: int = 0) -> list[str]:
  rng = random.Random(seed)
  words = 'red blue green stone river house tree cat dog bird sees finds takes likes a the'.split()
  return [' '.join(rng.choice(words) for _ in range(rng.randint(5, 40))) + '.' for _ in range(count)]


@pytest.fixture(scope='session')
def corpus(tmp_path_factory) -> pathlib.Path:
  """A folder with documents.jsonl and tokenizer.json."""
  folder = tmp_path_factory.mktemp('corpus')
  texts = sentences(300)
  (folder / 'documents.jsonl').write_text(''.join(json.dumps({'text': text}) + '\n' for text in texts))
  bpe.train(texts, bpe.Config(vocabulary=320)).save(folder / 'tokenizer.json')
  return folder


@pytest.fixture
def tiny(corpus, tmp_path):
  """A function that makes a config of 12 steps in tmp_path/run; keywords change its fit."""
  def make(workdir: str = 'run', rate: float = 1e-2, model: dict | None = None, **fit) -> pretrain.Config:
    model = dict(depth=1, width=32, heads=2, context=32) | (model or {})
    fit = dict(steps=12, batch_size=8, log_every=1, eval_every=6, eval_batches=2, sample_every=6,
               save_every=4) | fit
    return pretrain.Config(
        workdir=str(tmp_path / workdir), tokenizer=str(corpus), prompts=('the red',),
        model=ModelConfig(**model), data=DataConfig((f'{corpus}/documents.jsonl',), validation_fraction=0.1),
        optim=OptimConfig(learning_rate=rate), fit=FitConfig(**fit), sample=Sampling(max_tokens=6))
  return make


@pytest.fixture(scope='session')
def assistant(corpus, tmp_path_factory) -> str:
  """The workdir of a model that answers tasks.affine(1) in form, right at random."""
  folder, task = tmp_path_factory.mktemp('assistant'), tasks.affine(1)
  examples = [task.example(index, 'train') for index in range(200)]
  (folder / 'chats.jsonl').write_text(''.join(json.dumps({'messages': [
      {'role': 'user', 'content': one.question},
      {'role': 'assistant', 'content': task.solve(one)}]}) + '\n' for one in examples))
  sft.main(sft.Config(
      workdir=str(folder / 'sft'), init_from='', tokenizer=str(corpus), prompts=(),
      model=ModelConfig(depth=1, width=32, heads=2, context=64),
      optim=OptimConfig(learning_rate=1e-2, schedule='constant'),
      data=ChatDataConfig((str(folder / 'chats.jsonl'),), validation_fraction=0.0),
      fit=FitConfig(steps=24, batch_size=8, eval_every=0, sample_every=0, save_every=0)))
  return str(folder / 'sft')
