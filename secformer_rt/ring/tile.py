"""The innermost loops of the ring matmul, written in LLVM IR.

Winograd's inner product (1968) halves the multiplications. With k taken in pairs,

    sum (a1 + b2) * (a2 + b1)  =  sum (a1 * b1 + a2 * b2)  +  sum a1 * a2  +  sum b1 * b2,

where the last two sums, the terms, belong to a row of A or a column of B alone. All of it is exact modulo
2^64.

Where the processor has no 64-bit vector product, x * y is taken as lo(x) * lo(y) + 2^32 * (lo(x) * hi(y) +
hi(x) * lo(y)): one widening product, and one 32-bit product of x with y whose halves are exchanged.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import llvmlite.ir as ir  # type: ignore[import-untyped]

WORD = ir.IntType(64)
HALF = ir.IntType(32)

# The loop over k is unrolled to this; shorter operands are padded with zeros, which add nothing.
DEPTH_STEP = 4


@dataclass(frozen=True, slots=True)
class Tile:
    """A block of C held in registers: ``rows`` x (``vectors`` * ``lanes``) words."""

    rows: int
    vectors: int
    lanes: int
    halves: bool
    size: int = 8  # bytes of a word

    @property
    def columns(self) -> int:
        """Columns of C that one tile covers."""
        return self.vectors * self.lanes


SPLIT = Tile(rows=2, vectors=2, lanes=4, halves=True)
WIDE = Tile(rows=8, vectors=2, lanes=8, halves=False)
SPLIT_HALF = Tile(rows=4, vectors=2, lanes=8, halves=False, size=4)
WIDE_HALF = Tile(rows=8, vectors=2, lanes=16, halves=False, size=4)


class _Emitter:
    """Emits vector code for a tile into a function under construction."""

    def __init__(self, builder: Any, tile: Tile) -> None:
        self.builder = builder
        self.tile = tile
        self.word = ir.IntType(8 * tile.size)
        self.vector = ir.VectorType(self.word, tile.lanes)
        self.half_vector = ir.VectorType(HALF, 2 * tile.lanes)
        self.zeros = [ir.Constant(kind, None) for kind in (self.vector, self.half_vector)[: 1 + tile.halves]]

    def at(self, address: Any, offset: int, kind: Any) -> Any:
        moved = self.builder.add(address, WORD(offset))
        return self.builder.inttoptr(moved, kind.as_pointer())

    def broadcast(self, address: Any, offset: int) -> Any:
        undefined = ir.Constant(self.vector, ir.Undefined)
        word = self.builder.load(self.at(address, offset, self.word), align=self.tile.size)
        first = self.builder.insert_element(undefined, word, HALF(0))
        lanes = ir.Constant(ir.VectorType(HALF, self.tile.lanes), None)
        return self.builder.shuffle_vector(first, undefined, lanes)

    def places(self, address: Any) -> list[Any]:
        size = self.tile.size * self.tile.lanes
        return [self.at(address, v * size, self.vector) for v in range(self.tile.vectors)]

    def load(self, address: Any) -> list[Any]:
        return [self.builder.load(place, align=self.tile.size) for place in self.places(address)]

    def store(self, values: list[Any], address: Any) -> None:
        for value, place in zip(values, self.places(address), strict=True):
            self.builder.store(value, place, align=self.tile.size)

    def multiply_add(self, sums: list[Any], x: Any, y: Any) -> list[Any]:
        """Add the products of two vectors to sums: [words], or [low products, cross products]."""
        b = self.builder
        if not self.tile.halves:
            return [b.add(sums[0], b.mul(x, y))]
        low = ir.Constant(self.vector, [2**32 - 1] * self.tile.lanes)
        swap = [lane ^ 1 for lane in range(2 * self.tile.lanes)]
        undefined = ir.Constant(self.half_vector, ir.Undefined)
        order = ir.Constant(ir.VectorType(HALF, 2 * self.tile.lanes), swap)
        swapped = b.shuffle_vector(b.bitcast(y, self.half_vector), undefined, order)
        product = b.mul(b.and_(x, low), b.and_(y, low))
        cross = b.mul(b.bitcast(x, self.half_vector), swapped)
        return [b.add(sums[0], product), b.add(sums[1], cross)]

    def combine(self, sums: list[Any]) -> Any:
        if not self.tile.halves:
            return sums[0]
        b = self.builder
        cross = b.bitcast(sums[1], self.vector)
        even = b.shl(cross, ir.Constant(self.vector, [32] * self.tile.lanes))
        odd = b.and_(cross, ir.Constant(self.vector, [2**64 - 2**32] * self.tile.lanes))
        return b.add(sums[0], b.add(even, odd))

    def loop(
        self, name: str, trips: Any, starts: list[Any], step: Callable[[list[Any]], list[Any]]
    ) -> list[Any]:
        """Run ``step`` on carried values ``trips`` > 0 times; returns the values after the last."""
        b = self.builder
        entry = b.block
        body = b.append_basic_block(name)
        done = b.append_basic_block(f"{name}.done")
        b.branch(body)
        b.position_at_end(body)
        left = b.phi(WORD)
        carried = [b.phi(start.type) for start in starts]
        after = step(list(carried))
        left_after = b.sub(left, WORD(1))
        for phi, start, value in zip([left, *carried], [trips, *starts], [left_after, *after], strict=True):
            phi.add_incoming(start, entry)
            phi.add_incoming(value, body)
        b.cbranch(b.icmp_signed("!=", left_after, WORD(0)), body, done)
        b.position_at_end(done)
        return after


def _emit_pack(emitter: _Emitter, source: Any, stride: Any, out: Any, depth: Any) -> None:
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


def _emit_rows(emitter: _Emitter, rows: int, a: Any, b: Any, c: Any, c_stride: Any, depth: Any) -> None:
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


def _emit_multiply(emitter: _Emitter, *arguments: Any) -> None:
    *operands, rows = arguments
    builder = emitter.builder
    end = builder.append_basic_block("end")
    switch = builder.switch(rows, end)
    for count in range(1, emitter.tile.rows + 1):
        case = builder.append_basic_block(f"case{count}")
        switch.add_case(WORD(count), case)
        builder.position_at_end(case)
        _emit_rows(emitter, count, *operands)
        builder.branch(end)
    builder.position_at_end(end)


@dataclass(frozen=True, slots=True)
class CompiledTile:
    """Two C functions of 64-bit integers; ``.address`` of either is what the matmul calls.

    ``multiply(a, b, c, c_stride, depth, rows)`` adds a product to C. ``a`` is the address of ``rows`` terms
    and then of ``depth`` times ``rows`` words, ``b`` of ``columns`` terms and then of ``depth`` times
    ``columns`` words, ``c`` of a corner of C with ``c_stride`` bytes from row to row. ``rows`` is 1 to
    ``tile.rows``, ``depth`` a positive multiple of ``DEPTH_STEP``.

    ``pack(source, stride, out, depth)`` copies ``depth`` rows of ``columns`` words, ``stride`` bytes apart,
    to what ``multiply`` takes as ``b``; the source may be where the copy goes.
    """

    tile: Tile
    multiply: Any
    pack: Any


@functools.cache
def compile_tile(tile: Tile) -> CompiledTile:
    """Compile the functions of a tile, in some tenths of a second."""
    numba: Any = importlib.import_module("numba")
    extending: Any = importlib.import_module("numba.extending")

    def emitted(emit: Callable[..., None], count: int) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, values: list[Any]) -> Any:
            emit(_Emitter(builder, tile), *values)
            return context.get_dummy_value()

        return numba.void(*[numba.int64] * count), generate

    def multiply_body(_typing: Any, a: Any, b: Any, c: Any, c_stride: Any, depth: Any, rows: Any) -> Any:
        return emitted(_emit_multiply, 6)

    def pack_body(_typing: Any, source: Any, stride: Any, out: Any, depth: Any) -> Any:
        return emitted(_emit_pack, 4)

    multiply, pack = extending.intrinsic(multiply_body), extending.intrinsic(pack_body)
    return CompiledTile(
        tile,
        numba.cfunc(numba.void(*[numba.int64] * 6))(
            lambda a, b, c, c_stride, depth, rows: multiply(a, b, c, c_stride, depth, rows)
        ),
        numba.cfunc(numba.void(*[numba.int64] * 4))(
            lambda source, stride, out, depth: pack(source, stride, out, depth)
        ),
    )
