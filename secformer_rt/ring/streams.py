"""Streams of low bits, eight words at a time: eight words of w bits take w bytes.

A lane of 16 bytes holds two neighbours; of the four of a group, lane L begins in byte 2 L w // 8. To read,
its bytes are shuffled so that eight bytes of each word are a half, and shifted; a ninth byte is shuffled and
shifted by itself. To write, words are shifted and shuffled together, and a lane adds the bits of the
byte that it shares with the one before. So words have up to 62 bits, because two of 63 may take 17
bytes, and at least 4, for lanes to begin in bytes of their own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import llvmlite.ir as ir  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

from secformer_rt.ring.emitter import HALF, WORD, Code
from secformer_rt.ring.jit import has
from secformer_rt.ring.native import Compiled, compile_functions

_GROUP, _LANE = 8, 16  # words of a group, bytes of a lane
_WORDS, _PAIR = ir.VectorType(WORD, 4), ir.VectorType(WORD, 2)
_BYTES = ir.VectorType(ir.IntType(8), 2 * _LANE)
_NOTHING = 0x80  # in a shuffle: a byte of zeros

# Where a table has what: the bytes where lanes begin, the words' shifts, and shuffles of a group.
_STARTS, _SHIFTS, _READ, _FIRST, _SECOND, _SHARED, _BACK, _NINTH, _PLACE, _END = 0, *range(32, 545, 64)


def suits(bits: int) -> bool:
    """Whether the words of a stream of this width can be read and written so, on this machine."""
    return 4 <= bits <= 62 and has("avx2")


@functools.cache
def table(bits: int) -> NDArray[np.int64]:
    """What the functions have to know of a width that :func:`suits`."""
    begins = [j * bits // 8 for j in range(_GROUP)]
    shuffles = np.full(_END, _NOTHING, np.uint8)
    shuffles[_STARTS:_SHIFTS].view(np.int64)[:] = begins[::2]
    shuffles[_SHIFTS:_READ].view(np.int64)[:] = [j * bits % 8 for j in range(_GROUP)]
    shuffles[_BACK:_NINTH].view(np.int64)[:] = [63 - j * bits % 8 for j in range(_GROUP)]
    for j, begin in enumerate(begins):
        lane, half = divmod(j, 2)
        place = begin - begins[2 * lane]
        shuffles[_READ + 8 * j :][:8] = range(place, place + 8)
        if j * bits % 8 + bits > 64:
            shuffles[_NINTH + 8 * j] = place + 8
            shuffles[_PLACE + _LANE * lane + place + 8] = 8 * half
        shuffles[(_SECOND if half else _FIRST) + _LANE * lane + place :][:8] = range(8 * half, 8 * half + 8)
    for lane in range(1, 4):
        if 2 * lane * bits % 8:
            shuffles[_SHARED + _LANE * lane] = begins[2 * lane] - begins[2 * lane - 2]
    return shuffles.view(np.int64)


@functools.cache
def compile_streams() -> Compiled:
    """Functions of addresses, a number of groups, the bits of a word, and its table.

    ``read(stream, out, groups, bits, table)`` and ``read_sum(stream, other, out, ...)`` write words, and read
    to the end of the last lane; ``read_onto(stream, other, words, out, ..., shift)`` writes the words plus
    ``2^shift`` times the sums. ``write(words, out, ...)``, ``write_difference(words, masks, out, ...)``,
    ``write_sum(words, masks, out, ..., cut, up)`` and ``write_chosen(words, bits, numbers, out, ..., ring)``
    write a stream, to the end of the last lane too; the sums are those of ``(word + up) >> cut`` and a mask,
    or of a word and a bit where a number of ``ring`` bits has its upper one clear. ``write_narrow_sum`` is
    ``write_sum`` of words of 32 bits, ``write_narrow_difference`` is ``write_difference`` of masks of 32.
    """
    return compile_functions(
        (lambda b, x, *rest: _read(Code(b), [x], None, *rest), 5),
        (lambda b, x, y, *rest: _read(Code(b), [x, y], None, *rest), 6),
        (lambda b, x, y, *rest: _read(Code(b), [x, y], *rest), 8),
        (lambda b, x, *rest: _write(Code(b), [x], *rest), 5),
        (lambda b, x, y, *rest: _write(Code(b), [x, y], *rest), 8),
        (lambda b, x, y, *rest: _write(Code(b), [x, y], *rest, less=True), 6),
        (lambda b, x, y, z, *rest: _write_chosen(Code(b), [x, y, z], *rest), 8),
        (lambda b, x, y, *rest: _write(Code(b), [x, y], *rest, sizes=(4, 8)), 8),
        (lambda b, x, y, *rest: _write(Code(b), [x, y], *rest, sizes=(8, 4), less=True), 6),
    )


def _read(
    code: Code, sources: list[Any], onto: Any, out: Any, groups: Any, bits: Any, table: Any, shift: Any = None
) -> None:
    """The words of a stream, or the sums of two streams' words; shifted and added to words, if so asked."""
    b = code.builder
    kept = _kept(code, bits)
    raised = None if shift is None else code.spread(shift, _WORDS)
    starts = [b.load(code.at(table, _STARTS + 8 * lane, WORD)) for lane in range(4)]
    shifts, back, eight, ninth = (_vectors(code, table, at) for at in (_SHIFTS, _BACK, _READ, _NINTH))
    one = ir.Constant(_WORDS, [1] * 4)
    both = ir.Constant(ir.VectorType(HALF, 4), [0, 1, 2, 3])

    def step(carried: list[Any]) -> list[Any]:
        *sources_at, onto_at, out_at = carried
        for half in range(2):
            total = None
            for source in sources_at:
                lanes = [
                    b.load(code.at(b.add(source, start), 0, _PAIR), align=1)
                    for start in starts[2 * half : 2 * half + 2]
                ]
                lane_bytes = b.shuffle_vector(*lanes, both)
                words = b.lshr(_shuffled(code, lane_bytes, eight[half]), shifts[half])
                # Shifting by 64 is not defined: by 1 and by at most 63.
                above = b.shl(_shuffled(code, lane_bytes, ninth[half]), one)
                words = b.or_(words, b.shl(above, back[half]))
                total = words if total is None else b.add(total, words)
            found = b.and_(total, kept)
            if raised is not None:
                words = b.load(code.at(onto_at, 32 * half, _WORDS), align=8)
                found = b.add(words, b.shl(found, raised))
            b.store(found, code.at(out_at, 32 * half, _WORDS), align=8)
        ends = (b.add(x, WORD(8 * _GROUP)) for x in (onto_at, out_at))
        return [*(b.add(x, bits) for x in sources_at), *ends]

    code.loop("read", groups, [*sources, out if onto is None else onto, out], step)


