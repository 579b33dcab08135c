"""Products of tensors by tiles of registers; imported only where numba is."""

from __future__ import annotations

import torch
from torch import Tensor

from secformer_rt.ring import gemm, tile
from secformer_rt.ring.jit import Backend, as_array, has


def prepare(layout: Backend, dtype: torch.dtype) -> tile.CompiledTile:
    """The compiled tile of a backend and a type of words."""
    if dtype == torch.int64:
        return tile.compile_tile(tile.SPLIT if layout is Backend.SPLIT else tile.WIDE)
    if layout is Backend.DOT:
        return tile.compile_tile(tile.DOT_HALF if has("avx512bw") else tile.NARROW_DOT_HALF)
    return tile.compile_tile(tile.SPLIT_HALF if layout is Backend.SPLIT else tile.WIDE_HALF)


def pack(b: Tensor, layout: Backend) -> Tensor:
    """Lay out (K, N) in panels as wide as a tile, by blocks of depth, each with its terms first."""
    shape = prepare(layout, b.dtype).tile
    rows, columns = b.shape
    width = shape.columns
    panels = -(-columns // width)
    depth = -(-rows // gemm.DEPTH_STEP) * gemm.DEPTH_STEP
    data = torch.zeros((depth + -(-depth // gemm.BLOCK_DEPTH)) * panels * width, dtype=b.dtype)
    at = 0
    for start in range(0, depth, gemm.BLOCK_DEPTH):
        part = min(gemm.BLOCK_DEPTH, depth - start)
        size = panels * (part + 1) * width
        block = data[at : at + size].view(panels, part + 1, width)
        padded = torch.zeros(part, panels * width, dtype=b.dtype)
        real = b[start : start + part]
        padded[: real.shape[0], :columns] = real
        block[:, 1:] = padded.view(part, panels, width).transpose(0, 1)
        if shape.dots:
            block[:, 1:] += (block[:, 1:] & 0x8000) << 1
            block[:, 2::2] = (block[:, 2::2] << 16) | ((block[:, 2::2] >> 16) & 0xFFFF)
        else:
            block[:, 0] = (block[:, 1::2] * block[:, 2::2]).sum(1, dtype=b.dtype)
        at += size
    return data


def multiply(a: Tensor, b: Tensor, panels: Tensor, out: Tensor, layout: Backend, _bits: int) -> None:
    """Add a (G, M, K) times b (G, K, N), or times panels if there are any, to out (G, M, N)."""
    compiled = prepare(layout, out.dtype)
    gemm.multiply(
        compiled.multiply.address,
        compiled.pack.address,
        compiled.tile.rows,
        compiled.tile.columns,
        compiled.tile.dots,
        as_array(a),
        as_array(b),
        as_array(panels),
        out.numpy(),
    )
