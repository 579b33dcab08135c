"""Small fused loops over words, compiled; imported only where numba is."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secformer_rt.ring.jit import compile_now, inlined
from secformer_rt.ring.native import call

numba: Any = importlib.import_module("numba")
extending: Any = importlib.import_module("numba.extending")

LANE = 128  # elements of a product of sums at a time
LANES = 16  # sums at a time of the functions in `harmonics`; the on-disk cache sees this file only


@compile_now(
    "void(int64, int64[::1], int64[:, ::1], int64[:, ::1], int64[::1], int64, int64, int64, int64[::1])",
    "void(int64, int64[::1], int32[:, ::1], int32[:, ::1], int32[::1], int64, int64, int64, int32[::1])",
)
def harmonic_sum(
    sums: int,
    positions: NDArray[np.int64],
    table: NDArray[Any],
    words: NDArray[Any],
    start: NDArray[Any],
    mask: int,
    scale: int,
    constant: int,
    out: NDArray[Any],
) -> None:
    """Sums of products with chosen rows; see ``kernels.harmonic_sum``.

    Args:
        sums: address of the function of ``harmonics.compile_harmonics`` for words of this size.
        positions: (N,).
        table: (P, W), of 32 bits as ``words``, ``start`` and ``out`` are, or of 64.
        words: (N, W).
        start: (N,).
        mask: of positions, which tells the rows.
        scale: of start.
        constant: added to all.
        out: (N,).
    """
    width = table.shape[1]
    groups = positions.size // LANES
    parts = (width + LANES - 1) // LANES
    if groups and width:
        numbers = (groups, width, parts, mask, scale, constant)
        call(sums, (positions, 0, table, 0, words, 0, start, 0, out, 0, *numbers))
    for n in range(groups * LANES if width else 0, positions.size):
        row = positions[n] & mask
        total = np.int64(constant)
        for w in range(width):
            total += table[row, w] * words[n, w]
        out[n] = total + start[n] * scale


def _words_at(_typing: Any, address: Any) -> Any:
    """An address as a pointer to words."""

    def generate(_context: Any, builder: Any, signature: Any, values: list[Any]) -> Any:
        return builder.inttoptr(values[0], _context.get_value_type(signature.return_type))

    return numba.types.CPointer(numba.int64)(address), generate


_pointer: Any = extending.intrinsic(_words_at)


# Most constants are 1, -1 or another power of two, and a product of words is slow.
@inlined
def _add(total: Any, constant: int, shift: int, first: Any, second: Any, width: int) -> None:
    if shift == 0:
        for j in range(width):
            total[j] += first[j] * second[j]
    elif shift > 0:
        for j in range(width):
            total[j] += (first[j] * second[j]) << shift
    elif constant == -1:
        for j in range(width):
            total[j] -= first[j] * second[j]
    else:
        for j in range(width):
            total[j] += constant * (first[j] * second[j])


@inlined
def _add_one(total: Any, constant: int, shift: int, only: Any, width: int) -> None:
    if shift == 0:
        for j in range(width):
            total[j] += only[j]
    elif shift > 0:
        for j in range(width):
            total[j] += only[j] << shift
    elif constant == -1:
        for j in range(width):
            total[j] -= only[j]
    else:
        for j in range(width):
            total[j] += constant * only[j]


@compile_now("void(int64[:, ::1], int64[:, ::1], int64[:, ::1], int64, int64[::1], int64[:, ::1], int64)")
def multilinear(
    code: NDArray[np.int64],
    operands: NDArray[np.int64],
    sums: NDArray[np.int64],
    work: int,
    weights: NDArray[np.int64],
    out: NDArray[np.int64],
    rows: int,
) -> None:
    """Run a program of ``ring.multilinear``, block by block.

    Pointers rather than slices, because those are counted, which takes as long as the arithmetic.

    Args:
        code: (instructions, 5).
        operands: (N, 3): address, words from row to row and from column to column (0 or 1).
        sums: (levels + 2, LANE), to work in.
        work: its address.
        weights: of equal parts of the rows, which are added up times them; none if they are not added up.
        out: (rows, columns), or zeros (rows / weights, columns).
        rows: of the operands.
    """
    columns = out.shape[1]
    part = rows // max(1, weights.size)
    lane = sums.shape[1]
    spread = work + 8 * lane * (sums.shape[0] - 2)
    for row in range(rows):
        for start in range(0, columns, lane):
            width = min(lane, columns - start)
            sums[:] = 0
            for at in range(code.shape[0]):
                level = code[at, 0]
                places = (np.int64(0), np.int64(0))
                for side in range(2):
                    k = code[at, 2 + side]
                    place = np.int64(0)
                    if k == -2:
                        place = work + 8 * lane * (level + 1)
                    elif k >= 0:
                        place = operands[k, 0] + 8 * (row * operands[k, 1] + start * operands[k, 2])
                        if operands[k, 2] == 0:
                            number, place = _pointer(place)[0], spread + 8 * lane * side
                            wide = _pointer(place)
                            for j in range(width):
                                wide[j] = number
                    places = (place, places[1]) if side == 0 else (places[0], place)
                total = _pointer(work + 8 * lane * level)
                first, second = places
                if first and second:
                    _add(total, code[at, 1], code[at, 4], _pointer(first), _pointer(second), width)
                elif first or second:
                    _add_one(total, code[at, 1], code[at, 4], _pointer(first + second), width)
                else:
                    for j in range(width):
                        total[j] += code[at, 1]
                if code[at, 3] == -2:
                    used = _pointer(work + 8 * lane * (level + 1))
                    for j in range(width):
                        used[j] = 0
            done = sums[0]
            if weights.size:
                added, weight = out[row % part], weights[row // part]
                some = added[start : start + width]
                for j in range(width):
                    some[j] += weight * done[j]
            else:
                for j in range(width):
                    out[row, start + j] = done[j]


@inlined
def _where_clear(word: Any, ring: int) -> Any:
    """All ones where the upper one of ``ring`` bits is clear, else 0."""
    return ((word >> (ring - 1)) & 1) - 1


@compile_now("void(int64[::1], int64[::1], int64[::1], int64, int64, int64[::1])")
def truncated(
    public: NDArray[np.int64],
    mask: NDArray[np.int64],
    bit: NDArray[np.int64],
    ring: int,
    ours: int,
    out: NDArray[np.int64],
) -> None:
    """A server's share of what a truncation has opened; see ``words.truncated``. All (N,), or no bit."""
    if bit.size:
        for n in range(out.size):
            out[n] = ours * public[n] - mask[n] + ((_where_clear(public[n], ring) & bit[n]) << ring)
    else:
        for n in range(out.size):
            out[n] = ours * public[n] - mask[n]


