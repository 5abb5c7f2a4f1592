"""The benchmarks on toys: they time what they say, and their twins compute what we compute."""

import importlib.util
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.bench import (
    attention, checkpoint, decode, rollouts, tokens, tpu_aot, train, xla_flags)
from nanollm_jax import InputError, mesh as mesh_lib
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


@pytest.mark.slow
def test_rollouts_on_a_toy(monkeypatch, tmp_path, capsys):
  monkeypatch.setattr(rollouts, 'VOCABULARY', 512)
  monkeypatch.setattr(rollouts, 'bandwidth', lambda: 1e9)
  config = rollouts.BenchConfig(size='toy', prompts=2, group=8, new=8, rows=4, rounds=2,
                                microbatches=2, out=str(tmp_path / 'out.json'))
  rollouts.main(rollouts.Config(config))
  report = json.loads((tmp_path / 'out.json').read_text())
  for name in ('engine', 'loop'):
    seconds = report[name]['round_seconds']
    assert len(seconds) == 2 and report[name]['tokens_per_second'] == pytest.approx(
        2 * 2 * 8 * 8 / sum(seconds))
  split = report['split']
  assert split['rollout'] == report['engine']['seconds']
  assert all(split[name] > 0 for name in rollouts.PARTS)
  assert report['share_of_bandwidth'] == pytest.approx(
      report['bytes'] / 1e9 / report['engine']['seconds'])
  assert ' 4 calls of 4; the engine is ' in capsys.readouterr().out


def test_rollouts_refuse_parts_that_do_not_fit():
  with pytest.raises(InputError, match='rows=5 does not divide 16, the samples of a prompt'):
    rollouts.BenchConfig(rows=5)
  with pytest.raises(InputError, match='--bench.rounds=0'):
    rollouts.BenchConfig(rounds=0)


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


def test_attention_on_a_toy(tmp_path, capsys):
  attention.main(attention.Config(attention.BenchConfig(
      shapes=('2x64x4x2x8',), rounds=2, steps=1, documents=3, out=str(tmp_path / 'out.json'))))
  report = json.loads((tmp_path / 'out.json').read_text())
  timed = [row for row in report['rows'] if 'seconds' in row]
  assert [(row['backend'], row['rows']) for row in timed] == [('xla', 'whole'), ('xla', 'packed')]
  for row in timed:
    assert row['tflops'] * 1e12 * row['seconds'] == pytest.approx(7 * 2 * 64**2 * 4 * 8)
  assert 'not run: it runs on GPUs, not on cpu' in capsys.readouterr().out
  with pytest.raises(InputError, match='--bench.shapes=64x8: give rows x positions'):
    attention.BenchConfig(shapes=('64x8',))


def test_tokens_on_a_toy(tmp_path, capsys):
  for name in 'ab':
    (tmp_path / f'{name}.txt').write_text('the cat sat on the mat and the dog ran ' * 40)
  config = tokens.BenchConfig(documents=(f'{tmp_path}/*.txt',), megabytes=0.002, rounds=1,
                              vocabularies=('290',), out=str(tmp_path / 'out.json'))
  tokens.main(tokens.Config(config))
  report = json.loads((tmp_path / 'out.json').read_text())
  assert report['megabytes'] == pytest.approx(39 * 40 / 1e6)  # the second file would be too much
  assert [row['tokenizer'] for row in report['rows']] == ['290']
  assert report['rows'][0]['bytes_per_token'] > 1.5 and '290' in capsys.readouterr().out
  with pytest.raises(InputError, match='--bench.vocabularies=4k: give whole numbers'):
    tokens.BenchConfig(vocabularies=('4k',))


@pytest.mark.slow
def test_checkpoints_on_a_toy(monkeypatch, tmp_path, capsys):
  checkpoint.main(checkpoint.Config(checkpoint.BenchConfig(
      size='toy', saves=2, steps=2, out=str(tmp_path / 'out.json'))))
  report = json.loads((tmp_path / 'out.json').read_text())
  saving, restart = report['saving'], report['restart']
  assert saving['state_gb'] * 1e9 == pytest.approx(12 * saving['parameters'], rel=0.01)  # Adam
  assert len(saving['blocked_seconds']) == 2
  assert all(a < b for a, b in zip(saving['blocked_seconds'], saving['written_seconds']))
  assert sum(restart.values()) - restart['seconds'] < restart['seconds']
  assert 'a save holds the step up for' in capsys.readouterr().out


