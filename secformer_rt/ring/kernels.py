"""Exact integer matrix products modulo 2^64, on int64 tensors."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from secformer_rt.ring.jit import Backend, any_meta, as_array, backend, compiled, empty

if TYPE_CHECKING:
    from secformer_rt.ring.tile import CompiledTile


@dataclass(frozen=True, slots=True, eq=False)
class PackedMatrix:
    """The right operand of a product, laid out once for the backend it was packed for.

    Attributes:
        data: int64 tensor that only :func:`matmul_packed` can read; a copy of the matrix.
        rows: K, the length of the products.
        columns: N.
        layout: the backend.
    """

    data: Tensor
    rows: int
    columns: int
    layout: Backend

    @property
    def shape(self) -> tuple[int, int]:
        """(K, N)."""
        return self.rows, self.columns

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes; zero for a meta tensor."""
        return 0 if self.data.is_meta else self.data.numel() * self.data.element_size()

    def __repr__(self) -> str:
        return f"PackedMatrix(shape={self.shape}, layout={self.layout.value!r})"


def prepare() -> None:
    """Compile or load every kernel now, which otherwise happens at first use and takes seconds once."""
    if compiled():
        from secformer_rt.ring import fused, gemm  # noqa: F401

        _tile(backend())


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """A @ B modulo 2^64.

    Args:
        a: (..., M, K) int64.
        b: (..., K, N) int64, with batch dimensions that broadcast against a's.

    Returns:
        (..., M, N) int64, contiguous.

    Raises:
        ValueError: the shapes do not fit.
    """
    _check_words(a, b)
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
        raise ValueError(f"cannot multiply {tuple(a.shape)} by {tuple(b.shape)}")
    try:
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ValueError(f"batches do not fit: {tuple(a.shape)} by {tuple(b.shape)}") from None
    shape = (*batch, a.shape[-2], b.shape[-1])
    if any_meta(a, b):
        return torch.empty(shape, dtype=torch.int64, device="meta")
    if not compiled():
        return torch.matmul(a, b)
    if b.ndim == 2:
        # One B for the whole batch: its rows may as well be rows of one tall A.
        return _multiply(
            a.reshape(1, math.prod(a.shape[:-1]), a.shape[-1]), b.unsqueeze(0), None, backend()
        ).view(shape)
    count = math.prod(batch)
    left = a.expand(*batch, *a.shape[-2:]).reshape(count, *a.shape[-2:])
    right = b.expand(*batch, *b.shape[-2:]).reshape(count, *b.shape[-2:])
    return _multiply(left, right, None, backend()).view(shape)


def pack(b: Tensor) -> PackedMatrix:
    """Lay out a right operand that is used many times.

    Args:
        b: (K, N) int64.
    """
    _check_words(b)
    if b.ndim != 2:
        raise ValueError(f"only a matrix can be packed, not a tensor of shape {tuple(b.shape)}")
    rows, columns = b.shape
    layout = backend()
    if layout is Backend.PLAIN or b.is_meta:
        return PackedMatrix(b.clone(memory_format=torch.contiguous_format), rows, columns, layout)
    from secformer_rt.ring.gemm import BLOCK_DEPTH, DEPTH_STEP

    width = _tile(layout).tile.columns
    panels = -(-columns // width)
    depth = -(-rows // DEPTH_STEP) * DEPTH_STEP
    data = torch.zeros((depth + -(-depth // BLOCK_DEPTH)) * panels * width, dtype=torch.int64)
    at = 0
    for start in range(0, depth, BLOCK_DEPTH):
        part = min(BLOCK_DEPTH, depth - start)
        size = panels * (part + 1) * width
        block = data[at : at + size].view(panels, part + 1, width)
        padded = torch.zeros(part, panels * width, dtype=torch.int64)
        real = b[start : start + part]
        padded[: real.shape[0], :columns] = real
        block[:, 1:] = padded.view(part, panels, width).transpose(0, 1)
        block[:, 0] = (block[:, 1::2] * block[:, 2::2]).sum(1)
        at += size
    return PackedMatrix(data, rows, columns, layout)


def matmul_packed(a: Tensor, packed: PackedMatrix) -> Tensor:
    """A @ B modulo 2^64 for a packed B.

    Args:
        a: (..., M, K) int64; a vector (K,) is one row.
        packed: B, (K, N).

    Returns:
        (..., M, N) int64, contiguous.

    Raises:
        ValueError: the shapes do not fit.
    """
    _check_words(a)
    if a.ndim < 1 or a.shape[-1] != packed.rows:
        raise ValueError(f"cannot multiply {tuple(a.shape)} by {packed.shape}")
    shape = (*a.shape[:-1], packed.columns)
    if any_meta(a, packed.data):
        return torch.empty(shape, dtype=torch.int64, device="meta")
    if packed.layout is Backend.PLAIN:
        return torch.matmul(a, packed.data)
    left = a.reshape(1, math.prod(a.shape[:-1]), packed.rows)
    return _multiply(left, left[:, :0], packed, packed.layout).view(shape)


def harmonic_sum(index: Tensor, table: Tensor, words: Tensor) -> Tensor:
    """out[n] = sum over w of table[index[n], w] * words[n, w], modulo 2^64.

    Args:
        index: (N,) int64, rows of the table.
        table: (P, W) int64.
        words: (N, W) int64.

    Returns:
        (N,) int64.

    Raises:
        IndexError: an index is no row of the table.
        ValueError: the shapes do not fit.
    """
    _check_words(index, table, words)
    if index.ndim != 1 or table.ndim != 2 or words.shape != (index.shape[0], table.shape[1]):
        shapes = ", ".join(str(tuple(x.shape)) for x in (index, table, words))
        raise ValueError(f"harmonic_sum takes shapes (N,), (P, W), (N, W), not {shapes}")
    if any_meta(index, table, words):
        return torch.empty(index.shape, dtype=torch.int64, device="meta")
    if compiled():
        from secformer_rt.ring import fused

        out = empty(index.shape, torch.int64)
        rows, entries, factors = (as_array(x.contiguous()) for x in (index, table, words))
        if fused.harmonic_sum(rows, entries, factors, out.numpy()) >= 0:
            raise IndexError(f"an index is not in a table of {table.shape[0]} rows")
        return out
    if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < table.shape[0]:
        raise IndexError(f"an index is not in a table of {table.shape[0]} rows")
    return (table[index] * words).sum(1)


@functools.cache
def _tile(layout: Backend) -> CompiledTile:
    from secformer_rt.ring import tile

    return tile.compile_tile(tile.WIDE if layout is Backend.WIDE else tile.SPLIT)


def _multiply(a: Tensor, b: Tensor, packed: PackedMatrix | None, layout: Backend) -> Tensor:
    """(G, M, K) times (G, K, N), or times a packed matrix; the backend is a compiled one."""
    from secformer_rt.ring import gemm

    tile = _tile(layout)
    columns = packed.columns if packed else b.shape[-1]
    out = empty((a.shape[0], a.shape[1], columns), torch.int64)
    panels = as_array(packed.data) if packed else np.empty(0, np.int64)
    gemm.multiply(
        tile.multiply.address,
        tile.pack.address,
        tile.tile.rows,
        tile.tile.columns,
        as_array(a),
        as_array(b),
        panels,
        out.numpy(),
    )
    return out


def _check_words(*tensors: Tensor) -> None:
    for x in tensors:
        if x.dtype != torch.int64:
            raise TypeError(f"expected torch.int64, not {x.dtype}")
