"""Sums of products with chosen rows of a table, sixteen sums at a time.

The products of one sum are a vector. Of two such vectors x and y, x's even lanes plus its odd ones and y's
likewise are one vector again; so sixteen of them take four steps to become the vector of their sums, with
fifteen additions.
"""

from __future__ import annotations

import functools
from typing import Any

import llvmlite.ir as ir  # type: ignore[import-untyped]

from secformer_rt.ring.emitter import HALF, WORD, Code
from secformer_rt.ring.native import Compiled, compile_functions

LANES = 16

_SUMS = ir.VectorType(WORD, LANES)


@functools.cache
def compile_harmonics() -> Compiled:
    """Functions for words of 4 and of 8 bytes.

    ``sums(positions, table, words, start, out, groups, width, parts, mask, scale, constant)`` writes
    ``groups`` times 16 sums: of ``width`` products each, in ``parts`` vectors, of the row of the table that
    ``positions & mask`` says, plus ``start * scale + constant``. Positions have 8 bytes whatever the words.
    """
    return compile_functions(
        (lambda builder, *x: _sums(Code(builder), 4, *x), 11),
        (lambda builder, *x: _sums(Code(builder), 8, *x), 11),
    )


def _sums(
    code: Code, size: int, positions: Any, table: Any, words: Any, start: Any, out: Any, groups: Any,
    width: Any, parts: Any, mask: Any, scale: Any, constant: Any,
) -> None:  # fmt: skip
    b = code.builder
    vector, number = ir.VectorType(ir.IntType(8 * size), LANES), ir.IntType(8 * size)
    lanes = ir.Constant(_SUMS, list(range(LANES)))
    row_bytes = b.mul(width, WORD(size))
    factor, addend = (code.spread(x if size == 8 else b.trunc(x, number), vector) for x in (scale, constant))

    def group(carried: list[Any]) -> list[Any]:
        positions_at, words_at, start_at, out_at = carried
        chosen = [b.load(code.at(positions_at, 8 * n, WORD), align=8) for n in range(LANES)]
        rows = [b.add(table, b.mul(b.and_(row, mask), row_bytes)) for row in chosen]
        factors = [words_at]
        for _ in range(1, LANES):
            factors.append(b.add(factors[-1], row_bytes))

        def part(carried: list[Any]) -> list[Any]:
            at, left, *totals = carried
            there = b.icmp_signed("<", lanes, code.spread(left, _SUMS))
            products = [
                b.mul(*(_masked(code, b.add(x, at), vector, there) for x in pair))
                for pair in zip(rows, factors, strict=True)
            ]
            after = [b.add(total, x) for total, x in zip(totals, products, strict=True)]
            return [b.add(at, WORD(LANES * size)), b.sub(left, WORD(LANES)), *after]

        nothing = ir.Constant(vector, None)
        _, _, *totals = code.loop("part", parts, [WORD(0), width, *[nothing] * LANES], part)
        total = _transposed_sum(code, totals)
        begun = b.load(code.at(start_at, 0, vector), align=size)
        total = b.add(total, b.mul(begun, factor))
        b.store(b.add(total, addend), code.at(out_at, 0, vector), align=size)
        step = WORD(size * LANES)
        return [
            b.add(positions_at, WORD(8 * LANES)), b.add(factors[-1], row_bytes), b.add(start_at, step),
            b.add(out_at, step),
        ]  # fmt: skip

    code.loop("group", groups, [positions, words, start, out], group)


def _masked(code: Code, address: Any, vector: Any, there: Any) -> Any:
    """The lanes that are there, and zeros."""
    size = vector.element.width // 8
    name = f"llvm.masked.load.v{LANES}i{8 * size}.p0"
    return code.intrinsic(
        name, vector, code.at(address, 0, vector), HALF(size), there, ir.Constant(vector, None)
    )


def _transposed_sum(code: Code, vectors: list[Any]) -> Any:
    """The vector whose lane n is the sum of vector n's lanes."""
    b = code.builder
    distance = 1
    while len(vectors) > 1:
        # Lane j takes of vector 2 i or 2 i + 1, as j's bit says, its own and its partner's.
        own = [j + LANES if j & distance else j for j in range(LANES)]
        partner = [j ^ distance if not j & distance else (j ^ distance) + LANES for j in range(LANES)]
        orders = [ir.Constant(ir.VectorType(HALF, LANES), order) for order in (own, partner)]
        vectors = [
            b.add(*(b.shuffle_vector(x, y, order) for order in orders))
            for x, y in zip(vectors[::2], vectors[1::2], strict=True)
        ]
        distance *= 2
    return vectors[0]
