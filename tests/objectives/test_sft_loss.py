"""SFT's loss and gradient equal transformers' (labels -100) on conversations packed in one row."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from nanollm_jax.model import transformer
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.objectives import language

FIXTURE = dict(np.load(pathlib.Path(__file__).parents[1] / 'fixtures' / 'sft_loss.npz'))
CONFIG = ModelConfig(depth=2, width=32, heads=4, key_heads=2, head_size=8, mlp=48, vocabulary=64,
                     context=64).resolve()


def parameters():
  """The fixture's weights in our tree: projections are transposed, names are ours."""
  weight = lambda name: FIXTURE[f'weight model.{name}.weight']
  linear = lambda name: {'kernel': weight(name).T}
  norm = lambda name: {'scale': weight(name)}
  params = {'embedding': weight('embed_tokens'), 'norm': norm('norm')}
  for i in range(CONFIG.depth):
    at = f'layers.{i}'
    params[f'layer_{i}'] = {
        'attention_norm': norm(f'{at}.input_layernorm'),
        'mlp_norm': norm(f'{at}.post_attention_layernorm'),
        'attention': {ours: linear(f'{at}.self_attn.{theirs}_proj') for ours, theirs in
                      (('query', 'q'), ('key', 'k'), ('value', 'v'), ('out', 'o'))}
        | {f'{ours}_norm': norm(f'{at}.self_attn.{theirs}_norm')
           for ours, theirs in (('query', 'q'), ('key', 'k'))},
        'mlp': {name: linear(f'{at}.mlp.{name}_proj') for name in ('gate', 'up', 'down')}}
  return params


def packed():
  """Both conversations in one row of 40, six positions of padding at the end."""
  batch = {name: np.zeros((1, 40), np.int32) for name in
           ('tokens', 'segment_ids', 'positions', 'loss_mask')}
  at = 0
  for row, length in enumerate(FIXTURE['lengths']):
    here = slice(at, at + length)
    batch['tokens'][0, here] = FIXTURE['ids'][row, :length]
    batch['loss_mask'][0, here] = FIXTURE['labels'][row, :length] >= 0
    batch['segment_ids'][0, here] = row + 1
    batch['positions'][0, here] = np.arange(length)
    at += length
  return batch


def test_loss_and_gradient_equal_transformers():
  model = transformer.Transformer(CONFIG)
  apply = lambda params, *args: model.apply({'params': params}, *args)
  objective = language.next_token(apply, jnp.ones(64, jnp.int32), end=3)
  def mean(params):
    terms = objective(params, packed())
    return terms.loss / terms.weight
  loss, gradient = jax.jit(jax.value_and_grad(mean))(parameters())
  np.testing.assert_allclose(loss, FIXTURE['loss'], rtol=1e-5)
  close = lambda ours, name: np.testing.assert_allclose(
      ours, FIXTURE[f'gradient model.{name}.weight'], rtol=1e-4, atol=1e-6)
  close(gradient['embedding'], 'embed_tokens')
  close(gradient['layer_1']['mlp']['down']['kernel'].T, 'layers.1.mlp.down_proj')
  close(gradient['layer_0']['attention']['query_norm']['scale'], 'layers.0.self_attn.q_norm')


def test_end_probability_by_hand():
  """Uniform logits give 1 / V wherever the end is the target, and only there."""
  zero = jnp.zeros((1, 40, 8)), jnp.zeros((64, 8))
  apply = lambda params, *args: transformer.Output(*zero)
  batch = packed()
  end = int(batch['tokens'][0, 20])  # the last token of the first conversation, which is learned
  total, count = language.next_token(apply, jnp.ones(64, jnp.int32), end)({}, batch).metrics[
      'end_probability']
  learned = batch['loss_mask'][0] * (batch['tokens'][0] == end)
  assert count == learned.sum() > 0
  np.testing.assert_allclose(total / count, 1 / 64, rtol=1e-6)