def _write(
    code: Code, sources: list[Any], out: Any, groups: Any, bits: Any, table: Any, cut: Any = None,
    up: Any = None, *, less: bool = False, sizes: tuple[int, ...] | None = None,
) -> None:  # fmt: skip
    """The stream of words, of sums or of differences, of words of so many bytes."""
    b = code.builder
    shifted = None if cut is None else [code.spread(number, _WORDS) for number in (up, cut)]

    def word(words: Any, *masks: Any) -> Any:
        if shifted is not None:
            words = b.lshr(b.add(words, shifted[0]), shifted[1])
        for mask in masks:
            words = (b.sub if less else b.add)(words, mask)
        return words

    _write_words(code, sources, word, out, groups, bits, table, sizes)


def _write_chosen(
    code: Code, sources: list[Any], out: Any, groups: Any, bits: Any, table: Any, ring: Any
) -> None:
    """The stream of words, with bits added where a number's upper bit is clear."""
    b = code.builder
    one = ir.Constant(_WORDS, [1] * 4)
    place = code.spread(b.sub(ring, WORD(1)), _WORDS)

    def word(words: Any, bit: Any, number: Any) -> Any:
        where_clear = b.sub(b.and_(b.lshr(number, place), one), one)
        return b.add(words, b.and_(where_clear, bit))

    _write_words(code, sources, word, out, groups, bits, table)


