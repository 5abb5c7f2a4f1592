"""The Transformer: tokens to hidden states and the output head, with or without a cache."""

import dataclasses
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from nanollm_jax.model.cache import Cache
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.model.layers import Block, Norm, rotary

Params = dict[str, Any]
REMAT = {'full': None, 'dots': jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims}


class Output(NamedTuple):
  """What a forward pass returns: logits are hidden_BTD @ head_VD.T, taken where needed."""
  hidden_BTD: jax.Array
  head_VD: jax.Array
  cache: Cache | None = None

  def logits(self) -> jax.Array:
    """float32 logits [B, T, V]; prefer `objectives.logprobs` where V is large."""
    return jnp.einsum('BTD,VD->BTV', self.hidden_BTD, self.head_VD,
                      preferred_element_type=jnp.float32)


class Transformer(nn.Module):
  """A decoder-only Transformer of the resolved `config`; a pure function of (params, inputs)."""
  config: ModelConfig

  @nn.compact
  def __call__(self, tokens_BT: jax.Array, positions_BT: jax.Array | None = None,
               segment_ids_BT: jax.Array | None = None, cache: Cache | None = None, *,
               causal: bool = True) -> Output:
    """Runs the model.

    Args:
      tokens_BT: int32 ids.
      positions_BT: int32 position of each token in its document; default 0 .. T-1. With a cache
        it is also the slot that the token is written to.
      segment_ids_BT: int32 document of each token in a packed row; None: a row is a document.
      cache: keys and values of earlier positions, one entry a layer (unrolled layers only).
      causal: False lets positions see later ones (masked-token training).

    Returns:
      Output with hidden [B, T, D] in the compute dtype, head [V, D] and the new cache.
    """
    config = self.config
    if positions_BT is None:
      positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
    std = 0.02 if config.family == 'gpt2' else config.width**-0.5
    table = lambda name, rows, axis, std: self.param(name, nn.with_logical_partitioning(
        nn.initializers.normal(std), (axis, 'width')), (rows, config.width), jnp.float32)
    # Rows are taken before the cast: so the gradients of a row that is taken often add up in
    # float32. In bfloat16 a sum stops growing at about 256 times what is added to it.
    embedding_VD = table('embedding', config.vocabulary, 'vocabulary', std)
    x_BTD = embedding_VD[tokens_BT].astype(config.dtype)
    angles = None
    if config.positions == 'rope':
      angles = rotary(positions_BT, config)
    else:
      x_BTD += table('positions', config.context, None, 0.01)[positions_BT].astype(config.dtype)
    x_BTD = nn.with_logical_constraint(x_BTD, ('batch', 'time', None))
    x_BTD, cache = self._layers(x_BTD, (positions_BT, angles, segment_ids_BT), cache, causal)
    hidden_BTD = Norm(config, name='norm')(x_BTD)
    head_VD = embedding_VD if config.tied else table(
        'head', config.vocabulary, 'vocabulary', config.width**-0.5)
    return Output(hidden_BTD, head_VD.astype(config.dtype), cache)

  def _layers(self, x_BTD, shared, cache, causal: bool):
    config = self.config
    block = Block if config.remat == 'none' else nn.remat(
        Block, policy=REMAT[config.remat], static_argnums=(6,), prevent_cse=not config.scan)
    if config.scan:
      if cache is not None:
        raise ValueError('a cache needs unrolled layers: use unstack(params) and scan=False.')
      layers = nn.scan(block, variable_axes={'params': 0}, split_rngs={'params': True},
                       in_axes=(nn.broadcast,) * 5, length=config.depth,
                       metadata_params={nn.PARTITION_NAME: 'layer'})
      return layers(config, name='layers')(x_BTD, *shared, None, causal)
    caches = []
    for i in range(config.depth):
      x_BTD, layer = block(config, name=f'layer_{i}')(
          x_BTD, *shared, None if cache is None else cache[i], causal)
      caches.append(layer)
    return x_BTD, None if cache is None else tuple(caches)


def unstack(params: Params) -> Params:
  """Turns the stacked layers of a scanned model into the layout of an unrolled one."""
  if 'layers' not in params:
    return params
  rest = {name: leaf for name, leaf in params.items() if name != 'layers'}
  depth = jax.tree.leaves(params['layers'])[0].shape[0]
  return rest | {f'layer_{i}': jax.tree.map(lambda leaf: leaf[i], params['layers'])
                 for i in range(depth)}


def stack(params: Params) -> Params:
  """Turns the layers of an unrolled model into the stacked layout of a scanned one."""
  if 'layer_0' not in params:
    return params
  rest = {name: leaf for name, leaf in params.items() if not name.startswith('layer_')}
  depth = len(params) - len(rest)
  layers = [params[f'layer_{i}'] for i in range(depth)]
  return rest | {'layers': jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)}


@functools.partial(jax.jit, static_argnums=0)
def init(config: ModelConfig, key: jax.Array) -> Params:
  """Fresh float32 parameters of a resolved config (unsharded; see mesh.born for sharded)."""
  return nn.unbox(_plain(config).init(key, jnp.zeros((1, 2), jnp.int32))['params'])


def logical_axes(config: ModelConfig) -> Params:
  """The parameters' logical axis names: a tree of the same shape with PartitionSpec leaves."""
  abstract = jax.eval_shape(_plain(config).init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))
  return nn.get_partition_spec(abstract)['params']


def _plain(config: ModelConfig) -> Transformer:  # two positions are no call for a kernel
  return Transformer(dataclasses.replace(config, attention='xla'))


def count(config: ModelConfig) -> int:
  """The number of parameters, by abstract evaluation: nothing is allocated."""
  shapes = jax.eval_shape(functools.partial(init, config), jax.random.key(0))
  return sum(leaf.size for leaf in jax.tree.leaves(shapes))
