"""Fused kernels of causal attention: cuDNN on GPUs, splash on TPUs; what each of them can take."""

import math
from typing import Callable, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

Kernel = Callable[..., jax.Array]  # (q_BTNH, k_BTKH, v_BTKH, segment_ids_BT or None) -> [B,T,N,H]

LANES = 128  # splash: blocks are multiples of this
SHORTEST = 8  # cudnn_packed: T / SHORTEST documents fit a row
STATISTICS = 256 * 2**20  # bytes that cudnn_packed may keep of a layer on a device


class Call(NamedTuple):
  """What a kernel must be able to take: global shape, dtype, whether rows are packed."""
  batch: int
  length: int
  heads: int
  key_heads: int
  head_size: int
  dtype: str
  packed: bool


def cudnn(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT) -> jax.Array:
  """cuDNN's causal attention; documents are kept apart by a mask, an array [B, 1, T, T]."""
  mask_B1TS = None
  if segment_ids_BT is not None:
    mask_B1TS = segment_ids_BT[:, None, :, None] == segment_ids_BT[:, None, None, :]
  return jax.nn.dot_product_attention(
      q_BTNH, k_BTKH, v_BTKH, mask=mask_B1TS, is_causal=True, implementation='cudnn')


def cudnn_packed(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT) -> jax.Array:
  """cuDNN's causal attention told where documents begin: no mask, and no work between documents.

  jax keeps it behind a private function. A row with more than T / SHORTEST documents is NaN, which
  the training step counts and leaves out.
  """
  from jax._src.cudnn import fused_attention_stablehlo as fused
  T, N, H = q_BTNH.shape[1:]
  # jax 0.10.2 takes the offsets of keys by the number of query heads; 0.11.2 no longer does.
  repeat = lambda x_BTKH: jnp.repeat(x_BTKH, N // x_BTKH.shape[2], axis=2)
  starts_BM, lengths_BM, fits_B = documents(segment_ids_BT, capacity(T))
  offsets = jnp.pad(starts_BM, ((0, 0), (0, 1)), constant_values=-1)
  out_BTNH = fused.dot_product_attention(
      q_BTNH, repeat(k_BTKH), repeat(v_BTKH), q_seqlen=lengths_BM, kv_seqlen=lengths_BM,
      q_offsets=offsets, kv_offsets=offsets, scale=H**-0.5, qkv_layout='BTNH',
      mask_type=fused.MaskType.PADDING_CAUSAL)
  return jnp.where(fits_B[:, None, None, None], out_BTNH, jnp.nan)


def capacity(length: int) -> int:
  """How many documents cudnn_packed takes in a row."""
  return max(2, length // SHORTEST)


def documents(segment_ids_BT: jax.Array, most: int) -> tuple[jax.Array, jax.Array, jax.Array]:
  """First position and length, int32 [B, most], of each run of equal ids; -1 after the last one.

  Also whether a row has no more than `most` of them, bool [B].
  """
  T = segment_ids_BT.shape[1]
  begins_BT = jnp.diff(segment_ids_BT, axis=1, prepend=segment_ids_BT[:, :1] - 1) != 0
  starts_BM = jax.vmap(lambda row_T: jnp.nonzero(row_T, size=most + 1, fill_value=T)[0])(begins_BT)
  there_BM = starts_BM[:, :-1] < T
  blank = lambda x_BM: jnp.where(there_BM, x_BM, -1).astype(jnp.int32)
  return blank(starts_BM[:, :-1]), blank(jnp.diff(starts_BM, axis=1)), starts_BM[:, -1] == T


def splash(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT) -> jax.Array:
  """Pallas' splash attention, which skips blocks above the diagonal; interpreted off TPUs."""
  from jax.experimental.pallas.ops.tpu import splash_attention as pallas
  T, N, H = q_BTNH.shape[1:]
  block = math.gcd(T, 4 * LANES)
  kernel = pallas.make_splash_mha(
      pallas.MultiHeadMask([pallas.CausalMask((T, T))] * N), head_shards=1, q_seq_shards=1,
      block_sizes=pallas.BlockSizes(
          block_q=block, block_kv=block, block_kv_compute=block, block_q_dkv=block,
          block_kv_dkv=block, block_kv_dkv_compute=block, block_q_dq=block, block_kv_dq=block),
      interpret=device()[0] != 'tpu')
  heads_first = lambda x: x.swapaxes(1, 2)
  segments = None if segment_ids_BT is None else pallas.SegmentIds(segment_ids_BT, segment_ids_BT)
  out_BNTH = jax.vmap(kernel)(heads_first(q_BTNH * H**-0.5), heads_first(k_BTKH),
                              heads_first(v_BTKH), segments)
  return heads_first(out_BNTH).astype(q_BTNH.dtype)


KERNELS: dict[str, Kernel] = {'cudnn': cudnn, 'cudnn_packed': cudnn_packed, 'splash': splash}
BY_PLATFORM = {'gpu': ('cudnn_packed', 'cudnn'), 'tpu': ('splash',)}  # what auto tries, in order


def device() -> tuple[str, str]:
  """Platform (cpu, gpu, tpu) and kind of the devices of the current mesh, or of the default one.

  The mesh may be of devices that are not here: a program is then only compiled for them.
  """
  described = jax.sharding.get_abstract_mesh().abstract_device
  found = described or jax.devices()[0]
  return found.platform, found.device_kind


def why_not(name: str, call: Call) -> str:
  """Why a kernel cannot take this call on the current devices; '' where it can."""
  platform, kind = device()
  hopper = capability() >= (9, 0)
  rows, columns = shards()
  if call.batch % rows or call.heads % columns or call.key_heads % columns:
    return (f'{call.batch} rows, {call.heads} heads and {call.key_heads} key heads do not divide '
            f'over {rows} x {columns} devices')
  if name == 'splash':
    if platform not in ('tpu', 'cpu'):
      return f'it runs on TPUs, not on {kind}'
    return f'{call.length} positions are not a multiple of {LANES}' if call.length % LANES else ''
  if platform != 'gpu':
    return f'it runs on GPUs, not on {kind}'
  if call.dtype not in ('bfloat16', 'float16'):
    return f'it takes bfloat16, not {call.dtype}'
  if call.head_size % 8 or call.head_size > (256 if hopper else 128):
    return f'heads of {call.head_size} are not a multiple of 8 up to {256 if hopper else 128}'
  if name == 'cudnn_packed':
    if not call.packed:
      return 'rows are not packed'
    # For its gradient it keeps a float32 a position and head, for each document that may be there.
    kept = 4 * call.batch * capacity(call.length) * call.heads * call.length // (rows * columns)
    if kept > STATISTICS:
      return f'it would keep {kept / 2**20:,.0f} MB of statistics a layer'
    return '' if hopper else f'it needs Hopper or newer, not {kind}'
  return 'packed rows of an odd length' if call.packed and call.length % 2 else ''


def capability() -> tuple[int, ...]:
  """CUDA's compute capability of the first device here; (0,) where it has none."""
  number = getattr(jax.devices()[0], 'compute_capability', '0')
  return tuple(int(part) for part in str(number).split('.') if part.isdecimal()) or (0,)


def shards() -> tuple[int, int]:
  """Over how many devices of the current mesh rows and heads are spread."""
  mesh, spec = jax.sharding.get_abstract_mesh(), _spec()
  size = lambda axes: math.prod(
      mesh.shape[axis] for axis in ((axes,) if isinstance(axes, str) else axes or ()))
  return (1, 1) if mesh.empty else (size(spec[0]), size(spec[2]))


def _spec() -> jax.sharding.PartitionSpec:
  return nn.logical_to_mesh_axes(('batch', 'time', 'heads', None))


def per_device(kernel: Kernel) -> Kernel:
  """A kernel that each device of the current mesh runs on its own rows and heads."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return kernel
  q, ids = _spec(), nn.logical_to_mesh_axes(('batch', 'time'))
  def run(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT):
    specs = (q, q, q, None if segment_ids_BT is None else ids)
    return jax.shard_map(kernel, in_specs=specs, out_specs=q, check_vma=False)(
        q_BTNH, k_BTKH, v_BTKH, segment_ids_BT)
  return run
