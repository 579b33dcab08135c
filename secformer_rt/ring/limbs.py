"""Products modulo 2^32 and 2^64 by a processor's matrix unit (AMX), which multiplies bytes.

With a = sum over i of 2^(8 i) a_i, its limbs a_i in [0, 256), and b alike,

    sum over k of a b  =  sum over s of 2^(8 s) * sum over k and i + j = s of a_i b_j,

where s goes up to 3 modulo 2^32 and to 7 modulo 2^64: 10 and 36 products of bytes for one of words. One
instruction multiplies 16 rows of 64 bytes by 64 rows of 16 and adds to 256 sums of 32 bits. Modulo 2^32 these
may wrap; modulo 2^64 they must not, and do not while k < 2^32 / (8 * 255^2) = 8,256. A product that is wanted
modulo 2^(8 n) only takes the sums below n: 6 products of bytes for 24 bits, 15 for 40.

A unit of A, 16 rows and 64 columns, lies as one matrix a limb; so does a unit of B, 64 rows and 16 columns,
where row q of a matrix holds for each column the limbs of words 4 q to 4 q + 3. Either takes as many bytes
as its words.
"""

from __future__ import annotations

from typing import Any

import llvmlite.ir as ir  # type: ignore[import-untyped]

from secformer_rt.ring.emitter import HALF, WORD, Code

ROWS = 16  # of A in a unit, and columns of B
DEPTH = 64  # columns of A in a unit, and rows of B
MATRIX = 1024  # bytes of a limb's matrix

# Two sums are made at once, in registers 0 and 1. The processor keeps more registers than it names, shared by
# both threads of a core; where those run short, instructions wait, so four of the eight stay clear.
SUMS = 2
OF_A, OF_B = 2, 3  # the registers of limbs

AHEAD = 8  # calls that together fetch as much of B as each multiplies

# What tells the processor about its registers: the format, then 64 bytes a row and 16 rows in each of eight.
PALETTE = bytes([1, *[0] * 15, *[DEPTH, 0] * 8, *[0] * 16, *[ROWS] * 8, *[0] * 8])

_BYTE = ir.IntType(8)
_ROW = ir.VectorType(HALF, ROWS)


def configure(code: Code, palette: Any) -> None:
    """Set the thread's registers up; ``palette`` is the address of :data:`PALETTE`."""
    _instruct(code, "ldtilecfg", code.at(palette, 0, _BYTE))


def release(code: Code) -> None:
    """Give the registers up, so that the system need not save them."""
    _instruct(code, "tilerelease")


def split(code: Code, size: int, given: int, source: Any, stride: Any, out: Any) -> None:
    """Lay out a unit of A of words of ``given`` bytes, whose rows are ``stride`` bytes apart."""
    b = code.builder
    words, limbs = ir.VectorType(ir.IntType(8 * given), DEPTH), ir.VectorType(_BYTE, DEPTH)

    def step(carried: list[Any]) -> list[Any]:
        source_at, out_at = carried
        row = b.load(code.at(source_at, 0, words), align=given)
        for limb in range(size):
            part = b.trunc(b.lshr(row, ir.Constant(words, [8 * limb] * DEPTH)), limbs)
            b.store(part, code.at(out_at, MATRIX * limb, limbs), align=DEPTH)
        return [b.add(source_at, stride), b.add(out_at, WORD(DEPTH))]

    code.loop("split", WORD(ROWS), [source, out], step)


