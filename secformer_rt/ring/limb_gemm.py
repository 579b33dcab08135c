"""Blocked integer matmul by limbs, compiled; imported only where numba is.

What :mod:`secformer_rt.ring.gemm` is for tiles, for units that :mod:`secformer_rt.ring.limbs` lays out and
multiplies.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from secformer_rt.ring.jit import compile_now, inlined
from secformer_rt.ring.native import call

Words = NDArray[Any]

# A block of A stays in the L2 cache (128 or 256 KiB), and a panel of B in L1 (16 or 32). The on-disk cache
# follows this module alone, so what it computes with is defined here.
BLOCK_ROWS = 128
BLOCK_DEPTH = 256
ROWS = 16
DEPTH = 64
UNIT = ROWS * DEPTH
AHEAD = BLOCK_ROWS // ROWS  # calls for a panel, of which each has so much of the next one fetched

# Where in the array of addresses each function's is.
SPLIT, SPLIT_WORDS, INTERLEAVE, CONFIGURE, RELEASE, MULTIPLY, PALETTE = range(7)

# Words of the room that a product works in: a block of A, a panel of B, a unit to fill up, sums.
PANEL_AT = BLOCK_ROWS * BLOCK_DEPTH
SPARE_AT = PANEL_AT + ROWS * BLOCK_DEPTH
SUMS_AT = SPARE_AT + UNIT
ROOM = SUMS_AT + UNIT


@inlined
def _unit(
    lay_out: int, wide: int, x: Words, row: int, rows: int, column: int, columns: int, out: Words,
    out_at: int, room: Words,
) -> None:  # fmt: skip
    """Lay out ``rows`` x ``columns`` words of a matrix; what lies beyond it is zero.

    ``wide`` lays out words that are longer than those of the room.
    """
    item = x.itemsize
    if row + rows <= x.shape[0] and column + columns <= x.shape[1] and x.strides[1] == item:
        direct = lay_out if item == room.itemsize else wide
        call(direct, (x, row * (x.strides[0] // item) + column, x.strides[0], out, out_at))
        return
    room[SPARE_AT : SPARE_AT + UNIT] = 0
    for i in range(min(rows, x.shape[0] - row)):
        for j in range(min(columns, x.shape[1] - column)):
            room[SPARE_AT + i * columns + j] = x[row + i, column + j]
    call(lay_out, (room, SPARE_AT, columns * room.itemsize, out, out_at))


@inlined
def _panel(
    interleave: int, b: Words, start: int, depth: int, column: int, out: Words, out_at: int, room: Words
) -> int:
    """Lay out a panel of B; returns where it ends."""
    for k in range(start, start + depth, DEPTH):
        _unit(interleave, interleave, b, k, DEPTH, column, ROWS, out, out_at, room)
        out_at += UNIT
    return out_at


@inlined
def _multiply_unit(
    functions: Words, a_at: int, b: Words, b_at: int, depth: int, c: Words, row: int, column: int,
    room: Words, ahead: int,
) -> None:  # fmt: skip
    """Add a row of units of A, which is in the room, times a panel of B to 16 x 16 words of C.

    ``ahead`` is where in B that begins which the cache shall take in meanwhile.
    """
    units, product = depth // DEPTH, functions[MULTIPLY]
    height, width = c.shape[0] - row, c.shape[1] - column
    if height >= ROWS and width >= ROWS:
        c_at = row * c.shape[1] + column
        call(product, (room, a_at, b, b_at, c, c_at, c.strides[0], units, room, SUMS_AT, b, ahead))
        return
    room[SPARE_AT : SPARE_AT + ROWS * ROWS] = 0
    call(product, (room, a_at, b, b_at, room, SPARE_AT, ROWS * c.itemsize, units, room, SUMS_AT, b, ahead))
    for i in range(min(ROWS, height)):
        for j in range(min(ROWS, width)):
            c[row + i, column + j] += room[SPARE_AT + i * ROWS + j]


@compile_now(
    "void(int64[::1], int64[:, :], int64[::1], int64[::1])",
    "void(int64[::1], int32[:, :], int32[::1], int32[::1])",
)
def pack(functions: Words, b: Words, out: Words, room: Words) -> None:
    """Lay out all panels of B, block of depth by block of depth.

    Args:
        functions: their addresses.
        b: (K, N), of any strides.
        out: as many words as B has, with K filled up to a multiple of ``DEPTH`` and N to one of ``ROWS``.
        room: ``ROOM`` words.
    """
    at = 0
    for start in range(0, b.shape[0], BLOCK_DEPTH):
        end = min(b.shape[0], start + BLOCK_DEPTH)
        for column in range(0, b.shape[1], ROWS):
            at = _panel(functions[INTERLEAVE], b, start, end - start, column, out, at, room)


@compile_now(
    "void(int64[::1], int64[:, :, :], int64[:, :, :], int64[::1], int64[:, :, ::1], int64[::1])",
    "void(int64[::1], int32[:, :, :], int32[:, :, :], int32[::1], int32[:, :, ::1], int32[::1])",
    "void(int64[::1], int64[:, :, :], int32[:, :, :], int32[::1], int32[:, :, ::1], int32[::1])",
)
def multiply(functions: Words, a: Words, b: Words, panels: Words, c: Words, room: Words) -> None:
    """Add A @ B to C for every matrix of a batch.

    Args:
        functions: their addresses.
        a: (G, M, K), of any strides; of the type of the others, or int64.
        b: (G, K, N), of any strides; not used if panels are given.
        panels: one packed B for the whole batch, as :func:`pack` lays it out, or empty.
        c: (G, M, N), contiguous.
        room: ``ROOM`` words.
    """
    height, columns, depth = c.shape[1], c.shape[2], a.shape[2]
    padded_columns = (columns + ROWS - 1) // ROWS * ROWS
    split, wide = functions[SPLIT], functions[SPLIT_WORDS]
    call(functions[CONFIGURE], (functions, PALETTE))
    for g in range(c.shape[0]):
        for top in range(0, height, BLOCK_ROWS):
            bottom = min(height, top + BLOCK_ROWS)
            for start in range(0, depth, BLOCK_DEPTH):
                part = (min(BLOCK_DEPTH, depth - start) + DEPTH - 1) // DEPTH * DEPTH
                at = 0
                for row in range(top, bottom, ROWS):
                    for k in range(start, start + part, DEPTH):
                        _unit(split, wide, a[g], row, ROWS, k, DEPTH, room, at, room)
                        at += UNIT
                for column in range(0, columns, ROWS):
                    at = start * padded_columns + column * part
                    if not panels.size:
                        _panel(functions[INTERLEAVE], b[g], start, part, column, room, PANEL_AT, room)
                    for row in range(top, bottom, ROWS):
                        a_at = (row - top) * part
                        if panels.size:
                            next_at = at + ROWS * part + a_at // AHEAD
                            _multiply_unit(
                                functions, a_at, panels, at, part, c[g], row, column, room, next_at
                            )
                        else:
                            at = PANEL_AT
                            _multiply_unit(functions, a_at, room, at, part, c[g], row, column, room, at)
    call(functions[RELEASE], ())
