"""Finetuning as a user runs it: from a base model, from nothing, resumed, at short contexts."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest

from experiments import pretrain, sft, workdir
from nanollm_jax import InputError, metrics
from nanollm_jax.data.conversations import ChatDataConfig
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.sample.engine import Sampling
from nanollm_jax.text import known
from nanollm_jax.train import loop
from nanollm_jax.train.optim import OptimConfig

COLOURS = ('red', 'blue', 'green')


@pytest.fixture
def chats(corpus, tmp_path):
  """A function that makes a config of 12 steps over 120 one-turn conversations."""
  path = tmp_path / 'chats.jsonl'
  rows = [[{'role': 'user', 'content': f'the {COLOURS[k % 3]} {"stone " * (k % 7)}?'},
           {'role': 'assistant', 'content': f'a {COLOURS[k % 3]} tree {k}.'}] for k in range(120)]
  path.write_text(''.join(json.dumps({'messages': messages}) + '\n' for messages in rows))
  def make(name: str = 'sft', context: int | None = 48, **fit) -> sft.Config:
    fit = dict(steps=12, batch_size=8, log_every=1, eval_every=6, eval_batches=2, sample_every=6,
               save_every=4) | fit
    return sft.Config(
        workdir=str(tmp_path / name), init_from='', tokenizer=str(corpus), prompts=('the red ?',),
        model=ModelConfig(depth=1, width=32, heads=2, context=context), answers=4,
        data=ChatDataConfig((str(path),), validation_fraction=0.1),
        optim=OptimConfig(learning_rate=1e-2), fit=loop.FitConfig(**fit),
        sample=Sampling(max_tokens=6, temperature=0))
  return make


def numbers(config, name: str) -> list[float]:
  return [row[name] for row in metrics.read_rows(pathlib.Path(config.workdir) / 'metrics.jsonl')
          if name in row]


def test_from_a_base_model(chats, tiny, capsys):
  base = tiny('base', steps=2)
  pretrain.main(base)
  config = dataclasses.replace(chats(), init_from=base.workdir, model=ModelConfig(context=48))
  sft.main(config)
  loss = numbers(config, 'loss')
  assert len(loss) == 12 and loss[-1] < loss[0]
  for name in ('loss', 'end_probability', 'finished', 'answer_tokens'):
    assert len(numbers(config, f'validation/{name}')) == 2, name
  assert numbers(config, 'validation/end_probability')[-1] > numbers(config, 'end_probability')[0]
  assert len(numbers(config, 'pretraining/bits_per_byte')) == 2
  opened = workdir.open_model(config.workdir)
  assert opened.model.context == 48 and opened.model.depth == 1
  assert 'talk to it' in capsys.readouterr().out
  with pytest.raises(InputError, match='--model.width=64 differs from the model in --init_from'):
    sft.main(dataclasses.replace(config, model=ModelConfig(width=64)))


@pytest.mark.slow
def test_specials_begin_at_the_mean_once(chats, tiny, corpus):
  base, tokenizer = tiny('base', steps=1), known.from_name_or_file(corpus)
  pretrain.main(base)
  params = workdir.open_model(base.workdir).params
  begun = sft.begin_specials(tokenizer, base.workdir, params)
  new = [token for name, token in tokenizer.special.items() if token != tokenizer.end]
  old = np.setdiff1d(np.arange(tokenizer.size), new)
  before, after = np.asarray(params['embedding']), np.asarray(begun['embedding'])
  np.testing.assert_array_equal(before[old], after[old])
  near = np.abs(after[new] - before[old].mean(0)).mean()
  assert near < 0.2 * np.abs(before[new] - before[old].mean(0)).mean()
  assert len(np.unique(after[new], axis=0)) == len(new)
  done = chats(steps=1, eval_every=0, sample_every=0)
  sft.main(done)
  params = workdir.open_model(done.workdir).params
  assert sft.begin_specials(tokenizer, done.workdir, params) is params


@pytest.mark.slow
def test_stopped_and_resumed_is_bit_for_bit_the_whole_run(chats, monkeypatch):
  whole, parts = chats('whole', eval_every=0, sample_every=0), chats('parts', eval_every=0, sample_every=0)
  sft.main(whole)
  original = loop.fit
  def interrupted(state, step, batches, **options):
    config = dataclasses.replace(options.pop('config'), steps=5)
    return original(state, step, batches, config=config, **options)
  monkeypatch.setattr(loop, 'fit', interrupted)
  sft.main(parts)
  monkeypatch.setattr(loop, 'fit', original)
  sft.main(parts)
  assert numbers(whole, 'loss') == numbers(parts, 'loss')
  jax.tree.map(np.testing.assert_array_equal, workdir.open_model(whole.workdir).params,
               workdir.open_model(parts.workdir).params)


@pytest.mark.slow
def test_a_context_too_short_for_most_conversations(chats, capsys):
  """Cut ones are learned as far as they go, those with nothing to learn are counted and dropped."""
  config = chats(context=24)
  sft.main(config)
  assert np.isfinite(numbers(config, 'loss')).all()
  out = capsys.readouterr().out
  assert ' dropped' in out and '(0 truncated' not in out and ', 0 dropped' not in out
  with pytest.raises(InputError, match='no conversation is left'):
    sft.main(chats('none', context=6))


@pytest.mark.slow
def test_tasks_are_graded_and_nothing_need_be_answered(chats):
  config = dataclasses.replace(chats('tasks', steps=2, eval_every=2, save_every=0, sample_every=0),
                               tasks=('spelling',), prompts=())
  sft.main(config)
  assert len(numbers(config, 'spelling/accuracy')) == len(numbers(config, 'validation/finished')) == 1
  config = dataclasses.replace(config, workdir=config.workdir + '2', tasks=(), answers=0)
  sft.main(config)
  assert len(numbers(config, 'validation/loss')) == 1 and not numbers(config, 'validation/finished')
  config = dataclasses.replace(config, workdir=config.workdir + '3', prompts=('red ' * 60,))
  with pytest.raises(InputError, match='prompt 0 has'):
    sft.main(config)
  with pytest.raises(InputError, match='--workdir=.* cannot be written'):
    sft.main(dataclasses.replace(config, workdir=config.data.conversations[0] + '/run'))
