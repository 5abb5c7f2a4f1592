"""Our Transformer in plain PyTorch, nanoGPT-shaped: the other side of the training benchmark.

Its own process, so that no thread pool disturbs the other: a request is a line of JSON on
standard input, the answer a line on standard output. `experiments.bench.train` starts it.
Needs the optional extra: pip install -e .[torch]
"""

import json
import sys
import time
from typing import Any

import numpy as np
import torch
from torch import nn
import torch.nn.functional as F

from nanollm_jax.model.config import ModelConfig


def norm(config: ModelConfig, size: int, kind: str = '') -> nn.Module:
  """RMSNorm or LayerNorm."""
  make = nn.RMSNorm if (kind or config.norm) == 'rms' else nn.LayerNorm
  return make(size, eps=config.norm_eps)


def rotate(x_BNTH: torch.Tensor) -> torch.Tensor:
  """A quarter turn of the pairs (i, i + H/2)."""
  a, b = x_BNTH.chunk(2, dim=-1)
  return torch.cat([-b, a], dim=-1)


class Attention(nn.Module):
  """One fused projection to queries, keys and values, and PyTorch's fused causal attention."""

  def __init__(self, config: ModelConfig):
    super().__init__()
    self.config, H = config, config.head_size
    self.qkv = nn.Linear(config.width, (config.heads + 2 * config.key_heads) * H, config.bias)
    self.out = nn.Linear(config.heads * H, config.width, config.bias)
    if config.qk_norm:
      self.query_norm, self.key_norm = norm(config, H, 'rms'), norm(config, H, 'rms')
    if config.positions == 'rope':
      frequency = config.rope_theta ** (-torch.arange(H // 2) / (H // 2))
      angle_TH = (torch.arange(config.context)[:, None] * frequency).repeat(1, 2)
      self.register_buffer('cos', angle_TH.cos(), persistent=False)
      self.register_buffer('sin', angle_TH.sin(), persistent=False)

  def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
    config, (B, T, _) = self.config, x_BTD.shape
    sizes = [n * config.head_size for n in (config.heads, config.key_heads, config.key_heads)]
    q, k, v = (part.view(B, T, -1, config.head_size).transpose(1, 2)
               for part in self.qkv(x_BTD).split(sizes, dim=-1))
    if config.qk_norm:
      q, k = self.query_norm(q), self.key_norm(k)
    if config.positions == 'rope':
      q, k = (x * self.cos[:T] + rotate(x) * self.sin[:T] for x in (q, k))
      q, k = q.to(v.dtype), k.to(v.dtype)
    out_BNTH = F.scaled_dot_product_attention(
        q, k, v, is_causal=True, enable_gqa=config.heads != config.key_heads)
    return self.out(out_BNTH.transpose(1, 2).reshape(B, T, -1))


class Block(nn.Module):
  """A pre-norm block with its MLP."""

  def __init__(self, config: ModelConfig):
    super().__init__()
    self.activation = config.activation
    self.attention_norm, self.mlp_norm = norm(config, config.width), norm(config, config.width)
    self.attention = Attention(config)
    self.up = nn.Linear(config.width, config.mlp, config.bias)
    if self.activation == 'swiglu':
      self.gate = nn.Linear(config.width, config.mlp, config.bias)
    self.down = nn.Linear(config.mlp, config.width, config.bias)

  def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
    x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD))
    y_BTD = self.mlp_norm(x_BTD)
    up_BTF = self.up(y_BTD)
    if self.activation == 'swiglu':
      hidden_BTF = F.silu(self.gate(y_BTD)) * up_BTF
    elif self.activation == 'gelu':
      hidden_BTF = F.gelu(up_BTF, approximate='tanh')
    else:
      hidden_BTF = F.relu(up_BTF).square()
    return x_BTD + self.down(hidden_BTF)


class Twin(nn.Module):
  """The same architecture as `nanollm_jax.model.transformer` of the same resolved config."""

  def __init__(self, config: ModelConfig):
    super().__init__()
    self.embedding = nn.Embedding(config.vocabulary, config.width)
    if config.positions == 'learned':
      self.positions = nn.Embedding(config.context, config.width)
    self.layers = nn.ModuleList(Block(config) for _ in range(config.depth))
    self.norm = norm(config, config.width)
    self.head = nn.Linear(config.width, config.vocabulary, bias=False)
    if config.tied:
      self.head.weight = self.embedding.weight
    for parameter in self.parameters():
      if parameter.ndim > 1:
        nn.init.normal_(parameter, std=0.02)

  def forward(self, tokens_BT: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
    """The mean cross-entropy; a target of -1 is left out."""
    x_BTD = self.embedding(tokens_BT)
    if hasattr(self, 'positions'):
      x_BTD = x_BTD + self.positions.weight[:tokens_BT.shape[1]]
    for layer in self.layers:
      x_BTD = layer(x_BTD)
    logits_BTV = self.head(self.norm(x_BTD))
    return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), ignore_index=-1)


