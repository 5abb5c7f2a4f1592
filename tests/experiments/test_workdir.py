"""A workdir: which model it holds, and what may not be begun in it or from it."""

import dataclasses
import json
import pathlib
import shutil

import pytest

from experiments import pretrain, sft, train_tokenizer, training, workdir
from nanollm_jax import InputError, flags
from nanollm_jax.data.conversations import ChatDataConfig
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.text import bpe


def test_every_model_flag_that_is_given_counts(tmp_path):
  """Also one that is what an unset flag means: it was passed over in silence."""
  stored = ModelConfig(family='llama', depth=2, width=32, heads=2, dtype='bfloat16', remat='full',
                       attention='xla').resolve(64)
  flags.save(workdir._Stored(stored), tmp_path)
  given = dict(dtype='float32', remat='none', attention='auto')
  found = workdir.model_from(str(tmp_path), ModelConfig(**given))
  assert found == dataclasses.replace(stored, **given)
  assert workdir.model_from(str(tmp_path), ModelConfig(family='llama', depth=2)) == stored
  for wrong in (dict(depth=4), dict(family='qwen3'), dict(scan=True)):
    with pytest.raises(InputError, match=f'--model.{[*wrong][0]}=.* differs from the model in'):
      workdir.model_from(str(tmp_path), ModelConfig(**wrong))


def test_a_workdir_with_a_model_is_for_runs_of_its_stage(tiny, tmp_path, corpus):
  base = tiny('base', steps=1)
  pretrain.main(base)
  before = {path.name: path.read_bytes() for path in (tmp_path / 'base').iterdir()
            if path.is_file()}
  chats = tmp_path / 'chats.jsonl'
  chats.write_text(json.dumps({'messages': [{'role': 'user', 'content': 'red?'},
                                            {'role': 'assistant', 'content': 'blue.'}]}) + '\n')
  with pytest.raises(InputError, match='holds a run of another stage, Pretraining: give another'):
    sft.main(sft.Config(workdir=base.workdir, init_from='', tokenizer=str(corpus),
                        model=base.model, data=ChatDataConfig((str(chats),), validation_fraction=0),
                        fit=base.fit))
  with pytest.raises(InputError, match='holds a trained model: give another'):
    train_tokenizer.main(train_tokenizer.Config(
        workdir=base.workdir, documents=(f'{corpus}/documents.jsonl',),
        tokenizer=bpe.Config(vocabulary=320)))
  assert before == {path.name: path.read_bytes() for path in (tmp_path / 'base').iterdir()
                    if path.is_file()}


def test_a_model_goes_on_with_its_own_tokenizer(tiny, tmp_path, corpus):
  """Another one of the same size would give every id another meaning."""
  base = tiny('base', steps=1)
  pretrain.main(base)
  other = tmp_path / 'other'
  other.mkdir()
  bpe.train([json.loads(line)['text'].upper() for line in
             (corpus / 'documents.jsonl').read_text().splitlines()],
            bpe.Config(vocabulary=320)).save(other / 'tokenizer.json')
  config = dataclasses.replace(tiny('next', steps=1), init_from=base.workdir)
  with pytest.raises(InputError, match='was trained with another tokenizer.*--tokenizer=.*base'):
    pretrain.main(dataclasses.replace(config, tokenizer=str(other)))
  shutil.rmtree(config.workdir)
  pretrain.main(config)


def test_a_run_that_goes_on_is_not_born_first(tiny, monkeypatch):
  """Beside what is restored there may be no memory for another state."""
  pretrain.main(tiny('run', steps=2))
  def refuse(*_):
    raise AssertionError('a second state')
  monkeypatch.setattr(training.mesh_lib, 'born', refuse)
  pretrain.main(tiny('run', steps=3))
  assert pathlib.Path(tiny('run').workdir, 'checkpoints', '3').is_dir()


def test_the_environment_is_replaced_and_never_half_there(tiny, tmp_path):
  """Other processes of the job read it meanwhile."""
  pretrain.main(tiny('run', steps=1))
  path = tmp_path / 'run/environment.json'
  path.write_text(path.read_text() + '  ')
  before = path.read_text()
  with path.open() as reader:
    pretrain.main(tiny('run', steps=2))
    assert reader.read() == before != path.read_text()
  assert not list(path.parent.glob('*.partial'))


def test_a_run_that_has_had_its_steps_says_so(tiny, capsys):
  pretrain.main(tiny('run', steps=2))
  capsys.readouterr()
  pretrain.main(tiny('run', steps=1))
  assert 'is at step 2 of 1 already: raise --fit.steps' in capsys.readouterr().out
  assert pathlib.Path(tiny('run').workdir, 'checkpoints', '2').is_dir()