def interleave(code: Code, size: int, source: Any, stride: Any, out: Any) -> None:
    """Lay out a unit of B, whose rows are ``stride`` bytes apart."""
    b = code.builder
    words = ir.VectorType(ir.IntType(8 * size), ROWS)

    def step(carried: list[Any]) -> list[Any]:
        source_at, out_at = carried
        rows = []
        for _ in range(4):
            rows.append(b.load(code.at(source_at, 0, words), align=size))
            source_at = b.add(source_at, stride)
        for first in range(0, size, 4):
            shift = ir.Constant(words, [8 * first] * ROWS)
            parts = [b.trunc(b.lshr(x, shift), _ROW) for x in rows] if size > 4 else rows
            for limb, matrix_row in enumerate(_transposed(code, parts), first):
                b.store(matrix_row, code.at(out_at, MATRIX * limb, _ROW), align=DEPTH)
        return [source_at, b.add(out_at, WORD(DEPTH))]

    code.loop("interleave", WORD(DEPTH // 4), [source, out], step)


def multiply(
    code: Code, size: int, count: int, a: Any, b: Any, c: Any, stride: Any, units: Any, sums: Any, ahead: Any
) -> None:
    """Add the product of ``units`` units of A and of B to 16 rows of 16 words of C, ``stride`` bytes apart.

    It holds modulo ``2^(8 count)``. ``sums`` is the address of room for ``count`` matrices. Meanwhile
    the cache takes in an ``AHEAD``-th as much as there is of B, from the address ``ahead`` on.
    """
    builder = code.builder
    words = ir.VectorType(ir.IntType(8 * size), ROWS)
    _fetch(code, ahead, MATRIX * size // AHEAD, units)
    for end in range(count, 0, -SUMS):
        first = max(0, end - SUMS)
        _add_up(code, size, first, end, a, b, units)
        for s in range(first, end):
            place = code.at(sums, MATRIX * s, _BYTE)
            _instruct(code, "tilestored64", _BYTE(s - first), place, WORD(DEPTH))
    for r in range(ROWS):
        place = code.at(builder.add(c, builder.mul(WORD(r), stride)), 0, words)
        total = builder.load(place, align=size)
        for s in range(count):
            part = builder.load(code.at(sums, MATRIX * s + DEPTH * r, _ROW), align=DEPTH)
            wide = builder.zext(part, words) if size > 4 else part
            total = builder.add(total, builder.shl(wide, ir.Constant(words, [8 * s] * ROWS)))
        builder.store(total, place, align=size)


def _add_up(code: Code, size: int, first: int, end: int, a: Any, b: Any, units: Any) -> None:
    """Leave the sums from ``first`` up to ``end``, over all units, in the registers from 0."""
    builder = code.builder

    def step(carried: list[Any]) -> list[Any]:
        a_at, b_at = carried
        held: dict[int, int] = {}
        for i, j in _pairs(first, end):
            for register, start, limb in ((OF_A, a_at, i), (OF_B, b_at, j)):
                if held.get(register) != limb:
                    place = code.at(start, MATRIX * limb, _BYTE)
                    _instruct(code, "tileloadd64", _BYTE(register), place, WORD(DEPTH))
                    held[register] = limb
            _instruct(code, "tdpbuud", *map(_BYTE, (i + j - first, OF_A, OF_B)))
        return [builder.add(x, WORD(MATRIX * size)) for x in carried]

    for register in range(end - first):
        _instruct(code, "tilezero", _BYTE(register))
    code.loop(f"sums{first}", units, [a, b], step)


def _fetch(code: Code, address: Any, size: int, units: Any) -> None:
    """Have the second cache take in what begins there; where there is no memory nothing happens."""
    reads, second, data = HALF(0), HALF(2), HALF(1)

    def step(carried: list[Any]) -> list[Any]:
        for line in range(0, size, DEPTH):
            place = code.at(carried[0], line, _BYTE)
            code.intrinsic("llvm.prefetch", ir.VoidType(), place, reads, second, data)
        return [code.builder.add(carried[0], WORD(size))]

    code.loop("fetch", units, [address], step)


def _pairs(first: int, end: int) -> list[tuple[int, int]]:
    """The limbs to multiply for the sums from ``first`` up to ``end``, two sums or one.

    Of two sums, neighbours in the list share a limb, so that each takes one load.
    """
    return [(i, j) for i in range(end) for j in reversed(range(end)) if first <= i + j < end]


def _transposed(code: Code, rows: list[Any]) -> list[Any]:
    """Of four vectors of words w, four vectors whose words are byte 0, 1, 2 or 3 of all four w."""
    b = code.builder
    shift8, shift16, even, odd, low, high = (
        ir.Constant(_ROW, [n] * ROWS) for n in (8, 16, 0x00FF00FF, 0xFF00FF00, 0x0000FFFF, 0xFFFF0000)
    )
    # Bytes 0 and 2, and bytes 1 and 3, of two vectors in turns.
    evens = [b.or_(b.and_(x, even), b.shl(b.and_(y, even), shift8)) for x, y in (rows[:2], rows[2:])]
    odds = [b.or_(b.and_(b.lshr(x, shift8), even), b.and_(y, odd)) for x, y in (rows[:2], rows[2:])]
    lows = [b.or_(b.and_(x, low), b.shl(y, shift16)) for x, y in (evens, odds)]
    highs = [b.or_(b.lshr(x, shift16), b.and_(y, high)) for x, y in (evens, odds)]
    return [lows[0], lows[1], highs[0], highs[1]]


def _instruct(code: Code, name: str, *operands: Any) -> None:
    """Emit an instruction of the matrix unit, by LLVM's name."""
    code.intrinsic(f"llvm.x86.{name}", ir.VoidType(), *operands)
