"""Exact integer arithmetic in bulk: matrix products modulo 2^64 on int64 and modulo 2^32 on int32 tensors."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from secformer_rt.ring.jit import Backend, any_meta, as_array, backend, compiled, empty
from secformer_rt.ring.words import WORD_BITS


@dataclass(frozen=True, slots=True, eq=False)
class PackedMatrix:
    """The right operand of a product, laid out once for the backend it was packed for.

    Attributes:
        data: int64 or int32 tensor that only :func:`matmul_packed` can read; a copy of the matrix.
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
    """Compile or load every kernel now, which otherwise happens at first use and takes seconds once.

    So does what torch imports at the first operation without values, which is how plans are made.
    """
    torch.empty(1, device="meta").add(1)
    if compiled():
        from secformer_rt.ring import fused, fused_bits, fused_choices, harmonics, streams  # noqa: F401

        harmonics.compile_harmonics()
        if streams.suits(32):
            streams.compile_streams()
        for dtype in (torch.int64, torch.int32):
            _products(backend()).prepare(backend(), dtype)


def matmul(a: Tensor, b: Tensor, bits: int = WORD_BITS, onto: Tensor | None = None) -> Tensor:
    """A @ B modulo 2^64, or modulo 2^32 for int32.

    Args:
        a: (..., M, K) int64 or int32.
        b: (..., K, N) of the same type, or int32, with batch dimensions that broadcast against a's.
        bits: it need only hold modulo ``2^bits``, which may be faster.
        onto: what the product is added to, in place: contiguous, of the product's shape and type.

    Returns:
        (..., M, N) of b's type, contiguous; ``onto``, if given.

    Raises:
        ValueError: the shapes do not fit.
    """
    _check_factors(a, b)
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
        raise ValueError(f"cannot multiply {tuple(a.shape)} by {tuple(b.shape)}")
    try:
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ValueError(f"batches do not fit: {tuple(a.shape)} by {tuple(b.shape)}") from None
    shape = (*batch, a.shape[-2], b.shape[-1])
    if any_meta(a, b):
        return torch.empty(shape, dtype=b.dtype, device="meta")
    _check_sum(onto, shape, b.dtype)
    if not compiled():
        return _plain(a, b, onto)
    if b.ndim == 2:
        # One B for the whole batch: its rows may as well be rows of one tall A.
        rows = a.reshape(1, math.prod(a.shape[:-1]), a.shape[-1])
        return _multiply(rows, b.unsqueeze(0), None, backend(), bits, onto).view(shape)
    count = math.prod(batch)
    left = a.expand(*batch, *a.shape[-2:]).reshape(count, *a.shape[-2:])
    right = b.expand(*batch, *b.shape[-2:]).reshape(count, *b.shape[-2:])
    return _multiply(left, right, None, backend(), bits, onto).view(shape)


def pack(b: Tensor) -> PackedMatrix:
    """Lay out a right operand that is used many times.

    Args:
        b: (K, N) int64 or int32.
    """
    _check_numbers(b)
    if b.ndim != 2:
        raise ValueError(f"only a matrix can be packed, not a tensor of shape {tuple(b.shape)}")
    rows, columns = b.shape
    layout = backend()
    if layout is Backend.PLAIN or b.is_meta:
        return PackedMatrix(b.clone(memory_format=torch.contiguous_format), rows, columns, layout)
    return PackedMatrix(_products(layout).pack(b, layout), rows, columns, layout)


def matmul_packed(
    a: Tensor, packed: PackedMatrix, bits: int = WORD_BITS, onto: Tensor | None = None
) -> Tensor:
    """A @ B for a packed B, modulo 2^64 or 2^32.

    Args:
        a: (..., M, K) of B's type, or int64; a vector (K,) is one row.
        packed: B, (K, N).
        bits: it need only hold modulo ``2^bits``, which may be faster.
        onto: what the product is added to, in place: contiguous, of the product's shape and type.

    Returns:
        (..., M, N) of B's type, contiguous; ``onto``, if given.

    Raises:
        ValueError: the shapes do not fit.
    """
    _check_factors(a, packed.data)
    if a.ndim < 1 or a.shape[-1] != packed.rows:
        raise ValueError(f"cannot multiply {tuple(a.shape)} by {packed.shape}")
    shape = (*a.shape[:-1], packed.columns)
    if any_meta(a, packed.data):
        return torch.empty(shape, dtype=packed.data.dtype, device="meta")
    _check_sum(onto, shape, packed.data.dtype)
    if packed.layout is Backend.PLAIN:
        return _plain(a, packed.data, onto)
    left = a.reshape(1, math.prod(a.shape[:-1]), packed.rows)
    nothing = torch.empty((1, 0, 0), dtype=packed.data.dtype)
    return _multiply(left, nothing, packed, packed.layout, bits, onto).view(shape)


