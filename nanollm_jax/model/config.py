"""The shape of a Transformer: one dial, three published families, counts as functions."""

import dataclasses
from typing import Any, Literal

from nanollm_jax import InputError

# What each published architecture fixes; a field left at None takes its family's value.
FAMILIES: dict[str, dict[str, Any]] = {
    # Qwen3 technical report (2025), arXiv:2505.09388
    'qwen3': dict(norm='rms', positions='rope', activation='swiglu', bias=False, qk_norm=True,
                  tied=True, rope_theta=1e6, norm_eps=1e-6),
    # Touvron et al. (2023), arXiv:2302.13971
    'llama': dict(norm='rms', positions='rope', activation='swiglu', bias=False, qk_norm=False,
                  tied=False, rope_theta=1e4, norm_eps=1e-5),
    # Radford et al. (2019), "Language Models are Unsupervised Multitask Learners"
    'gpt2': dict(norm='layer', positions='learned', activation='gelu', bias=True, qk_norm=False,
                 tied=True, rope_theta=1e4, norm_eps=1e-5),
}
DEFAULTS = dict(depth=4, context=256, dtype='float32', scan=False, remat='none', attention='auto')


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """A decoder-only Transformer. Fields left unset follow from the dial and the family.

  family: qwen3, llama or gpt2: sets every architecture field that is left unset; unset means qwen3.
  depth: layers; the one dial from which the other sizes follow; unset means 4.
  width: residual width D; unset means 64 x depth.
  heads: query heads N; unset means width / head_size.
  key_heads: key-value heads K; unset means as many as heads.
  head_size: size of a head H; unset means 64, or width / heads where heads is given.
  mlp: hidden size F of the MLP; unset means 4 x width, or 8/3 x width for gated ones.
  vocabulary: rows V of the embedding; unset means the tokenizer's size.
  context: the longest sequence T that the model is trained on; unset means 256.
  norm: rms or layer.
  positions: rope (half layout, as in Hugging Face) or learned.
  activation: swiglu (gated), gelu (tanh form) or relu2 (squared ReLU).
  bias: add a bias to every projection.
  qk_norm: RMS-normalise each query and key head before the rotation.
  tied: use the embedding as the output head too.
  rope_theta: base of the rotary frequencies.
  norm_eps: epsilon inside the norms.
  dtype: compute dtype, float32 (which unset means) or bfloat16; parameters are always float32.
  scan: one lax.scan over stacked layers instead of unrolled layers (compiles faster from
    about 12 layers up; unrolled is 1.1 to 2 times faster on CPU); unset means unrolled.
  remat: what to recompute in the backward pass: none (which unset means), dots (keep matrix
    products) or full.
  attention: what runs attention in training: auto (by platform, which unset means), xla (the
    reference), cudnn, cudnn_packed (Hopper and newer) or splash (TPU).
  """

  family: Literal['qwen3', 'llama', 'gpt2'] | None = None
  depth: int | None = None
  width: int | None = None
  heads: int | None = None
  key_heads: int | None = None
  head_size: int | None = None
  mlp: int | None = None
  vocabulary: int | None = None
  context: int | None = None
  norm: Literal['rms', 'layer'] | None = None
  positions: Literal['rope', 'learned'] | None = None
  activation: Literal['swiglu', 'gelu', 'relu2'] | None = None
  bias: bool | None = None
  qk_norm: bool | None = None
  tied: bool | None = None
  rope_theta: float | None = None
  norm_eps: float | None = None
  dtype: Literal['float32', 'bfloat16'] | None = None
  scan: bool | None = None
  remat: Literal['none', 'dots', 'full'] | None = None
  attention: Literal['auto', 'xla', 'cudnn', 'cudnn_packed', 'splash'] | None = None

  def __post_init__(self):
    for name in ('depth', 'width', 'heads', 'key_heads', 'head_size', 'mlp', 'vocabulary',
                 'context'):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise InputError(f'--model.{name}={value}: give a positive number.')
    if self.heads and self.key_heads and self.heads % self.key_heads:
      raise InputError(f'--model.heads={self.heads} is not a multiple of '
                       f'--model.key_heads={self.key_heads}: each key head serves equally many '
                       'query heads.')

  def resolve(self, vocabulary: int | None = None) -> 'ModelConfig':
    """Returns the config with every field set; `vocabulary` is the tokenizer's size."""
    family = self.family or 'qwen3'
    follows = DEFAULTS | FAMILIES[family] | dict(family=family)
    config = dataclasses.replace(
        self, **{name: value for name, value in follows.items() if getattr(self, name) is None})
    width = self.width or 64 * config.depth
    head_size = self.head_size or (width // self.heads if self.heads else min(64, width))
    heads = self.heads or max(1, width // head_size)
    key_heads = self.key_heads or heads
    gated = config.activation == 'swiglu'
    mlp = self.mlp or (-(-8 * width // 3 // 64) * 64 if gated else 4 * width)
    if self.head_size is None and self.width and heads * head_size != width:
      raise InputError(f'--model.width={width} is not a multiple of {self.heads or head_size}: set '
                       '--model.heads or --model.head_size so that heads x head_size is what you '
                       'mean.')
    if config.positions == 'rope' and head_size % 2:
      raise InputError(f'--model.head_size={head_size} must be even: rotary positions turn pairs.')
    size = self.vocabulary or vocabulary
    if not size or (vocabulary and size < vocabulary):
      raise InputError(f'--model.vocabulary={size} is smaller than the tokenizer ({vocabulary} '
                       'entries): leave the flag out, or give at least that many.')
    return dataclasses.replace(
        config, width=width, heads=heads, key_heads=key_heads, head_size=head_size, mlp=mlp,
        vocabulary=size)

  def exportable_as(self) -> tuple[str | None, list[str]]:
    """The format that holds this architecture unchanged, or None and the fields in its way."""
    ways = {}
    for name, fixed in FAMILIES.items():
      free = {'tied', 'rope_theta', 'norm_eps'} if name != 'gpt2' else {'norm_eps', 'rope_theta'}
      ways[name] = [f'{field}={getattr(self, field)}' for field, value in fixed.items()
                    if field not in free and getattr(self, field) != value]
    if self.heads * self.head_size != self.width:
      ways['gpt2'].append(f'head_size={self.head_size}')
    if self.key_heads != self.heads:
      ways['gpt2'].append(f'key_heads={self.key_heads}')
    best = min(ways, key=lambda name: (len(ways[name]), name != self.family))
    return (None, ways[best]) if ways[best] else (best, [])


def matmul_parameters(config: ModelConfig) -> int:
  """Parameters that multiply activations, the output head among them (resolved config)."""
  inner, keys = config.heads * config.head_size, config.key_heads * config.head_size
  mlp = (3 if config.activation == 'swiglu' else 2) * config.width * config.mlp
  layer = 2 * config.width * inner + 2 * config.width * keys + mlp
  return config.depth * layer + config.vocabulary * config.width


def flops_per_token(config: ModelConfig, length: int | None = None) -> int:
  """Training FLOPs a token: 6 x matmul parameters + 12 x L x N x H x T.

  Attention is counted whole, not halved for causality (PaLM, arXiv:2204.02311, appendix B).
  """
  attention = 12 * config.depth * config.heads * config.head_size * (length or config.context)
  return 6 * matmul_parameters(config) + attention


def flops_formula(config: ModelConfig, length: int | None = None) -> str:
  """The FLOP count a token spelled out, for logs and benchmark tables."""
  return (f'6 x {matmul_parameters(config):,} matmul parameters + 12 x {config.depth} layers x '
          f'{config.heads * config.head_size} x {length or config.context} positions = '
          f'{flops_per_token(config, length):,} FLOPs a token')


def sharded_sizes(config: ModelConfig) -> dict[str, tuple[str, int]]:
  """The sizes that mesh axes must divide: flag name -> (mesh axis, size)."""
  return {'model.heads': ('tensor', config.heads), 'model.key_heads': ('tensor', config.key_heads),
          'model.mlp': ('tensor', config.mlp), 'model.vocabulary': ('tensor', config.vocabulary),
          'model.width': ('fsdp', config.width)}
