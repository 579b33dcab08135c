"""Small fused loops over bits and packed words, compiled; imported only where numba is."""

from __future__ import annotations

import importlib
from typing import Any

import llvmlite.ir as ir  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

from secformer_rt.ring.jit import compile_now, inlined
from secformer_rt.ring.native import call

numba: Any = importlib.import_module("numba")
extending: Any = importlib.import_module("numba.extending")

BLOCK = 2048  # words at a time, a multiple of 64
PLANE_BLOCK = 2048  # bytes of every plane at a time

# Times this, eight 0/1 bytes leave their bits in the top byte, the first byte's bit on top.
GATHER = np.uint64(0x8040201008040201)

# Where in the array of addresses each function's is; in a table, the word that says where a last lane begins.
READ, READ_SUM, READ_ONTO = range(3)
WRITE, WRITE_SUM, WRITE_DIFFERENCE, WRITE_CHOSEN, WRITE_NARROW_SUM, WRITE_NARROW_DIFFERENCE = range(3, 9)
LAST = 3


@compile_now("void(int16[:, ::1], int64[::1], int64[::1], int64, int64, int64, uint8[:, ::1], uint8[:, ::1])")
def chunk_lookup(
    tables: NDArray[np.int16],
    words: NDArray[np.int64],
    less: NDArray[np.int64],
    low: int,
    bits: int,
    first: int,
    lt: NDArray[np.uint8],
    eq: NDArray[np.uint8],
) -> None:
    """Look neighbouring bits up; see ``bit_planes.chunk_lookup``.

    Args:
        tables: (C, N).
        words: (N,).
        less: (M,).
        low: the first bit of the differences' first chunk.
        bits: of all C chunks.
        first: 0 or 1.
        lt: out, (C, ceil(M N / 8)).
        eq: out, of the same shape.
    """
    ones = np.uint64(0x0101010101010101)
    # The first entry, as the constant bit below it, goes to bit 0 and the rest follow.
    below = np.uint32(first)
    pairs = np.empty(BLOCK, np.uint8)
    columns = tables.shape[1]
    for start in range(0, less.size * columns, BLOCK):
        size = min(BLOCK, less.size * columns - start)
        for c in range(tables.shape[0]):
            shift = np.int64(low + 4 * c)
            mask = np.int64((1 << min(4, bits - 4 * c)) - 1)
            done = 0
            while done < size:
                column = (start + done) % columns
                part = min(size - done, columns - column)
                number = less[(start + done) // columns]
                # Slices, because LLVM vectorises indices only if it sees that none is negative.
                some_tables = tables[c, column : column + part]
                some_words = words[column : column + part]
                some_pairs = pairs[done : done + part]
                for n in range(part):
                    # numba widens every result to 64 bits, which would halve the lanes.
                    table = np.uint32(np.uint16(some_tables[n]))
                    entries = np.uint32(np.uint32(table << np.uint32(1)) | below)
                    index = np.uint32(((some_words[n] - number) >> shift) & mask)
                    some_pairs[n] = np.uint32(entries >> index) & np.uint32(3)
                done += part
            width = (size + 7) // 8
            pairs[size : 8 * width] = 0
            eights = pairs.view(np.uint64)
            some_lt, some_eq = lt[c, start // 8 :], eq[c, start // 8 :]
            for n in range(width):
                above = eights[n] >> np.uint64(1)
                some_lt[n] = ((above & ones) * GATHER) >> np.uint64(56)
                some_eq[n] = (((above ^ eights[n]) & ones) * GATHER) >> np.uint64(56)


@compile_now("void(int64[::1], int64[::1], int64, uint8[::1])")
def bit_plane(words: NDArray[np.int64], less: NDArray[np.int64], bit: int, out: NDArray[np.uint8]) -> None:
    """One bit of every difference, eight to a byte; see ``bit_planes.bit_plane``.

    Args:
        words: (N,).
        less: (M,).
        bit: 0 to 63.
        out: (ceil(M N / 8),).
    """
    flags = np.empty(BLOCK, np.uint8)
    for start in range(0, less.size * words.size, BLOCK):
        size = min(BLOCK, less.size * words.size - start)
        done = 0
        while done < size:
            column = (start + done) % words.size
            part = min(size - done, words.size - column)
            number = less[(start + done) // words.size]
            some_words, some_flags = words[column : column + part], flags[done : done + part]
            for n in range(part):
                some_flags[n] = ((some_words[n] - number) >> bit) & 1
            done += part
        width = (size + 7) // 8
        flags[size : 8 * width] = 0
        eights, planes = flags.view(np.uint64), out[start // 8 :]
        for n in range(width):
            planes[n] = (eights[n] * GATHER) >> np.uint64(56)


@compile_now(
    "void(int64[::1], int64[::1], uint64[::1], uint64[::1], boolean, int64, int64, int64, uint64[::1])",
    "void(int64[::1], int64[::1], int32[::1], uint64[::1], boolean, int64, int64, int64, uint64[::1])",
    "void(int64[::1], int64[::1], uint64[::1], int32[::1], boolean, int64, int64, int64, uint64[::1])",
)
def pack_words(
    functions: NDArray[np.int64], table: NDArray[np.int64], words: NDArray[np.uint64] | NDArray[np.int32],
    masks: NDArray[np.uint64] | NDArray[np.int32], less: bool, bits: int, cut: int, up: int,
    out: NDArray[np.uint64],
) -> None:  # fmt: skip
    """The low bits of all sums or differences as one stream; see ``packing.pack_words``.

    A block's bits fill whole words, so each begins with an empty one.

    Args:
        functions: addresses of ``ring.streams``, or none.
        table: for these bits.
        words: (N,); of 32 bits only with masks, which are added.
        masks: (N,), or none; of 32 bits only up to 32 bits, to be taken away.
        less: whether they are taken away rather than added.
        bits: 1 to 63.
        cut: bits cut off each word before a mask is added, with ``up`` added before; 0 for differences.
        up: see there.
        out: little-endian, at least ``N bits / 64`` words and three more.
    """
    at = 0
    if functions.size:
        groups = words.size // 64 * 8
        if groups and masks.size and less:
            write = functions[WRITE_NARROW_DIFFERENCE if masks.itemsize == 4 else WRITE_DIFFERENCE]
            call(write, (words, 0, masks, 0, out, 0, groups, bits, table, 0))
        elif groups and masks.size:
            write = functions[WRITE_NARROW_SUM if words.itemsize == 4 else WRITE_SUM]
            call(write, (words, 0, masks, 0, out, 0, groups, bits, table, 0, cut, up))
        elif groups:
            call(functions[WRITE], (words, 0, out, 0, groups, bits, table, 0))
        at = groups // 8 * bits
        words, masks = words[8 * groups :], masks[8 * groups :]
    kept = (np.uint64(1) << np.uint64(bits)) - np.uint64(1)
    block, pairs = np.empty(BLOCK, np.uint64), np.empty(BLOCK // 2, np.uint64)
    for start in range(0, words.size, BLOCK):
        size = min(BLOCK, words.size - start)
        some, mine = block[:size], words[start : start + size]
        if masks.size:
            added = masks[start : start + size]
            sign = ~np.uint64(0) if less else np.uint64(0)
            for n in range(size):
                # -m is ~m + 1.
                word = (np.uint64(mine[n]) + np.uint64(up)) >> np.uint64(cut)
                some[n] = (word + (np.uint64(added[n]) ^ sign) - sign) & kept
        else:
            for n in range(size):
                some[n] = np.uint64(mine[n]) & kept
        width = np.uint64(bits)
        if bits <= 32 and size % 2 == 0:
            # Two at a time: what follows is not vectorised.
            some = pairs[: size // 2]
            for n in range(some.size):
                some[n] = block[2 * n] | (block[2 * n + 1] << width)
            width *= np.uint64(2)
        held, filled = np.uint64(0), np.uint64(0)
        for n in range(some.size):
            word = some[n]
            held |= word << filled
            filled += width
            if filled >= np.uint64(64):
                out[at] = held
                at += 1
                filled -= np.uint64(64)
                # Shifting by 64 is not defined, and there is nothing left then.
                held = word >> (width - filled) if filled else np.uint64(0)
        if filled:
            out[at] = held


@compile_now("void(int64[::1], int64[::1], uint64[::1], uint64[::1], uint64[::1], int64, int64, uint64[::1])")
def pack_chosen(
    functions: NDArray[np.int64], table: NDArray[np.int64], words: NDArray[np.uint64],
    chosen: NDArray[np.uint64], numbers: NDArray[np.uint64], ring: int, bits: int, out: NDArray[np.uint64],
) -> None:  # fmt: skip
    """What :func:`pack_words` makes of words, and bits where numbers allow; see ``packing.pack_chosen``.

    Args:
        functions: addresses of ``ring.streams``, or none.
        table: for these bits.
        words: (N,).
        chosen: (N,), added where the numbers have their upper bit clear.
        numbers: (N,).
        ring: bits of a number.
        bits: 1 to 63.
        out: little-endian, at least ``N bits / 64`` words and three more.
    """
    done = words.size // 64 * 64 if functions.size else 0
    if done:
        given = (words, 0, chosen, 0, numbers, 0, out, 0, done // 8, bits, table, 0, ring)
        call(functions[WRITE_CHOSEN], given)
    rest = words[done:].copy()
    for n in range(rest.size):
        rest[n] += (((numbers[done + n] >> np.uint64(ring - 1)) & np.uint64(1)) - np.uint64(1)) & chosen[
            done + n
        ]
    pack_words(functions[:0], table, rest, rest[:0], False, bits, 0, 0, out[done // 64 * bits :])


def _eight_bytes(_typing: Any, buffer: Any, at: Any) -> Any:
    """Eight bytes of a buffer as a word, wherever they begin."""

    def generate(context: Any, builder: Any, signature: Any, values: list[Any]) -> Any:
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        place = builder.gep(data, [values[1]])
        return builder.load(builder.bitcast(place, ir.IntType(64).as_pointer()), align=1)

    return numba.uint64(buffer, at), generate


_load: Any = extending.intrinsic(_eight_bytes)


@inlined
def _inner(size: int, bits: int, count: int) -> int:
    """How many words of a stream can be read as nine bytes each."""
    return min(count, max(0, 8 * (size - 9)) // bits)


@inlined
def _word(buffer: NDArray[np.uint8], n: int, bits: int) -> Any:
    """Word n of a stream, and whatever follows it above ``bits``; up to 57 bits lie in eight bytes."""
    at, shift = (n * bits) >> 3, np.uint64((n * bits) & 7)
    word = _load(buffer, at) >> shift
    if bits > 57:
        # Shifting by 64 is not defined: by 1 and by at most 63.
        word |= (np.uint64(buffer[at + 8]) << np.uint64(1)) << (np.uint64(63) - shift)
    return word


@inlined
def _last_word(buffer: NDArray[np.uint8], n: int, bits: int) -> Any:
    """Word n of a stream that ends soon."""
    word = np.uint64(0)
    for bit in range(bits):
        place = n * bits + bit
        word |= np.uint64((buffer[place >> 3] >> (place & 7)) & 1) << np.uint64(bit)
    return word


@inlined
def _groups(size: int, bits: int, count: int, last: int) -> int:
    """How many eights of words ``ring.streams`` may read from so many bytes."""
    return min(count // 8, max(0, (size - 16 - last) // bits + 1))


@compile_now("void(int64[::1], int64[::1], uint8[::1], int64, uint64[::1])")
def unpack_words(
    functions: NDArray[np.int64], table: NDArray[np.int64], buffer: NDArray[np.uint8], bits: int,
    out: NDArray[np.uint64],
) -> None:  # fmt: skip
    """Undo :func:`pack_words`.

    Args:
        functions: addresses of ``ring.streams``, or none.
        table: for these bits.
        buffer: ceil(N bits / 8) bytes.
        bits: 1 to 63.
        out: (N,).
    """
    kept = (np.uint64(1) << np.uint64(bits)) - np.uint64(1)
    done = _groups(buffer.size, bits, out.size, table[LAST]) if functions.size else 0
    if done:
        call(functions[READ], (buffer, 0, out, 0, done, bits, table, 0))
    start = 8 * done
    inner = max(start, _inner(buffer.size, bits, out.size))
    some = out[start:inner]
    for n in range(some.size):
        some[n] = _word(buffer, start + n, bits) & kept
    for n in range(inner, out.size):
        out[n] = _last_word(buffer, n, bits)


@compile_now("void(int64[::1], int64[::1], uint8[::1], uint8[::1], int64, uint64[::1])")
def unpack_sum(
    functions: NDArray[np.int64], table: NDArray[np.int64], first: NDArray[np.uint8],
    second: NDArray[np.uint8], bits: int, out: NDArray[np.uint64],
) -> None:  # fmt: skip
    """out[n] = (word n of the one + word n of the other) modulo ``2^bits``; see ``packing.unpack_sum``.

    Args:
        functions: addresses of ``ring.streams``, or none.
        table: for these bits.
        first: ceil(N bits / 8) bytes.
        second: as many.
        bits: 1 to 63.
        out: (N,).
    """
    kept = (np.uint64(1) << np.uint64(bits)) - np.uint64(1)
    done = _groups(first.size, bits, out.size, table[LAST]) if functions.size else 0
    if done:
        call(functions[READ_SUM], (first, 0, second, 0, out, 0, done, bits, table, 0))
    start = 8 * done
    inner = max(start, _inner(first.size, bits, out.size))
    some = out[start:inner]
    for n in range(some.size):
        some[n] = (_word(first, start + n, bits) + _word(second, start + n, bits)) & kept
    for n in range(inner, out.size):
        out[n] = (_last_word(first, n, bits) + _last_word(second, n, bits)) & kept


@compile_now(
    "void(uint8[:, ::1], uint8[:, ::1], uint8[:, ::1], int64[:, ::1], uint8[:, ::1])",
    "void(uint64[:, ::1], uint64[:, ::1], uint64[:, ::1], int64[:, ::1], uint64[:, ::1])",
)
def masked_products(
    opened: NDArray[Any],
    masks: NDArray[Any],
    products: NDArray[Any],
    monomials: NDArray[np.int64],
    out: NDArray[Any],
) -> None:
    """Sums of products of public planes and one share each; see ``bit_planes.masked_products``.

    Args:
        opened: (F, n), bytes or words of eight.
        masks: (F, n): the first rows of shares.
        products: (S - F, n): the others.
        monomials: (M, 3): row of out, row of shares or -1, and the opened factors as a set of bits.
        out: (T, n), zeros.
    """
    size, block = opened.shape[1], PLANE_BLOCK // opened.itemsize
    held = np.empty(block, opened.dtype)
    for start in range(0, size, block):
        stop = min(start + block, size)
        some = held[: stop - start]
        for m in range(monomials.shape[0]):
            share = monomials[m, 1]
            if share < 0:
                some[:] = ~held.dtype.type(0)
            elif share < masks.shape[0]:
                some[:] = masks[share, start:stop]
            else:
                some[:] = products[share - masks.shape[0], start:stop]
            for f in range(opened.shape[0]):
                if (monomials[m, 2] >> f) & 1:
                    factor = opened[f, start:stop]
                    for n in range(some.size):
                        some[n] &= factor[n]
            total = out[monomials[m, 0], start:stop]
            for n in range(some.size):
                total[n] ^= some[n]


@compile_now("void(int64[::1], int64[::1], uint8[::1], uint8[::1], uint64[::1], int64, int64, uint64[::1])")
def unpack_onto(
    functions: NDArray[np.int64], table: NDArray[np.int64], first: NDArray[np.uint8],
    second: NDArray[np.uint8], onto: NDArray[np.uint64], shift: int, bits: int, out: NDArray[np.uint64],
) -> None:  # fmt: skip
    """``out = onto + 2^shift`` times what :func:`unpack_sum` finds; see ``packing.unpack_onto``.

    Args:
        functions: addresses of ``ring.streams``, or none.
        table: for these bits.
        first: ceil(N bits / 8) bytes.
        second: as many.
        onto: (N,).
        shift: 0 to 63.
        bits: 1 to 63.
        out: (N,).
    """
    done = _groups(first.size, bits, out.size, table[LAST]) if functions.size else 0
    if done:
        given = (first, 0, second, 0, onto, 0, out, 0, done, bits, table, 0, shift)
        call(functions[READ_ONTO], given)
    rest = out[8 * done :]
    unpack_sum(functions[:0], table, first[done * bits :], second[done * bits :], bits, rest)
    for n in range(rest.size):
        rest[n] = onto[8 * done + n] + (rest[n] << np.uint64(shift))