def from_ours(params: dict[str, Any], config: ModelConfig) -> dict[str, torch.Tensor]:
  """Our parameters (or gradients of them), unrolled, under the twin's names and layouts."""
  state: dict[str, Any] = {'embedding.weight': params['embedding'], 'norm': params['norm'],
                           'head.weight': params['embedding' if config.tied else 'head']}
  if config.positions == 'learned':
    state['positions.weight'] = params['positions']
  for i in range(config.depth):
    layer = params[f'layer_{i}']
    attention = layer['attention']
    qkv = {name: np.concatenate([attention[part][name] for part in ('query', 'key', 'value')], -1)
           for name in attention['query']}
    modules = {**layer['mlp'], 'attention_norm': layer['attention_norm'],
               'mlp_norm': layer['mlp_norm'], 'attention.qkv': qkv,
               **{f'attention.{name}': leaves for name, leaves in attention.items()
                  if name not in ('query', 'key', 'value')}}
    state |= {f'layers.{i}.{name}': leaves for name, leaves in modules.items()}
  flat = {}
  for name, leaves in state.items():
    for leaf, value in leaves.items() if isinstance(leaves, dict) else [('', leaves)]:
      value = np.array(value.T if leaf == 'kernel' else value)
      flat[f'{name}.bias' if leaf == 'bias' else f'{name}.weight' if leaf else name] = value
  return {name: torch.from_numpy(value) for name, value in flat.items()}


def targets_of(tokens_BT: torch.Tensor) -> torch.Tensor:
  """The next token of each position; the last one has none."""
  return F.pad(tokens_BT[:, 1:], (0, 1), value=-1)


class Trainer:
  """A model and its optimizer: the step of nanoGPT's train.py."""

  def __init__(self, config: ModelConfig, tokens: list[list[int]], threads: int,
               compiled: bool = False, fused: bool = True):
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision('high')  # TF32 on a GPU, as JAX does
    self.device = 'cuda' if torch.cuda.is_available() else 'cpu'
    self.cast = torch.autocast(self.device, torch.bfloat16, config.dtype == 'bfloat16')
    self.model = Twin(config).to(self.device)
    self.forward = torch.compile(self.model) if compiled else self.model
    parameters = list(self.model.parameters())
    groups = [dict(params=[p for p in parameters if p.ndim > 1], weight_decay=0.1),
              dict(params=[p for p in parameters if p.ndim < 2], weight_decay=0.0)]
    self.optimizer = torch.optim.AdamW(groups, 1e-4, (0.9, 0.95), fused=fused, foreach=not fused)
    self.tokens_BT = torch.tensor(tokens, device=self.device)
    self.targets_BT = targets_of(self.tokens_BT)

  def run(self, steps: int) -> dict[str, float]:
    """Seconds of so many steps, the last loss, and the peak of memory where it is known."""
    start = time.perf_counter()
    for _ in range(steps):
      with self.cast:
        loss = self.forward(self.tokens_BT, self.targets_BT)
      loss.backward()
      torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
      self.optimizer.step()
      self.optimizer.zero_grad(set_to_none=True)
    loss = loss.item()  # waits for the device
    memory = torch.cuda.max_memory_allocated() if self.device == 'cuda' else 0
    return dict(seconds=time.perf_counter() - start, loss=loss, memory=memory)


def main() -> None:
  """Answers requests until the input ends; the first one says what to build."""
  trainer = None
  for line in sys.stdin:
    request = json.loads(line)
    if trainer is None:
      request['config'] = ModelConfig(**request['config'])
      trainer = Trainer(**request)
      answer = dict(version=torch.__version__, threads=torch.get_num_threads(),
                    parameters=sum(p.numel() for p in trainer.model.parameters()))
    else:
      answer = trainer.run(**request)
    print(json.dumps(answer), flush=True)


if __name__ == '__main__':
  main()