PROGRAM = '''
%all-reduce-scatter.1 (a: f32[64,8]) -> f32[16,8] {
  %all-reduce.1 = f32[64,8]{1,0} all-reduce(%a), channel_id=9, replica_groups=[2,4]<=[8]
}

%start (a: bf16[2,4]) -> bf16[8,4] {
  %all-gather.1 = bf16[8,4]{1,0:T(8,128)(2,1)} all-gather(%a), channel_id=1, replica_groups=mesh['x'=4,'y'=2], device_ids=([2,4]T(1,0)) {'x'}, frontend_attributes={chain_id="0"}
}

%fused (a: bf16[2,4]) -> bf16[8,4] {
  %all-gather.2 = bf16[8,4]{1,0:T(8,128)(2,1)} all-gather(%a), channel_id=1, replica_groups=mesh['x'=4,'y'=2], device_ids=([2,4]T(1,0)) {'x'}, frontend_attributes={chain_id="0"}
}

%cond (i: s32[]) -> pred[] {
  %n = s32[] constant(5)
}

%body (x: f32[2]) -> f32[2] {
  %s = bf16[8,4]{1,0} fusion(%x), kind=kCustom, calls=%start
  %f = bf16[8,4]{1,0} fusion(%x), kind=kCustom, calls=%fused
  %r = f32[16,8]{1,0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1
}

ENTRY %main (x: f32[2]) -> f32[2] {
  %w = f32[2]{0} while(%x), condition=%cond, body=%body
  %all-reduce.2 = (f32[2]{0}, pred[6]{0}) all-reduce(%w, %p), channel_id=3, replica_groups={{0,1},{2,3}}
  %all-reduce.3 = f32[2]{0} all-reduce(%w), channel_id=4, replica_groups={{0},{1}}
}
'''


def test_collectives_of_a_program_by_hand():
  assert sorted(tpu_aot.collectives(PROGRAM)) == sorted([
      tpu_aot.Collective('reduce-scatter', 5 * 64 * 8 * 4 * 3 / 4, False),
      tpu_aot.Collective('all-gather', 5 * 8 * 4 * 2 * 3 / 4, True),  # two parts of one chain
      tpu_aot.Collective('all-reduce', 2 * (2 * 4 + 6) / 2, False)])


@pytest.mark.parametrize('part', [tpu_aot.training_step, tpu_aot.decoding])
def test_what_is_compiled_ahead_of_time_is_traced_without_a_tpu(part):
  mesh = mesh_lib.make(mesh_lib.MeshConfig(fsdp=2, tensor=2), jax.devices()[:4])
  lowered = part(tpu_aot.model_of('toy', tpu_aot.BenchConfig(attention='xla')), mesh, 4)
  assert 'num_partitions = 4' in lowered.as_text()


@pytest.mark.slow
def test_a_toy_is_compiled_for_a_tpu_slice(tmp_path):
  if not (os.environ.get('TPU_LIBRARY_PATH') or importlib.util.find_spec('libtpu')):
    pytest.skip('libtpu is not installed')
  tpu_aot.main(tpu_aot.Config(tpu_aot.BenchConfig(
      models=('toy',), topologies=('v5e-4',), rows=2, tensor=2, out=str(tmp_path / 'out.json'))))
  trained, decoded = json.loads((tmp_path / 'out.json').read_text())['rows']
  assert trained['mesh'] == decoded['mesh'] == '1x2x2' and trained['devices'] == 4
  assert trained['fits'] and decoded['fits'] and 0 < trained['held_gb'] < trained['total_gb'] < 1
  assert trained['sent_gb']['all-gather'] > 0 and 0 < trained['estimated_mfu'] < 1


def test_a_missing_tpu_compiler_is_said(monkeypatch):
  monkeypatch.delenv('TPU_LIBRARY_PATH', raising=False)
  monkeypatch.setattr(tpu_aot.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(InputError, match=r'not installed here: pip install -e .\[tpu\]'):
    tpu_aot.main(tpu_aot.Config())


@pytest.mark.slow
def test_xla_flags_that_this_jaxlib_takes():
  assert all(map(xla_flags.accepted, xla_flags.ALLOWED))
  assert not xla_flags.accepted('--xla_gpu_graph_level=0')  # gone, though old recipes have it
