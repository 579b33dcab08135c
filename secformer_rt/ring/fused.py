"""Small fused loops over words, compiled; imported only where numba is."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secformer_rt.ring.jit import compile_now, inlined

numba: Any = importlib.import_module("numba")
extending: Any = importlib.import_module("numba.extending")

LANE = 128  # elements of a product of sums at a time
BLOCK = 1024  # words of a truncation at a time


@compile_now(
    "void(int64[::1], int64[:, ::1], int64[:, ::1], int64[::1], int64, int64, int64, int64[::1])",
    "void(int64[::1], int32[:, ::1], int32[:, ::1], int64[::1], int64, int64, int64, int64[::1])",
)
def harmonic_sum(
    positions: NDArray[np.int64],
    table: NDArray[np.int64],
    words: NDArray[np.int64],
    start: NDArray[np.int64],
    drop: int,
    raised: int,
    constant: int,
    out: NDArray[np.int64],
) -> None:
    """Sums of products with chosen rows; see ``kernels.harmonic_sum``.

    Args:
        positions: (N,).
        table: (P, W).
        words: (N, W).
        start: (N,), or empty.
        drop: bits of positions.
        raised: bits of start.
        constant: added to all.
        out: (N,).
    """
    length = table.shape[0]
    is_power = length & (length - 1) == 0
    for n in range(positions.size):
        row = positions[n] >> drop
        row = row & (length - 1) if is_power else row % length
        total = np.int64(constant)
        for w in range(table.shape[1]):
            total += table[row, w] * words[n, w]
        out[n] = total + (start[n] << raised) if start.size else total


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


@compile_now(
    "void(int64[::1], int64[::1], int64[::1], int64, int64, int64, int64[::1], int64[::1], int64[::1])"
)
def truncate(
    public: NDArray[np.int64],
    mask: NDArray[np.int64],
    bit: NDArray[np.int64],
    ring: int,
    shift: int,
    server: int,
    part: NDArray[np.int64],
    wrap: NDArray[np.int64],
    share: NDArray[np.int64],
) -> None:
    """What a server makes of a truncation's opening; see ``kernels.truncated``.

    Args:
        public: (N,), the opening.
        mask: (N,), its share of the shifted mask.
        bit: (N,), its share of the mask's top bit, or empty.
        ring: of the opening.
        shift: bits that are cut off.
        server: 0 or 1.
        part: out, (N,), the public part of the result.
        wrap: out, (N,), whether the opening did not wrap; not written if there is no bit.
        share: out, (N,), of the result, or empty.
    """
    left = ring - shift
    kept = np.int64(-1) if left == 64 else np.int64((np.uint64(1) << np.uint64(left)) - np.uint64(1))
    room, offset = np.int64(1) << np.int64(ring - 2), np.int64(1) << np.int64(left - 2)
    ours = np.int64(1 - server)
    for start in range(0, public.size, BLOCK):
        # A block at a time, so that what is read again is at hand.
        stop = min(start + BLOCK, public.size)
        opened, high = public[start:stop], part[start:stop]
        for n in range(opened.size):
            high[n] = (((opened[n] + room) >> shift) & kept) - offset
        if bit.size:
            whole = wrap[start:stop]
            for n in range(opened.size):
                whole[n] = np.int64(1) - (((opened[n] + room) >> (ring - 1)) & 1)
        if share.size:
            some, less = share[start:stop], mask[start:stop]
            if bit.size:
                whole, top = wrap[start:stop], bit[start:stop]
                for n in range(opened.size):
                    some[n] = ours * high[n] - less[n] + ((whole[n] * top[n]) << left)
            else:
                for n in range(opened.size):
                    some[n] = ours * high[n] - less[n]


@compile_now(
    "void(int64[:, ::1], int64[:, ::1], int64[::1], int64[:, ::1])",
    "void(int64[:, ::1], int32[:, ::1], int64[::1], int64[:, ::1])",
)
def add_rows(
    x: NDArray[np.int64], y: NDArray[np.int64], row: NDArray[np.int64], out: NDArray[np.int64]
) -> None:
    """``out = x + y + row``; see ``words.add_rows``. All (M, N), but row (N,)."""
    for m in range(out.shape[0]):
        first, second, total = x[m], y[m], out[m]
        for n in range(total.size):
            total[n] = first[n] + second[n] + row[n]


@compile_now("void(int64[::1], int64[::1], int64[::1], int64[::1])")
def add_product(
    x: NDArray[np.int64], y: NDArray[np.int64], z: NDArray[np.int64], out: NDArray[np.int64]
) -> None:
    """``out = x + y z``; see ``words.add_product``. All (N,)."""
    for n in range(out.size):
        out[n] = x[n] + y[n] * z[n]


@compile_now(
    "void(int64[:, ::1], int64[:, ::1], int64[:, ::1], int64[:, ::1], int64[:, ::1], int64, int64, int64,"
    " int64[::1])"
)
def row_squares(
    public: NDArray[np.int64],
    share: NDArray[np.int64],
    wrap: NDArray[np.int64],
    bit: NDArray[np.int64],
    product: NDArray[np.int64],
    ring: int,
    square: int,
    ours: int,
    out: NDArray[np.int64],
) -> None:
    """Sums of rows; see ``words.row_squares``. All (N, H), but out (N,); without wraps three have no rows."""
    for row in range(public.shape[0]):
        p, r = public[row], share[row]
        total = np.int64(0)
        for n in range(p.size):
            total += p[n] * (ours * p[n] - 2 * r[n])
        if wrap.shape[0]:
            w, b, rb = wrap[row], bit[row], product[row]
            crossed = np.int64(0)
            for n in range(p.size):
                crossed += w[n] * (((p[n] * b[n] - rb[n]) << (ring + 1)) + square * b[n])
            total += crossed
        out[row] = total
