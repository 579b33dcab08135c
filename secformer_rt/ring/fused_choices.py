"""Small fused loops over opened bits and dealt tables, compiled; imported only where numba is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secformer_rt.ring.jit import compile_now


@compile_now("void(uint8[::1], int64, int64[::1], int64[::1])")
def signs(bits: NDArray[np.uint8], flipped: int, chosen: NDArray[np.int64], step: NDArray[np.int64]) -> None:
    """``chosen = bit ^ flipped``, ``step = 1 - 2 chosen``; see ``choices.signs``. All (N,)."""
    for n in range(chosen.size):
        bit = np.int64(bits[n]) ^ flipped
        chosen[n] = bit
        step[n] = 1 - 2 * bit


@compile_now("void(uint8[::1], int64[::1], int64, int64[::1], int64[::1], int64[::1])")
def entries(
    bits: NDArray[np.uint8],
    words: NDArray[np.int64],
    offset: int,
    pairs: NDArray[np.int64],
    chosen: NDArray[np.int64],
    step: NDArray[np.int64],
) -> None:
    """Entries that bits choose; see ``choices.entries``. All (N,), but pairs (2 P,)."""
    mask = pairs.size - 2
    for n in range(chosen.size):
        bit = np.int64(bits[n])
        place = ((words[n] + offset) << 1) & mask
        entry, other = pairs[np.uint64(place | bit)], pairs[np.uint64(place | (bit ^ 1))]
        chosen[n] = entry
        step[n] = other - entry


@compile_now("void(uint8[:, ::1], int64[:, ::1], int64, int64[::1])")
def counts(bits: NDArray[np.uint8], words: NDArray[np.int64], ours: int, out: NDArray[np.int64]) -> None:
    """Sums of ``ours bit + (1 - 2 bit) word`` along rows; see ``choices.counts``. (R, C), and out (R,)."""
    for r in range(out.size):
        some_bits, some_words = bits[r], words[r]
        total = np.int64(0)
        for n in range(some_words.size):
            bit = np.int64(some_bits[n])
            total += ours * bit + (some_words[n] ^ -bit) + bit
        out[r] = total


@compile_now("void(int64[:, ::1], int64, int64, uint8[:, :, ::1], int64[:, ::1])")
def tails(
    words: NDArray[np.int64], offset: int, low: int, tables: NDArray[np.uint8], out: NDArray[np.int64]
) -> None:
    """Tails of a row's sum of rotated tables; see ``choices.tails``.

    Args:
        words: (R, T).
        offset: added to them.
        low: the first bit of a word's rotation.
        tables: (R, T, B), B a power of two.
        out: (R, B - 1).
    """
    size = tables.shape[2]
    # What is rotated past the end is added there, so that a table is one loop of fixed length.
    work, total = np.empty(2 * size, np.uint8), np.empty(size, np.uint8)
    head, past = work[:size], work[size:]
    rotations = np.empty(tables.shape[1], np.uint8)
    for r in range(tables.shape[0]):
        some_words, row = words[r], out[r]
        for t in range(rotations.size):
            rotations[t] = ((some_words[t] + offset) >> low) & (size - 1)
        work[:] = 0
        for t in range(rotations.size):
            table, some = tables[r, t], work[np.int64(rotations[t]) :]
            for n in range(table.size):
                some[n] += table[n]
        tail = np.int64(0)
        for n in range(size):
            total[n] = head[n] + past[n]
            tail += total[n]
        for n in range(row.size):
            tail -= total[n]
            row[n] = tail
        for n in range(row.size):
            row[n] &= 255
