"""The tiles of the ring matmul, and the functions that each is compiled to."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from secformer_rt.ring import dots, winograd
from secformer_rt.ring.emitter import WORD, Emitter, Tile
from secformer_rt.ring.native import compiled_function

SPLIT = Tile(rows=2, vectors=2, lanes=4, halves=True)
WIDE = Tile(rows=8, vectors=2, lanes=8)
SPLIT_HALF = Tile(rows=4, vectors=2, lanes=8, size=4)
WIDE_HALF = Tile(rows=8, vectors=2, lanes=16, size=4)
DOT_HALF = Tile(rows=6, vectors=2, lanes=16, size=4, dots=True)
NARROW_DOT_HALF = Tile(rows=2, vectors=2, lanes=8, size=4, dots=True)


def _way(tile: Tile) -> ModuleType:
    return dots if tile.dots else winograd


def _emit_multiply(emitter: Emitter, *arguments: Any) -> None:
    *operands, rows = arguments
    builder = emitter.builder
    end = builder.append_basic_block("end")
    switch = builder.switch(rows, end)
    for count in range(1, emitter.tile.rows + 1):
        case = builder.append_basic_block(f"case{count}")
        switch.add_case(WORD(count), case)
        builder.position_at_end(case)
        _way(emitter.tile).rows_of(emitter, count, *operands)
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

    def emitted(emit: Callable[..., None]) -> Callable[..., None]:
        return lambda builder, *operands: emit(Emitter(builder, tile), *operands)

    return CompiledTile(
        tile, compiled_function(emitted(_emit_multiply), 6), compiled_function(emitted(_way(tile).pack), 4)
    )
