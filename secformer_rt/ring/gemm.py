"""Blocked integer matmul modulo 2^64, compiled; imported only where numba is.

A is packed, a block at a time, into groups of rows interleaved for a tile, and B into panels as wide as a
tile; each group and each panel begins with its terms. The innermost work is done by a tile (see
:mod:`secformer_rt.ring.tile`), called by its address so that the function here, which is cached on disk,
does not depend on it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from secformer_rt.ring.jit import compile_now, inlined
from secformer_rt.ring.native import call

Words = NDArray[np.int64]

# A block of A stays in the L2 cache (256 KiB), and a panel of B with a group of rows in L1. The on-disk
# cache follows this module alone, so what it computes with is defined here.
BLOCK_ROWS = 128
BLOCK_DEPTH = 256
DEPTH_STEP = 4


@inlined
def _signed_low(word: Any) -> Any:
    """A word whose high half makes up for the low one's being taken as signed."""
    return np.int64(word) + ((np.int64(word) & 0x8000) << 1)


@inlined
def _exchanged(word: Any) -> Any:
    """The halves of a 32-bit word, the other way round."""
    return (word << 16) | ((word >> 16) & 0xFFFF)


@inlined
def _pack_dot_rows(a: Words, row: int, rows: int, start: int, depth: int, tile_rows: int, out: Words) -> None:
    """The halves of a pair of words as hi(a1), lo(a1), lo(a2), hi(a2), the low ones signed."""
    real = min(depth, a.shape[1] - start)
    for group in range(0, rows, tile_rows):
        width = min(tile_rows, rows - group)
        base = group * (depth + 1) + width
        for i in range(width):
            words = a[row + group + i, start : start + real]
            for k in range(real // 2):
                at = base + 2 * k * width + 2 * i
                out[at] = _exchanged(_signed_low(words[2 * k]))
                out[at + 1] = _signed_low(words[2 * k + 1])
            for at in range(base + real // 2 * 2 * width + 2 * i, base + depth * width, 2 * width):
                out[at] = out[at + 1] = 0
            if real % 2:
                out[base + (real - 1) * width + 2 * i] = _exchanged(_signed_low(words[real - 1]))


@inlined
def _pack_rows(a: Words, row: int, rows: int, start: int, depth: int, tile_rows: int, out: Words) -> None:
    real = min(depth, a.shape[1] - start)
    for group in range(0, rows, tile_rows):
        width = min(tile_rows, rows - group)
        base = group * (depth + 1)
        for i in range(width):
            terms = 0
            for k in range(0, real - 1, 2):
                first, second = a[row + group + i, start + k], a[row + group + i, start + k + 1]
                out[base + (k + 1) * width + i] = first
                out[base + (k + 2) * width + i] = second
                terms += first * second
            if real % 2:
                out[base + real * width + i] = a[row + group + i, start + real - 1]
            out[base + i] = terms
        for at in range(base + (real + 1) * width, base + (depth + 1) * width):
            out[at] = 0


@inlined
def _pack_panel(
    pack: int, b: Words, start: int, depth: int, column: int, tile_columns: int, out: Words
) -> None:
    real = min(depth, b.shape[0] - start)
    width = min(tile_columns, b.shape[1] - column)
    if real == depth and width == tile_columns and b.strides[1] == b.itemsize:
        at = start * (b.strides[0] // b.itemsize) + column
        call(pack, (b, at, b.strides[0], out, 0, depth))
        return
    out[:] = 0
    for k in range(real):
        for j in range(width):
            out[(k + 1) * tile_columns + j] = b[start + k, column + j]
    call(pack, (out, tile_columns, out.itemsize * tile_columns, out, 0, depth))


@inlined
def _multiply_panel(
    tile: int, tile_rows: int, tile_columns: int, packed: Words, row: int, rows: int,
    panel: Words, panel_at: int, depth: int, c: Words, column: int, spare: Words,
) -> None:  # fmt: skip
    columns = c.shape[1]
    width = min(tile_columns, columns - column)
    for group in range(0, rows, tile_rows):
        height = min(tile_rows, rows - group)
        a_at = group * (depth + 1)
        if width == tile_columns:
            c_at = (row + group) * columns + column
            call(tile, (packed, a_at, panel, panel_at, c, c_at, c.itemsize * columns, depth, height))
        else:
            spare[:] = 0
            call(tile, (packed, a_at, panel, panel_at, spare, 0, c.itemsize * tile_columns, depth, height))
            for i in range(height):
                for j in range(width):
                    c[row + group + i, column + j] += spare[i * tile_columns + j]


@compile_now(
    "void(int64, int64, int64, int64, boolean, int64[:, :, :], int64[:, :, :], int64[::1], int64[:, :, ::1])",
    "void(int64, int64, int64, int64, boolean, int32[:, :, :], int32[:, :, :], int32[::1], int32[:, :, ::1])",
    "void(int64, int64, int64, int64, boolean, int64[:, :, :], int32[:, :, :], int32[::1], int32[:, :, ::1])",
)
def multiply(
    tile: int, pack: int, tile_rows: int, tile_columns: int, dots: bool, a: Words, b: Words, panels: Words,
    c: Words,
) -> None:  # fmt: skip
    """Add A @ B to C for every matrix of a batch.

    Args:
        tile: address of the tile's ``multiply``.
        pack: address of the tile's ``pack``.
        tile_rows: height of the tile.
        tile_columns: width of the tile.
        dots: whether the tile takes the words' halves.
        a: (G, M, K), of any strides; of the type of the others, or int64.
        b: (G, K, N), of any strides; not used if panels are given.
        panels: one packed B for the whole batch, as ``kernels.pack`` lays it out, or empty.
        c: (G, M, N), contiguous.
    """
    height, columns = c.shape[1], c.shape[2]
    depth = (a.shape[2] + DEPTH_STEP - 1) // DEPTH_STEP * DEPTH_STEP
    block_depth = min(depth, BLOCK_DEPTH)
    padded_columns = (columns + tile_columns - 1) // tile_columns * tile_columns
    spare = np.empty(tile_rows * tile_columns, c.dtype)
    packed = np.empty(min(height, BLOCK_ROWS) * (block_depth + 1), c.dtype)
    panel = panels if panels.size else np.empty(tile_columns * (block_depth + 1), c.dtype)
    for g in range(c.shape[0]):
        for row in range(0, height, BLOCK_ROWS):
            rows = min(BLOCK_ROWS, height - row)
            for start in range(0, depth, BLOCK_DEPTH):
                part = min(BLOCK_DEPTH, depth - start)
                if dots:
                    _pack_dot_rows(a[g], row, rows, start, part, tile_rows, packed)
                else:
                    _pack_rows(a[g], row, rows, start, part, tile_rows, packed)
                block_at = padded_columns * (start + start // BLOCK_DEPTH)
                for column in range(0, columns, tile_columns):
                    at = 0
                    if panels.size:
                        at = block_at + column * (part + 1)
                    else:
                        _pack_panel(pack, b[g], start, part, column, tile_columns, panel)
                    _multiply_panel(
                        tile, tile_rows, tile_columns, packed, row, rows, panel, at, part, c[g], column, spare
                    )