@compile_now("void(int64[::1], int64, int64[::1])")
def upper_bit_clear(public: NDArray[np.int64], ring: int, out: NDArray[np.int64]) -> None:
    """``out = 1 - bit ring - 1``; see ``words.upper_bit_clear``. All (N,)."""
    for n in range(out.size):
        out[n] = _where_clear(public[n], ring) & 1


@compile_now("void(int64[::1], int64[::1], int64[::1], int64, int64[::1])")
def add_chosen(
    x: NDArray[np.int64],
    bit: NDArray[np.int64],
    public: NDArray[np.int64],
    ring: int,
    out: NDArray[np.int64],
) -> None:
    """``out = x``, and ``bit`` where the upper bit is clear; see ``words.add_chosen``. All (N,)."""
    for n in range(out.size):
        out[n] = x[n] + (_where_clear(public[n], ring) & bit[n])


@compile_now("void(int64[::1], int64[::1], int64, int64[::1])")
def add_raised(x: NDArray[np.int64], y: NDArray[np.int64], shift: int, out: NDArray[np.int64]) -> None:
    """``out = x + 2^shift y``; see ``words.add_raised``. All (N,)."""
    for n in range(out.size):
        out[n] = x[n] + (y[n] << shift)


@compile_now(
    "void(int64[:, ::1], int64[:, ::1], int64[:, ::1], int64[:, ::1], int64, int64, int64, int64[::1])"
)
def row_squares(
    public: NDArray[np.int64],
    share: NDArray[np.int64],
    bit: NDArray[np.int64],
    product: NDArray[np.int64],
    ring: int,
    square: int,
    ours: int,
    out: NDArray[np.int64],
) -> None:
    """Sums of rows; see ``words.row_squares``. All (N, H), but out (N,); without wraps two have no rows."""
    for row in range(public.shape[0]):
        p, r = public[row], share[row]
        total = np.int64(0)
        for n in range(p.size):
            total += p[n] * (ours * p[n] - 2 * r[n])
        if bit.shape[0]:
            b, rb = bit[row], product[row]
            crossed = np.int64(0)
            for n in range(p.size):
                wrapped = ((p[n] * b[n] - rb[n]) << (ring + 1)) + square * b[n]
                crossed += _where_clear(p[n], ring) & wrapped
            total += crossed
        out[row] = total


@compile_now("void(int32[::1], int64, int64[::1])")
def low_bits(words: NDArray[np.int32], bits: int, out: NDArray[np.int64]) -> None:
    """The low bits of words, 1 to 32, as numbers that are not negative; both (N,)."""
    kept = np.int64((1 << bits) - 1)
    for n in range(out.size):
        out[n] = words[n] & kept
