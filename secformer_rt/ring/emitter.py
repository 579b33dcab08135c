"""What the innermost loops of the ring matmul are made of: tiles, and vector code for them in LLVM IR."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import llvmlite.ir as ir  # type: ignore[import-untyped]

WORD = ir.IntType(64)
HALF = ir.IntType(32)
QUARTER = ir.IntType(16)

# Products of neighbouring 16-bit numbers, two added up, by the lanes of a vector of sums.
_DOTS = {8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}

# The loop over k is unrolled to this; shorter operands are padded with zeros, which add nothing.
DEPTH_STEP = 4


@dataclass(frozen=True, slots=True)
class Tile:
    """A block of C held in registers: ``rows`` x (``vectors`` * ``lanes``) words."""

    rows: int
    vectors: int
    lanes: int
    halves: bool = False  # 64-bit products from 32-bit halves
    dots: bool = False  # 32-bit products from dot products of 16-bit halves
    size: int = 8  # bytes of a word

    @property
    def columns(self) -> int:
        """Columns of C that one tile covers."""
        return self.vectors * self.lanes


class Code:
    """Emits addresses, instructions and loops into a function under construction."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def at(self, address: Any, offset: int, kind: Any) -> Any:
        """A pointer to what lies ``offset`` bytes after an address."""
        moved = self.builder.add(address, WORD(offset))
        return self.builder.inttoptr(moved, kind.as_pointer())

    def intrinsic(self, name: str, result: Any, *operands: Any) -> Any:
        """Call one of LLVM's own functions, which stand for instructions of a processor."""
        module = self.builder.module
        function = module.globals.get(name)
        if function is None:
            kind = ir.FunctionType(result, [operand.type for operand in operands])
            function = ir.Function(module, kind, name)
        return self.builder.call(function, operands)

    def spread(self, word: Any, vector: Any) -> Any:
        """A word in every lane of a vector of this type."""
        undefined = ir.Constant(vector, ir.Undefined)
        first = self.builder.insert_element(undefined, word, HALF(0))
        everywhere = ir.Constant(ir.VectorType(HALF, vector.count), None)
        return self.builder.shuffle_vector(first, undefined, everywhere)

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
        end = b.block  # of the body, which may have loops of its own
        for phi, start, value in zip([left, *carried], [trips, *starts], [left_after, *after], strict=True):
            phi.add_incoming(start, entry)
            phi.add_incoming(value, end)
        b.cbranch(b.icmp_signed("!=", left_after, WORD(0)), body, done)
        b.position_at_end(done)
        return after


class Emitter(Code):
    """Emits vector code for a tile as well."""

    def __init__(self, builder: Any, tile: Tile) -> None:
        super().__init__(builder)
        self.tile = tile
        self.word = ir.IntType(8 * tile.size)
        self.vector = ir.VectorType(self.word, tile.lanes)
        self.half_vector = ir.VectorType(HALF, 2 * tile.lanes)
        kinds = [self.vector, *[self.half_vector] * tile.halves, *[self.vector] * tile.dots]
        self.zeros = [ir.Constant(kind, None) for kind in kinds]

    def broadcast(self, address: Any, offset: int) -> Any:
        """The word there, in every lane."""
        align = 2 if self.tile.dots else self.tile.size
        return self.spread(self.builder.load(self.at(address, offset, self.word), align=align), self.vector)

    def places(self, address: Any) -> list[Any]:
        """Pointers to the vectors of a row of the tile."""
        size = self.tile.size * self.tile.lanes
        return [self.at(address, v * size, self.vector) for v in range(self.tile.vectors)]

    def load(self, address: Any) -> list[Any]:
        """A row of the tile."""
        return [self.builder.load(place, align=self.tile.size) for place in self.places(address)]

    def store(self, values: list[Any], address: Any) -> None:
        """Write a row of the tile."""
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

    def dot(self, total: Any, x: Any, y: Any) -> Any:
        """Add the products of the low halves and those of the high halves to a vector of sums."""
        b, lanes = self.builder, self.tile.lanes
        halves = ir.VectorType(QUARTER, 2 * lanes)
        products = self.intrinsic(_DOTS[lanes], self.vector, b.bitcast(x, halves), b.bitcast(y, halves))
        # Where the processor has one instruction for both, LLVM takes it.
        return b.add(total, products)

    def low_halves(self, x: Any, y: Any) -> Any:
        """The low halves of x and the high halves of y."""
        b = self.builder
        low, high = (ir.Constant(self.vector, [mask] * self.tile.lanes) for mask in (0xFFFF, 0xFFFF0000))
        return b.or_(b.and_(x, low), b.and_(y, high))

    def combine(self, sums: list[Any]) -> Any:
        """The words that the sums of :meth:`multiply_add` or :meth:`dot` are."""
        b = self.builder
        if self.tile.dots:
            return b.add(sums[0], b.shl(sums[1], ir.Constant(self.vector, [16] * self.tile.lanes)))
        if not self.tile.halves:
            return sums[0]
        cross = b.bitcast(sums[1], self.vector)
        even = b.shl(cross, ir.Constant(self.vector, [32] * self.tile.lanes))
        odd = b.and_(cross, ir.Constant(self.vector, [2**64 - 2**32] * self.tile.lanes))
        return b.add(sums[0], b.add(even, odd))
