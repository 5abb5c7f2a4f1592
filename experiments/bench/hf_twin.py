"""Hugging Face's Qwen3 with our weights: the other side of the decoding benchmark.

Its own process, as experiments.bench.torch_twin is. Needs the extra: pip install -e .[hf]
"""

import json
import sys
import time
from typing import Any

import numpy as np
import torch
import transformers

from nanollm_jax.model.config import ModelConfig

NAMES = {'attention/query': 'self_attn.q_proj', 'attention/key': 'self_attn.k_proj',
         'attention/value': 'self_attn.v_proj', 'attention/out': 'self_attn.o_proj',
         'attention/query_norm': 'self_attn.q_norm', 'attention/key_norm': 'self_attn.k_norm',
         'mlp/gate': 'mlp.gate_proj', 'mlp/up': 'mlp.up_proj', 'mlp/down': 'mlp.down_proj',
         'attention_norm': 'input_layernorm', 'mlp_norm': 'post_attention_layernorm'}


def from_ours(flat: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
  """Our parameters, 'layer_0/mlp/up/kernel' to array, under Hugging Face's names and layouts."""
  state = {}
  for path, value in flat.items():
    layer, _, rest = path.partition('/')
    name = {'embedding': 'model.embed_tokens', 'norm': 'model.norm', 'head': 'lm_head'}.get(layer)
    if name is None:
      name = f'model.layers.{layer.removeprefix("layer_")}.{NAMES[rest.rpartition("/")[0]]}'
    state[f'{name}.weight'] = torch.from_numpy(
        np.array(value.T if path.endswith('kernel') else value))
  return state


def build(config: ModelConfig, flat: dict[str, np.ndarray]) -> Any:
  """A Qwen3ForCausalLM of a resolved config of the family qwen3, in its dtype."""
  model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(
      vocab_size=config.vocabulary, hidden_size=config.width, intermediate_size=config.mlp,
      num_hidden_layers=config.depth, num_attention_heads=config.heads,
      num_key_value_heads=config.key_heads, head_dim=config.head_size,
      max_position_embeddings=config.context, rms_norm_eps=config.norm_eps,
      tie_word_embeddings=config.tied,
      rope_parameters=dict(rope_type='default', rope_theta=config.rope_theta)))
  missing, unexpected = model.load_state_dict(from_ours(flat), strict=False)
  if unexpected or set(missing) - {'lm_head.weight'}:
    raise ValueError(f'weights do not fit: {missing} missing, {unexpected} unknown')
  return model.to(getattr(torch, config.dtype)).eval()


class Generator:
  """`generate` on ragged prompts, padded on the left."""

  def __init__(self, config: ModelConfig, weights: str, prompts: list[list[int]], threads: int):
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision('high')  # TF32 on a GPU, as JAX does
    self.device = 'cuda' if torch.cuda.is_available() else 'cpu'
    self.model = build(config, dict(np.load(weights))).to(self.device)
    longest = max(map(len, prompts))
    pad = lambda rows: torch.tensor([[0] * (longest - len(row)) + row for row in rows],
                                    device=self.device)
    self.inputs = dict(input_ids=pad(prompts), attention_mask=pad([[1] * len(p) for p in prompts]))

  @torch.inference_mode()
  def run(self, steps: int) -> dict[str, float]:
    """Seconds of so many sampled tokens a row."""
    start = time.perf_counter()
    out = self.model.generate(**self.inputs, do_sample=True, top_k=0, max_new_tokens=steps,
                              min_new_tokens=steps, pad_token_id=0).cpu()
    assert out.shape[1] == self.inputs['input_ids'].shape[1] + steps
    return dict(seconds=time.perf_counter() - start)


def main() -> None:
  """Answers requests until the input ends; the first one says what to build."""
  generator = None
  for line in sys.stdin:
    request = json.loads(line)
    if generator is None:
      generator = Generator(**request | {'config': ModelConfig(**request['config'])})
      answer = dict(torch=torch.__version__, transformers=transformers.__version__)
    else:
      answer = generator.run(**request)
    print(json.dumps(answer), flush=True)


if __name__ == '__main__':
  main()