def harmonic_sum(
    positions: Tensor,
    table: Tensor,
    words: Tensor,
    *,
    start: Tensor | None = None,
    raised: int = 0,
    constant: int = 0,
) -> Tensor:
    """``out[n] = start[n] 2^raised + constant + sum over w of table[row, w] words[n, w]``, modulo 2^64.

    The row is ``positions[n]`` modulo the table's length. Sums of an int32 table are int32, modulo 2^32.

    Args:
        positions: (N,) int64.
        table: (P, W) int64 or int32.
        words: (N, W) of the same type.
        start: (N,) int64 or int32, 0 if not given.
        raised: bits that start is shifted by.
        constant: added to all.

    Returns:
        (N,) of the table's type.

    Raises:
        ValueError: the shapes do not fit.
    """
    _check_words(positions)
    _check_numbers(table, words)
    if start is not None:
        _check_numbers(start)
        start = start.to(table.dtype)
    if (
        positions.ndim != 1
        or table.ndim != 2
        or words.shape != (positions.shape[0], table.shape[1])
        or (start is not None and start.shape != positions.shape)
    ):
        given = (positions, table, words, *(() if start is None else (start,)))
        shapes = ", ".join(str(tuple(x.shape)) for x in given)
        raise ValueError(f"harmonic_sum takes shapes (N,), (P, W), (N, W) and (N,), not {shapes}")
    if any_meta(positions, table, words):
        return torch.empty(positions.shape, dtype=table.dtype, device="meta")
    if compiled():
        from secformer_rt.ring import fused, harmonics

        length = table.shape[0]
        is_power = not length & (length - 1)
        rows = positions if is_power else torch.remainder(positions, length)
        out = empty(positions.shape, table.dtype)
        # Without a start, anything times 0.
        given = (rows, table, words, out if start is None else start)
        at, entries, factors, first = (as_array(x.contiguous()) for x in given)
        mask, scale = length - 1 if is_power else -1, 0 if start is None else 1 << raised
        sums = int(harmonics.compile_harmonics().addresses[table.element_size() // 8])
        fused.harmonic_sum(sums, at, entries, factors, first, mask, scale, constant, out.numpy())
        return out
    rows = torch.remainder(positions, table.shape[0])
    total = (table.index_select(0, rows) * words).sum(1, dtype=table.dtype) + constant
    return total if start is None else total + (start << raised)


def absent(like: Tensor) -> Tensor:
    """A tensor with a shape and no values: whoever reads it by mistake fails."""
    return _absent(tuple(like.shape), like.dtype)


@functools.lru_cache(maxsize=1024)
def _absent(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    # To make one takes longer than to make a small tensor that has values.
    return torch.empty(shape, dtype=dtype, device="meta")


def _products(layout: Backend) -> ModuleType:
    """The module that multiplies with a compiled backend."""
    if layout is Backend.AMX:
        from secformer_rt.ring import limb_products

        return limb_products
    from secformer_rt.ring import tile_products

    return tile_products


def _multiply(
    a: Tensor, b: Tensor, packed: PackedMatrix | None, layout: Backend, bits: int, onto: Tensor | None
) -> Tensor:
    """(G, M, K) times (G, K, N), or times a packed matrix; the backend is a compiled one."""
    shape = (a.shape[0], a.shape[1], packed.columns if packed else b.shape[-1])
    if onto is None:
        out = empty(shape, b.dtype)
        out.numpy().fill(0)
    else:
        out = onto.view(shape)
    panels = packed.data if packed else torch.empty(0, dtype=b.dtype)
    _products(layout).multiply(a, b, panels, out, layout, bits)
    return out


def _plain(a: Tensor, b: Tensor, onto: Tensor | None) -> Tensor:
    """The product by torch, which is slow and needs nothing compiled."""
    found = torch.matmul(a.to(b.dtype), b)
    return found if onto is None else onto.add_(found)


def _check_sum(onto: Tensor | None, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if onto is None:
        return
    if tuple(onto.shape) != shape or onto.dtype != dtype or not onto.is_contiguous():
        raise ValueError(f"{dtype} products of shape {shape} cannot be added to {tuple(onto.shape)}")


def _check_factors(a: Tensor, b: Tensor) -> None:
    if a.dtype != torch.int64 or b.dtype != torch.int32:
        _check_numbers(a, b)


def _check_numbers(*tensors: Tensor) -> None:
    for x in tensors:
        if x.dtype not in (torch.int64, torch.int32) or x.dtype != tensors[0].dtype:
            raise TypeError(f"expected torch.int64 or torch.int32 throughout, not {x.dtype}")


def _check_words(*tensors: Tensor) -> None:
    for x in tensors:
        if x.dtype != torch.int64:
            raise TypeError(f"expected torch.int64, not {x.dtype}")