def _write_words(
    code: Code, sources: list[Any], word: Callable[..., Any], out: Any, groups: Any, bits: Any, table: Any,
    sizes: tuple[int, ...] | None = None,
) -> None:  # fmt: skip
    """The stream of what ``word`` makes of the sources' words, of eight bytes if not told otherwise."""
    b = code.builder
    kept = _kept(code, bits)
    starts = [b.load(code.at(table, _STARTS + 8 * lane, WORD)) for lane in range(4)]
    shifts, back, first, second, shared, place = (
        _vectors(code, table, at) for at in (_SHIFTS, _BACK, _FIRST, _SECOND, _SHARED, _PLACE)
    )
    one = ir.Constant(_WORDS, [1] * 4)
    nothing = ir.Constant(_WORDS, None)
    # The lane before each: that of the half before, and the first of this one.
    before = ir.Constant(ir.VectorType(HALF, 4), [2, 3, 4, 5])
    low, high = (ir.Constant(ir.VectorType(HALF, 2), pair) for pair in ([0, 1], [2, 3]))

    sizes = sizes or (8,) * len(sources)

    def step(carried: list[Any]) -> list[Any]:
        *sources_at, out_at = carried
        previous = nothing
        for half in range(2):
            words = word(*(_four(code, x, half, size) for x, size in zip(sources_at, sizes, strict=True)))
            words = b.and_(words, kept)
            above = b.lshr(b.lshr(words, one), back[half])
            words = b.shl(words, shifts[half])
            lanes = b.or_(_shuffled(code, words, first[half]), _shuffled(code, words, second[half]))
            lanes = b.or_(lanes, _shuffled(code, above, place[half]))
            neighbours = b.shuffle_vector(previous, lanes, before)
            whole = b.or_(lanes, _shuffled(code, neighbours, shared[half]))
            previous = lanes
            for lane, which in enumerate((low, high)):
                target = code.at(b.add(out_at, starts[2 * half + lane]), 0, _PAIR)
                b.store(b.shuffle_vector(whole, whole, which), target, align=1)
        ends = (b.add(x, WORD(size * _GROUP)) for x, size in zip(sources_at, sizes, strict=True))
        return [*ends, b.add(out_at, bits)]

    code.loop("write", groups, [*sources, out], step)


def _four(code: Code, source: Any, half: int, size: int) -> Any:
    """Four words of a group, of ``size`` bytes each."""
    kind = _WORDS if size == 8 else ir.VectorType(HALF, 4)
    words = code.builder.load(code.at(source, 4 * size * half, kind), align=size)
    return words if size == 8 else code.builder.sext(words, _WORDS)


def _vectors(code: Code, table: Any, offset: int) -> list[Any]:
    """The two vectors of a group there."""
    return [code.builder.load(code.at(table, offset + 32 * half, _WORDS), align=8) for half in range(2)]


def _kept(code: Code, bits: Any) -> Any:
    """The low bits, in every word of a vector."""
    b = code.builder
    return code.spread(b.sub(b.shl(WORD(1), bits), WORD(1)), _WORDS)


def _shuffled(code: Code, words: Any, order: Any) -> Any:
    """The bytes of two lanes, each in an order of its own."""
    b = code.builder
    lanes, places = b.bitcast(words, _BYTES), b.bitcast(order, _BYTES)
    return b.bitcast(code.intrinsic("llvm.x86.avx2.pshuf.b", _BYTES, lanes, places), _WORDS)
