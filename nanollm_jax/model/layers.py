"""The layers: projection, norms, rotary positions, attention and MLP sublayers, the block."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nanollm_jax.model import cache as cache_lib
from nanollm_jax.model.attention import attention, attention_to_cache
from nanollm_jax.model.config import ModelConfig


class Dense(nn.Module):
  """y = x W (+ b), taken over flattened rows: XLA's CPU gradient of a 3-D product is slower."""
  features: int
  axes: tuple[str, str]  # logical axes of the kernel
  config: ModelConfig
  scale: float = 1.0  # of the initial standard deviation

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    config = self.config
    inputs = x.shape[-1]
    std = self.scale * (0.02 if config.family == 'gpt2' else inputs**-0.5)
    kernel = self.param('kernel', nn.with_logical_partitioning(
        nn.initializers.normal(std), self.axes), (inputs, self.features), jnp.float32)
    y = x.reshape(-1, inputs).astype(config.dtype) @ kernel.astype(config.dtype)
    if config.bias:
      bias = self.param('bias', nn.with_logical_partitioning(
          nn.initializers.zeros_init(), self.axes[1:]), (self.features,), jnp.float32)
      y = y + bias.astype(config.dtype)
    return y.reshape(*x.shape[:-1], self.features)


class Norm(nn.Module):
  """RMSNorm (Zhang & Sennrich 2019) or LayerNorm over the last axis, in float32."""
  config: ModelConfig
  kind: str = ''

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    config, size = self.config, x.shape[-1]
    axes = ('width',) if size == config.width else (None,)
    scale = self.param('scale', nn.with_logical_partitioning(
        nn.initializers.ones_init(), axes), (size,), jnp.float32)
    y = x.astype(jnp.float32)
    if (self.kind or config.norm) == 'rms':
      y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + config.norm_eps) * scale
    else:
      bias = self.param('bias', nn.with_logical_partitioning(
          nn.initializers.zeros_init(), axes), (size,), jnp.float32)
      y = y - jnp.mean(y, axis=-1, keepdims=True)
      y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + config.norm_eps)
      y = y * scale + bias
    return y.astype(config.dtype)


def rotary(positions_BT: jax.Array, config: ModelConfig) -> tuple[jax.Array, jax.Array]:
  """cos and sin [B, T, 1, H/2] in float32 of the angles position x theta^(-2i/H) (RoFormer)."""
  half = config.head_size // 2
  frequency = config.rope_theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
  angle = positions_BT[:, :, None, None].astype(jnp.float32) * frequency
  return jnp.cos(angle), jnp.sin(angle)


def rotate(x_BTNH: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
  """Turns the pairs (i, i + H/2) of each head: Hugging Face's half layout."""
  a, b = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x_BTNH.dtype)


class Attention(nn.Module):
  """Projections around `attention`; writes and reads the cache where one is given."""
  config: ModelConfig

  @nn.compact
  def __call__(self, x_BTD, positions_BT, angles, segment_ids_BT, cache, causal: bool):
    config = self.config
    B, T, _ = x_BTD.shape
    project = lambda heads, name: Dense(
        heads * config.head_size, ('width', 'heads'), config, name=name)(x_BTD).reshape(
            B, T, heads, config.head_size)
    q_BTNH = project(config.heads, 'query')
    k_BTKH = project(config.key_heads, 'key')
    v_BTKH = project(config.key_heads, 'value')
    if config.qk_norm:
      q_BTNH = Norm(config, 'rms', name='query_norm')(q_BTNH)
      k_BTKH = Norm(config, 'rms', name='key_norm')(k_BTKH)
    if angles is not None:
      q_BTNH, k_BTKH = rotate(q_BTNH, *angles), rotate(k_BTKH, *angles)
    if cache is None:
      out_BTNH = attention(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT=segment_ids_BT, causal=causal,
                           backend=config.attention)
    else:
      cache = cache_lib.write(cache, k_BTKH, v_BTKH, positions_BT)
      out_BTNH = attention_to_cache(q_BTNH, cache.k_BKHS, cache.v_BKSH, positions_BT)
    scale = (2 * config.depth) ** -0.5  # residual branches add up over depth (GPT-2, section 2.3)
    out_BTD = Dense(config.width, ('heads', 'width'), config, scale, name='out')(
        out_BTNH.reshape(B, T, -1))
    return out_BTD, cache


class Mlp(nn.Module):
  """The position-wise MLP: SwiGLU (Shazeer 2020), tanh GELU, or squared ReLU (So et al. 2021)."""
  config: ModelConfig

  @nn.compact
  def __call__(self, x_BTD: jax.Array) -> jax.Array:
    config = self.config
    up_BTF = Dense(config.mlp, ('width', 'mlp'), config, name='up')(x_BTD)
    if config.activation == 'swiglu':
      hidden_BTF = jax.nn.silu(Dense(config.mlp, ('width', 'mlp'), config, name='gate')(x_BTD)) * up_BTF
    elif config.activation == 'gelu':
      hidden_BTF = jax.nn.gelu(up_BTF, approximate=True)
    else:
      hidden_BTF = jnp.square(jax.nn.relu(up_BTF))
    scale = (2 * config.depth) ** -0.5
    return Dense(config.width, ('mlp', 'width'), config, scale, name='down')(hidden_BTF)


class Block(nn.Module):
  """A pre-norm Transformer block; its carry and outputs fit `nn.scan`."""
  config: ModelConfig

  @nn.compact
  def __call__(self, x_BTD, positions_BT, angles, segment_ids_BT, cache: Any = None,
               causal: bool = True):
    config = self.config
    out_BTD, cache = Attention(config, name='attention')(
        Norm(config, name='attention_norm')(x_BTD), positions_BT, angles, segment_ids_BT, cache,
        causal)
    x_BTD = x_BTD + out_BTD
    x_BTD = x_BTD + Mlp(config, name='mlp')(Norm(config, name='mlp_norm')(x_BTD))
    return nn.with_logical_constraint(x_BTD, ('batch', 'time', None)), cache
