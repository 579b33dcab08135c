"""Small fused loops over bits and packed words, compiled; imported only where numba is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from secformer_rt.ring.jit import compile_now, inlined

BLOCK = 2048  # elements of chunk_lookup at a time, a multiple of 8
PLANE_BLOCK = 2048  # bytes of every plane at a time


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


@inlined
def _inner(whole: int, bits: int, count: int) -> int:
    """How many words lie in whole words of a stream, with both halves."""
    return min(count, max(0, (64 * (whole - 1)) // bits))


@inlined
def _word(stream: NDArray[np.uint64], n: Any, bits: Any) -> Any:
    """Word n of a stream, and whatever follows it above ``bits``."""
    start = n * bits
    at, shift = start >> np.uint64(6), start & np.uint64(63)
    # Shifting by 64 is not defined: by 1 and by at most 63.
    return (stream[at] >> shift) | ((stream[at + np.uint64(1)] << np.uint64(1)) << (np.uint64(63) - shift))


@inlined
def _last_word(buffer: NDArray[np.uint8], n: int, bits: int) -> Any:
    """Word n of a stream that may end in the middle of eight bytes."""
    word = np.uint64(0)
    for bit in range(bits):
        place = n * bits + bit
        word |= np.uint64((buffer[place >> 3] >> (place & 7)) & 1) << np.uint64(bit)
    return word


@compile_now("void(uint8[::1], int64, uint64[::1])")
def unpack_words(buffer: NDArray[np.uint8], bits: int, out: NDArray[np.uint64]) -> None:
    """Undo :func:`pack_words`.

    Args:
        buffer: ceil(N bits / 8) bytes.
        bits: 1 to 63.
        out: (N,).
    """
    stream = buffer[: buffer.size // 8 * 8].view(np.uint64)
    mask = (np.uint64(1) << np.uint64(bits)) - np.uint64(1)
    inner = _inner(stream.size, bits, out.size)
    some = out[:inner]
    for n in range(some.size):
        some[n] = _word(stream, np.uint64(n), np.uint64(bits)) & mask
    for n in range(inner, out.size):
        out[n] = _last_word(buffer, n, bits)


@compile_now("void(int64[::1], uint8[::1], int64, int64[::1])")
def add_unpacked(
    share: NDArray[np.int64], buffer: NDArray[np.uint8], bits: int, out: NDArray[np.int64]
) -> None:
    """out[n] = (share[n] + word n of the buffer) modulo ``2^bits``; see ``packing.add_unpacked``.

    Args:
        share: (N,).
        buffer: ceil(N bits / 8) bytes.
        bits: 1 to 63.
        out: (N,).
    """
    stream = buffer[: buffer.size // 8 * 8].view(np.uint64)
    mask = (np.int64(1) << bits) - 1
    inner = _inner(stream.size, bits, out.size)
    some, mine = out[:inner], share[:inner]
    for n in range(some.size):
        some[n] = (mine[n] + np.int64(_word(stream, np.uint64(n), np.uint64(bits)))) & mask
    for n in range(inner, out.size):
        out[n] = (share[n] + np.int64(_last_word(buffer, n, bits))) & mask


@compile_now("void(uint8[:, ::1], uint8[:, ::1], int64[:, ::1], uint8[:, ::1])")
def masked_products(
    opened: NDArray[np.uint8],
    shares: NDArray[np.uint8],
    monomials: NDArray[np.int64],
    out: NDArray[np.uint8],
) -> None:
    """Sums of products of public planes and one share each; see ``packing.masked_products``.

    Args:
        opened: (F, n).
        shares: (S, n).
        monomials: (M, 3): row of out, row of shares or -1, and the opened factors as a set of bits.
        out: (T, n), zeros.
    """
    size = opened.shape[1]
    held = np.empty(PLANE_BLOCK, np.uint8)
    for start in range(0, size, PLANE_BLOCK):
        stop = min(start + PLANE_BLOCK, size)
        some = held[: stop - start]
        for m in range(monomials.shape[0]):
            share = monomials[m, 1]
            if share < 0:
                some[:] = 255
            else:
                some[:] = shares[share, start:stop]
            for f in range(opened.shape[0]):
                if (monomials[m, 2] >> f) & 1:
                    factor = opened[f, start:stop]
                    for n in range(some.size):
                        some[n] &= factor[n]
            total = out[monomials[m, 0], start:stop]
            for n in range(some.size):
                total[n] ^= some[n]
