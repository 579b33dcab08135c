"""Products modulo 2^32 by dot products of 16-bit halves.

A processor with such an instruction adds two products to a 32-bit sum at once. With a = lo(a) + 2^16 hi(a),
lo(a) signed, and k taken in pairs,

    sum a1 b1 + a2 b2  =  sum lo(a1) lo(b1) + lo(a2) lo(b2)  +  2^16 * sum lo(a) hi(b) + hi(a) lo(b),

so two words take three: one for the low halves of the pair, and one for the cross terms of either word. The
halves of a row's pair lie as hi(a1), lo(a1), lo(a2), hi(a2), those of a column's as lo(b1), hi(b1), hi(b2),
lo(b2), so that all three are neighbours. There are no terms: their places are not read.
"""

from __future__ import annotations

from typing import Any

import llvmlite.ir as ir  # type: ignore[import-untyped]

from secformer_rt.ring.emitter import DEPTH_STEP, WORD, Emitter


def pack(emitter: Emitter, source: Any, stride: Any, out: Any, depth: Any) -> None:
    """Lay out a panel of B: low halves made signed, the second word of a pair with its halves exchanged."""
    b, tile = emitter.builder, emitter.tile
    sign, one, half = (ir.Constant(emitter.vector, [n] * tile.lanes) for n in (0x8000, 1, 16))

    def step(carried: list[Any]) -> list[Any]:
        source_at, out_at = carried
        next_source = b.add(source_at, stride)
        first, second = (
            [b.add(x, b.shl(b.and_(x, sign), one)) for x in emitter.load(at)]
            for at in (source_at, next_source)
        )
        second = [b.or_(b.shl(x, half), b.lshr(x, half)) for x in second]
        emitter.store(first, out_at)
        emitter.store(second, b.add(out_at, WORD(tile.size * tile.columns)))
        return [b.add(next_source, stride), b.add(out_at, WORD(2 * tile.size * tile.columns))]

    starts = [source, b.add(out, WORD(tile.size * tile.columns))]
    emitter.loop("pack", b.lshr(depth, WORD(1)), starts, step)


def rows_of(emitter: Emitter, rows: int, a: Any, b: Any, c: Any, c_stride: Any, depth: Any) -> None:
    """Add the product of ``rows`` rows of A and a panel of B to C; see ``tile.CompiledTile``."""
    builder, tile, size = emitter.builder, emitter.tile, emitter.tile.size
    pair = 2 * size

    def step(carried: list[Any]) -> list[Any]:
        a_at, b_at, *sums = carried
        for _ in range(DEPTH_STEP // 2):
            first, second = emitter.load(b_at), emitter.load(builder.add(b_at, WORD(size * tile.columns)))
            lows = [emitter.low_halves(x, y) for x, y in zip(first, second, strict=True)]
            for r in range(rows):
                # The halves of a pair lie as hi(a1), lo(a1), lo(a2), hi(a2).
                a1, low, a2 = (emitter.broadcast(a_at, pair * r + half) for half in (0, 2, 4))
                for v in range(tile.vectors):
                    at = (r * tile.vectors + v) * 2
                    sums[at] = emitter.dot(sums[at], low, lows[v])
                    sums[at + 1] = emitter.dot(emitter.dot(sums[at + 1], a1, first[v]), a2, second[v])
            a_at = builder.add(a_at, WORD(pair * rows))
            b_at = builder.add(b_at, WORD(pair * tile.columns))
        return [a_at, b_at, *sums]

    trips = builder.udiv(depth, WORD(DEPTH_STEP))
    starts = [builder.add(a, WORD(size * rows)), builder.add(b, WORD(size * tile.columns))]
    starts += emitter.zeros * (rows * tile.vectors)
    _, _, *sums = emitter.loop(f"rows{rows}", trips, starts, step)
    for r in range(rows):
        row = builder.add(c, builder.mul(WORD(r), c_stride))
        held = emitter.load(row)
        totals = []
        for v in range(tile.vectors):
            at = (r * tile.vectors + v) * 2
            totals.append(builder.add(held[v], emitter.combine(sums[at : at + 2])))
        emitter.store(totals, row)
