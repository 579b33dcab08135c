"""Products by Winograd's inner product (1968), which halves the multiplications.

With k taken in pairs,

    sum (a1 + b2) * (a2 + b1)  =  sum (a1 * b1 + a2 * b2)  +  sum a1 * a2  +  sum b1 * b2,

where the last two sums, the terms, belong to a row of A or a column of B alone. All of it is exact modulo
2^64 or 2^32.

Where the processor has no 64-bit vector product, x * y is taken as lo(x) * lo(y) + 2^32 * (lo(x) * hi(y) +
hi(x) * lo(y)): one widening product, and one 32-bit product of x with y whose halves are exchanged.
"""

from __future__ import annotations

from typing import Any

from secformer_rt.ring.emitter import DEPTH_STEP, WORD, Emitter


def pack(emitter: Emitter, source: Any, stride: Any, out: Any, depth: Any) -> None:
    """Lay out a panel of B: its terms, then its words as they are."""
    b, tile = emitter.builder, emitter.tile
    parts = len(emitter.zeros)

    def step(carried: list[Any]) -> list[Any]:
        source_at, out_at, *sums = carried
        next_source = b.add(source_at, stride)
        first, second = emitter.load(source_at), emitter.load(next_source)
        emitter.store(first, out_at)
        emitter.store(second, b.add(out_at, WORD(tile.size * tile.columns)))
        after = [b.add(next_source, stride), b.add(out_at, WORD(2 * tile.size * tile.columns))]
        for v in range(tile.vectors):
            after += emitter.multiply_add(sums[v * parts : (v + 1) * parts], first[v], second[v])
        return after

    starts = [source, b.add(out, WORD(tile.size * tile.columns)), *emitter.zeros * tile.vectors]
    _, _, *sums = emitter.loop("pack", b.lshr(depth, WORD(1)), starts, step)
    terms = [emitter.combine(sums[v * parts : (v + 1) * parts]) for v in range(tile.vectors)]
    emitter.store(terms, out)


def rows_of(emitter: Emitter, rows: int, a: Any, b: Any, c: Any, c_stride: Any, depth: Any) -> None:
    """Add the product of ``rows`` rows of A and a panel of B to C; see ``tile.CompiledTile``."""
    builder, tile, size = emitter.builder, emitter.tile, emitter.tile.size
    parts = len(emitter.zeros)

    def step(carried: list[Any]) -> list[Any]:
        a_at, b_at, *sums = carried
        for _ in range(DEPTH_STEP // 2):
            first, second = emitter.load(b_at), emitter.load(builder.add(b_at, WORD(size * tile.columns)))
            for r in range(rows):
                a1, a2 = emitter.broadcast(a_at, size * r), emitter.broadcast(a_at, size * (rows + r))
                for v in range(tile.vectors):
                    at = (r * tile.vectors + v) * parts
                    x, y = builder.add(a1, second[v]), builder.add(a2, first[v])
                    sums[at : at + parts] = emitter.multiply_add(sums[at : at + parts], x, y)
            a_at = builder.add(a_at, WORD(2 * tile.size * rows))
            b_at = builder.add(b_at, WORD(2 * tile.size * tile.columns))
        return [a_at, b_at, *sums]

    trips = builder.udiv(depth, WORD(DEPTH_STEP))
    starts = [builder.add(a, WORD(tile.size * rows)), builder.add(b, WORD(tile.size * tile.columns))]
    starts += emitter.zeros * (rows * tile.vectors)
    _, _, *sums = emitter.loop(f"rows{rows}", trips, starts, step)
    column_terms = emitter.load(b)
    for r in range(rows):
        row_term = emitter.broadcast(a, tile.size * r)
        row = builder.add(c, builder.mul(WORD(r), c_stride))
        totals = []
        for v, held in enumerate(emitter.load(row)):
            at = (r * tile.vectors + v) * parts
            terms = builder.add(row_term, column_terms[v])
            product = builder.sub(emitter.combine(sums[at : at + parts]), terms)
            totals.append(builder.add(held, product))
        emitter.store(totals, row)
