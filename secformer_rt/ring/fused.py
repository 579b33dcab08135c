"""Small fused loops, compiled; imported only where numba is."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secformer_rt.ring.jit import compile_now, inlined

numba: Any = importlib.import_module("numba")
extending: Any = importlib.import_module("numba.extending")

BLOCK = 2048  # elements of chunk_lookup at a time, a multiple of 8
LANE = 128  # elements of a product of sums at a time


@compile_now(
    "int64(int64[::1], int64[:, ::1], int64[:, ::1], int64[::1])",
    "int64(int64[::1], int32[:, ::1], int32[:, ::1], int64[::1])",
)
def harmonic_sum(
    index: NDArray[np.int64], table: NDArray[np.int64], words: NDArray[np.int64], out: NDArray[np.int64]
) -> int:
    """out[n] = sum over w of table[index[n], w] * words[n, w]; see ``kernels.harmonic_sum``.

    Args:
        index: (N,).
        table: (P, W).
        words: (N, W).
        out: (N,).

    Returns:
        The first n whose index is no row of the table, where the work has stopped; -1 if there is none.
    """
    for n in range(index.size):
        row = index[n]
        if row < 0 or row >= table.shape[0]:
            return n
        total = np.int64(0)
        for w in range(table.shape[1]):
            total += table[row, w] * words[n, w]
        out[n] = total
    return -1


@compile_now("void(int16[:, ::1], int64[::1], int64, int64, int64, uint8[:, ::1], uint8[:, ::1])")
def chunk_lookup(
    tables: NDArray[np.int16],
    words: NDArray[np.int64],
    low: int,
    bits: int,
    first: int,
    lt: NDArray[np.uint8],
    eq: NDArray[np.uint8],
) -> None:
    """Look neighbouring bits up; see ``packing.chunk_lookup``.

    Args:
        tables: (C, N).
        words: (M N,).
        low: the first bit of the words' first chunk.
        bits: of all C chunks.
        first: 0 or 1.
        lt: out, (C, ceil(M N / 8)).
        eq: out, of the same shape.
    """
    ones = np.uint64(0x0101010101010101)
    # Times this, eight 0/1 bytes leave their bits in the top byte, the first byte's bit on top.
    gather = np.uint64(0x8040201008040201)
    # The first entry, as the constant bit below it, goes to bit 0 and the rest follow.
    below = np.uint32(first)
    pairs = np.empty(BLOCK, np.uint8)
    columns = tables.shape[1]
    for start in range(0, words.size, BLOCK):
        size = min(BLOCK, words.size - start)
        for c in range(tables.shape[0]):
            shift = np.int64(low + 4 * c)
            mask = np.int64((1 << min(4, bits - 4 * c)) - 1)
            done = 0
            while done < size:
                column = (start + done) % columns
                part = min(size - done, columns - column)
                # Slices, because LLVM vectorises indices only if it sees that none is negative.
                some_tables = tables[c, column : column + part]
                some_words = words[start + done : start + done + part]
                some_pairs = pairs[done : done + part]
                for n in range(part):
                    # numba widens every result to 64 bits, which would halve the lanes.
                    table = np.uint32(np.uint16(some_tables[n]))
                    entries = np.uint32(np.uint32(table << np.uint32(1)) | below)
                    index = np.uint32((some_words[n] >> shift) & mask)
                    some_pairs[n] = np.uint32(entries >> index) & np.uint32(3)
                done += part
            width = (size + 7) // 8
            pairs[size : 8 * width] = 0
            eights = pairs.view(np.uint64)
            some_lt, some_eq = lt[c, start // 8 :], eq[c, start // 8 :]
            for n in range(width):
                above = eights[n] >> np.uint64(1)
                some_lt[n] = ((above & ones) * gather) >> np.uint64(56)
                some_eq[n] = (((above ^ eights[n]) & ones) * gather) >> np.uint64(56)


@compile_now("void(uint8[:, ::1], uint8[:, :, ::1], uint8[:, ::1])")
def rotated_sum(shifts: NDArray[np.uint8], tables: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """out[r] = sum over t of tables[r, t] rotated right by shifts[r, t]; see ``packing.rotated_sum``.

    Args:
        shifts: (R, T), below B.
        tables: (R, T, B).
        out: (R, B), zeros.
    """
    size = tables.shape[2]
    for r in range(tables.shape[0]):
        total = out[r]
        for t in range(tables.shape[1]):
            shift = np.int64(shifts[r, t])
            table = tables[r, t]
            head, tail = total[shift:], total[:shift]
            first, second = table[: size - shift], table[size - shift :]
            for n in range(head.size):
                head[n] += first[n]
            for n in range(tail.size):
                tail[n] += second[n]


@compile_now("void(uint64[::1], int64, uint64[::1])")
def pack_words(words: NDArray[np.uint64], bits: int, out: NDArray[np.uint64]) -> None:
    """The low bits of all words as one stream; see ``packing.pack_words``.

    Args:
        words: (N,).
        bits: 1 to 63.
        out: little-endian, at least ``N bits / 64`` words and one more.
    """
    mask = (np.uint64(1) << np.uint64(bits)) - np.uint64(1)
    held, filled, at = np.uint64(0), np.uint64(0), 0
    width = np.uint64(bits)
    for n in range(words.size):
        word = words[n] & mask
        held |= word << filled
        filled += width
        if filled >= np.uint64(64):
            out[at] = held
            at += 1
            filled -= np.uint64(64)
            # Shifting by 64 is not defined, and there is nothing left then.
            held = word >> (width - filled) if filled else np.uint64(0)
    out[at] = held


@compile_now("void(uint8[::1], int64, uint64[::1])")
def unpack_words(buffer: NDArray[np.uint8], bits: int, out: NDArray[np.uint64]) -> None:
    """Undo :func:`pack_words`.

    Args:
        buffer: ceil(N bits / 8) bytes.
        bits: 1 to 63.
        out: (N,).
    """
    mask = (np.uint64(1) << np.uint64(bits)) - np.uint64(1)
    whole = buffer.size // 8
    stream = buffer[: 8 * whole].view(np.uint64)
    last = np.uint64(0)
    for i in range(8 * whole, buffer.size):
        last |= np.uint64(buffer[i]) << np.uint64(8 * (i - 8 * whole))
    # Words of which both halves lie in whole words of the stream need no care.
    inner = min(out.size, max(0, (64 * (whole - 1)) // bits))
    some = out[:inner]
    for n in range(some.size):
        start = np.uint64(n) * np.uint64(bits)
        at, shift = start >> np.uint64(6), start & np.uint64(63)
        # Shifting by 64 is not defined: by 1 and by at most 63.
        high = (stream[at + np.uint64(1)] << np.uint64(1)) << (np.uint64(63) - shift)
        some[n] = ((stream[at] >> shift) | high) & mask
    for n in range(inner, out.size):
        start = np.uint64(n * bits)
        place, shift = np.int64(start >> np.uint64(6)), start & np.uint64(63)
        word = (stream[place] if place < whole else last) >> shift
        if shift + np.uint64(bits) > np.uint64(64):
            following = stream[place + 1] if place + 1 < whole else last
            word |= (following << np.uint64(1)) << (np.uint64(63) - shift)
        out[n] = word & mask


def _words_at(_typing: Any, address: Any) -> Any:
    """An address as a pointer to words."""

    def generate(_context: Any, builder: Any, signature: Any, values: list[Any]) -> Any:
        return builder.inttoptr(values[0], _context.get_value_type(signature.return_type))

    return numba.types.CPointer(numba.int64)(address), generate


_pointer: Any = extending.intrinsic(_words_at)


@inlined
def _add(total: Any, constant: int, first: Any, second: Any, width: int) -> None:
    for j in range(width):
        total[j] += constant * (first[j] * second[j])


@inlined
def _add_one(total: Any, constant: int, only: Any, width: int) -> None:
    if constant == -1:
        for j in range(width):
            total[j] -= only[j]
    else:
        for j in range(width):
            total[j] += constant * only[j]


@compile_now("void(int64[:, ::1], int64[:, ::1], int64[:, ::1], int64, int64[:, ::1])")
def multilinear(
    code: NDArray[np.int64],
    operands: NDArray[np.int64],
    sums: NDArray[np.int64],
    work: int,
    out: NDArray[np.int64],
) -> None:
    """Run a program of ``ring.multilinear``, block by block.

    Pointers rather than slices, because those are counted, which takes as long as the arithmetic.

    Args:
        code: (instructions, 4).
        operands: (N, 3): address, words from row to row and from column to column (0 or 1).
        sums: (levels + 2, LANE), to work in.
        work: its address.
        out: (rows, columns).
    """
    rows, columns = out.shape
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
                    _add(total, code[at, 1], _pointer(first), _pointer(second), width)
                elif first or second:
                    _add_one(total, code[at, 1], _pointer(first + second), width)
                else:
                    for j in range(width):
                        total[j] += code[at, 1]
                if code[at, 3] == -2:
                    used = _pointer(work + 8 * lane * (level + 1))
                    for j in range(width):
                        used[j] = 0
            for j in range(width):
                out[row, start + j] = sums[0, j]


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
    """What a server makes of a truncation's opening; see ``truncation.truncate_many``.

    Args:
        public: (N,), the opening.
        mask: (N,), its share of the shifted mask.
        bit: (N,), its share of the mask's top bit, or empty.
        ring: of the opening.
        shift: bits that are cut off.
        server: 0 or 1.
        part: out, (N,), the public part of the result.
        wrap: out, (N,), whether the opening did not wrap; not written if there is no bit.
        share: out, (N,), of the result.
    """
    left = ring - shift
    kept = np.int64(-1) if left == 64 else np.int64((np.uint64(1) << np.uint64(left)) - np.uint64(1))
    offset = np.int64(1) << np.int64(left - 2)
    ours = np.int64(1 - server)
    for n in range(public.size):
        part[n] = ((public[n] >> shift) & kept) - offset
        share[n] = ours * part[n] - mask[n]
    if bit.size:
        for n in range(public.size):
            wrap[n] = np.int64(1) - ((public[n] >> (ring - 1)) & 1)
            share[n] += (wrap[n] * bit[n]) << left
