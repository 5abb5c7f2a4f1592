"""The benchmarks on toys: they time what they say, and their twins compute what we compute."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.bench import decode, train
from nanollm_jax import InputError
from nanollm_jax.model import transformer
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.objectives import language

TOY = dict(vocabulary=64, depth=2, width=16, head_size=8, context=16)


@pytest.mark.slow
def test_training_on_a_toy(monkeypatch, tmp_path, capsys):
  monkeypatch.setitem(train.SIZES, '1M', (8, TOY))  # a row for each pretended device
  monkeypatch.setattr(train, 'matmul_peak', lambda: 1e9)
  train.main(train.Config(train.BenchConfig(
      sizes=('1M',), families=('gpt2', 'qwen3'), rounds=2, steps=2, out=str(tmp_path / 'out.json'))))
  report = json.loads((tmp_path / 'out.json').read_text())
  assert [row['family'] for row in report['rows']] == ['gpt2', 'qwen3']
  for row in report['rows']:
    run = row['jax']
    assert len(run['round_seconds']) == 2 and 2 < run['loss'] < 5  # it learns from log 64 = 4.2
    seconds = sum(run['round_seconds']) / 2  # the median of two
    assert run['tokens_per_second'] == pytest.approx(2 * 8 * 16 / seconds)
  assert 'nanollm_jax' in capsys.readouterr().out
  with pytest.raises(InputError, match='--bench.sizes=2M'):
    train.BenchConfig(sizes=('2M',))


@pytest.mark.slow
def test_decoding_on_a_toy(tmp_path, capsys):
  decode.main(decode.Config(decode.BenchConfig(
      sizes=('toy',), rows=('1', '3'), new=8, rounds=2, row_by_row=True,
      out=str(tmp_path / 'out.json'))))
  report = json.loads((tmp_path / 'out.json').read_text())
  assert [row['rows'] for row in report['rows']] == [1, 3]
  for row in report['rows']:
    for name in ('engine', 'loop', 'row by row'):
      assert len(row[name]['round_seconds']) == 2
      assert row[name]['tokens_per_second'] * row[name]['milliseconds_per_step'] == pytest.approx(
          1e3 * row['rows'])
  assert capsys.readouterr().out.count('toy') >= 2
  with pytest.raises(InputError, match='--bench.new=300'):
    decode.BenchConfig(new=300)


@pytest.mark.parametrize('main, config, sentence', [
    (train.main, train.Config(train.BenchConfig(torch=True)),
     r'--bench.torch needs torch, not installed here: pip install -e .\[torch\]'),
    (decode.main, decode.Config(decode.BenchConfig(hf=True)),
     r'--bench.hf needs torch and transformers, .*pip install -e .\[hf\]')])
def test_a_missing_twin_is_named_before_anything_is_timed(monkeypatch, main, config, sentence):
  monkeypatch.setattr(train.importlib.util, 'find_spec', lambda name: None)
  monkeypatch.setattr(train.metrics, 'environment', lambda: pytest.fail('it goes on'))
  with pytest.raises(InputError, match=sentence):
    main(config)


def test_bytes_of_a_step_by_hand():
  model = ModelConfig(**TOY, dtype='bfloat16').resolve()
  parameters = transformer.count(model)
  assert decode.bytes_per_step(model, 3, 10) == 2 * (parameters + 2 * 2 * 16 * 3 * 10)


@pytest.mark.parametrize('family', ['gpt2', 'qwen3', 'llama'])
def test_the_torch_twin_has_the_same_loss_and_gradient(family):
  torch = pytest.importorskip('torch')
  from experiments.bench import torch_twin  # pylint: disable=import-outside-toplevel
  model = ModelConfig(family=family, **TOY | dict(key_heads=1)).resolve()
  params = transformer.init(model, jax.random.key(0))
  tokens_BT = np.random.default_rng(0).integers(64, size=(2, 16), dtype=np.int32)
  network = transformer.Transformer(model)
  objective = language.next_token(
      lambda params, *args, **named: network.apply({'params': params}, *args, **named),
      jnp.ones(64, jnp.int32))
  batch = dict(tokens=tokens_BT, segment_ids=np.ones_like(tokens_BT),
               positions=np.broadcast_to(np.arange(16, dtype=np.int32), (2, 16)))

  def loss(params):
    terms = objective(params, batch)
    return terms.loss / terms.weight
  ours, gradient = jax.value_and_grad(loss)(params)
  twin = torch_twin.Twin(model)
  twin.load_state_dict(torch_twin.from_ours(jax.tree.map(np.asarray, params), model))
  ids = torch.from_numpy(tokens_BT).long()
  theirs = twin(ids, torch_twin.targets_of(ids))
  theirs.backward()
  assert float(ours) == pytest.approx(theirs.item(), abs=1e-5)
  expected = torch_twin.from_ours(jax.tree.map(np.asarray, gradient), model)
  named = dict(twin.named_parameters())
  assert len(named) > 10
  for name, parameter in named.items():
    np.testing.assert_allclose(parameter.grad, expected[name], atol=1e-5, err_msg=name)


def test_the_hugging_face_twin_has_the_same_logits():
  torch = pytest.importorskip('torch')
  pytest.importorskip('transformers')
  from experiments.bench import hf_twin  # pylint: disable=import-outside-toplevel
  model = ModelConfig(**TOY).resolve()
  params = jax.tree.map(lambda leaf: leaf * 1.5, transformer.init(model, jax.random.key(0)))
  tokens_BT = np.random.default_rng(0).integers(64, size=(2, 16), dtype=np.int32)
  ours = transformer.Transformer(model).apply({'params': params}, tokens_BT).logits()
  with torch.inference_mode():
    theirs = hf_twin.build(model, decode.flat(params))(torch.from_numpy(tokens_BT).long()).logits
  np.testing.assert_allclose(theirs, ours, atol=1e-4)
