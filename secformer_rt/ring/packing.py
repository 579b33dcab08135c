"""The wire format of openings and corrections: words as a stream of their low bits, the lowest first.

A stream is an array of bytes: in the middle of a round it costs far less to cut and to send than a tensor.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secformer_rt.ring.buffers import whole_words
from secformer_rt.ring.jit import as_flat, compiled
from secformer_rt.ring.words import WORD_BITS, add, add_chosen, add_raised, check_shapes

Stream = NDArray[np.uint8]

SPARE_WORDS = 3  # behind a stream, for compiled functions write more than is its own


def packed_size(count: int, bits: int) -> int:
    """Bytes that ``count`` words of ``bits`` bits take on the wire."""
    if not 1 <= bits <= WORD_BITS:
        raise ValueError(f"bits must be between 1 and {WORD_BITS}, not {bits}")
    return (count * bits + 7) // 8


def room_words(size: int) -> int:
    """Words of memory that a stream of so many bytes is written to."""
    return 8 * whole_words(size) // WORD_BITS + SPARE_WORDS


def pack_words(
    x: Tensor,
    bits: int,
    mask: Tensor | None = None,
    cut: int = 0,
    up: int = 0,
    out: NDArray[np.uint64] | None = None,
) -> Stream:
    """The low bits of every word, one after the other, the lowest bit first.

    Args:
        x: int64 tensor of any shape, or int32.
        bits: 1 to 64; bits beyond the last word's in the last byte are zero.
        mask: int64 tensor of the same shape; if given, the words are those of ``((x + up) >> cut) + mask``.
        cut: 0 to ``64 - bits``; not without a mask.
        up: 0 or more.
        out: at least :func:`room_words` words, which the result may lie in; new memory if not given.

    Returns:
        packed_size(x.numel(), bits) bytes. At 64 bits, without a mask, they share x's memory if that is
        contiguous.

    Raises:
        ValueError: the mask has another shape, or so many bits cannot be cut off.
    """
    if not 0 <= cut <= WORD_BITS - bits or ((cut or up) and mask is None):
        raise ValueError(f"{cut} bits cannot be cut off words of which {bits} are kept, nor without a mask")
    if x.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"pack_words takes an int64 or int32 tensor, not {x.dtype}")
    if mask is not None and (mask.dtype != torch.int64 or mask.shape != x.shape):
        raise ValueError(f"words of shape {tuple(x.shape)} have a mask of shape {tuple(mask.shape)}")
    if x.numel() == 0:
        return np.empty(0, np.uint8)
    if x.dtype == torch.int32 and (mask is None or bits == WORD_BITS or not compiled()):
        x = x.to(torch.int64)
    if compiled() and bits < WORD_BITS:
        from secformer_rt.ring import fused_bits

        words = as_flat(x)
        words = words.view(np.uint64) if words.itemsize == 8 else words
        masks = np.empty(0, np.uint64) if mask is None else as_flat(mask).view(np.uint64)
        size, out = _room(x, bits, out)
        fused_bits.pack_words(*_fast(bits), words, masks, False, bits, cut, up, out)
        return out.view(np.uint8)[:size]
    flat = (x if mask is None else add((x + up) >> cut, mask)).reshape(-1).contiguous().numpy()
    if bits == WORD_BITS and sys.byteorder == "little":
        return flat.view(np.uint8)
    columns = flat.astype("<i8", copy=False).view(np.uint8).reshape(-1, 8)
    chosen = np.unpackbits(columns, axis=1, bitorder="little")[:, :bits]
    return np.packbits(chosen.reshape(-1), bitorder="little")


def pack_chosen(
    x: Tensor, bit: Tensor, public: Tensor, ring: int, bits: int, out: NDArray[np.uint64] | None = None
) -> Stream:
    """What :func:`pack_words` makes of ``words.add_chosen(x, bit, public, ring)``, in one pass.

    Raises:
        ValueError: the tensors have several shapes.
    """
    if bits < WORD_BITS and x.numel() and compiled():
        from secformer_rt.ring import fused_bits

        check_shapes(x, bit, public)
        words, chosen, numbers = (as_flat(t).view(np.uint64) for t in (x, bit, public))
        size, out = _room(x, bits, out)
        fused_bits.pack_chosen(*_fast(bits), words, chosen, numbers, ring, bits, out)
        return out.view(np.uint8)[:size]
    return pack_words(add_chosen(x, bit, public, ring), bits)


def pack_differences(
    x: Tensor, others: Iterable[NDArray[np.uint32] | NDArray[np.int64]], bits: int
) -> Stream:
    """What :func:`pack_words` makes of x less other words, which come in blocks of a multiple of 64.

    Args:
        x: int64 tensor of any shape.
        others: arrays of one axis, together as long as x; none is read after the next is asked for. Of uint32
            only up to 32 bits.
        bits: 1 to 64.
    """
    words = as_flat(x)
    size, out = _room(x, bits, None)
    found = out.view(np.uint8)
    at = 0
    for other in others:
        some = words[at : at + other.size]
        if compiled() and bits < WORD_BITS:
            from secformer_rt.ring import fused_bits

            stream, mine = out[at * bits // 64 :], some.view(np.uint64)
            less = other.view(np.uint64) if other.itemsize == 8 else other.view(np.int32)
            fused_bits.pack_words(*_fast(bits), mine, less, True, bits, 0, 0, stream)
        else:
            packed = pack_words(torch.from_numpy(some - other), bits)
            found[at * bits // 8 :][: packed.size] = packed
        at += other.size
    return found[:size]


def unpack_words(stream: Stream, shape: tuple[int, ...], bits: int, out: Tensor | None = None) -> Tensor:
    """Undo :func:`pack_words`.

    Args:
        stream: contiguous, of packed_size(count, bits) bytes, count being that of ``shape``.
        shape: of the result.
        bits: 1 to 64; bits beyond the last word's are ignored.
        out: a contiguous int64 tensor of this shape to write to; new memory if not given.

    Returns:
        int64 tensor with values in [0, 2^bits), at 64 bits in all of Z_2^64. At 64 bits, where no other
        place is given, it shares the stream's memory if that is aligned.

    Raises:
        ValueError: the stream has another length.
    """
    count = math.prod(shape)
    _check(count, bits, stream)
    if count == 0:
        return torch.empty(shape, dtype=torch.int64)
    if bits == WORD_BITS and sys.byteorder == "little":
        if out is not None:
            out.view(-1).numpy().view(np.uint8)[:] = stream
            return out
        words = stream.view(np.int64)
        return torch.from_numpy((words if words.flags.aligned else words.copy()).reshape(shape))
    found = np.empty(shape, np.int64) if out is None else out.numpy()
    flat = found.reshape(-1)
    if compiled():
        from secformer_rt.ring import fused_bits

        fused_bits.unpack_words(*_fast(bits), stream, bits, flat.view(np.uint64))
    else:
        columns = np.packbits(
            np.unpackbits(stream, count=count * bits, bitorder="little").reshape(count, bits),
            axis=1,
            bitorder="little",
        )
        words = np.zeros((count, 8), np.uint8)
        words[:, : columns.shape[1]] = columns
        flat[:] = words.view("<i8").reshape(-1)
    return torch.from_numpy(found) if out is None else out


def unpack_sum(first: Stream, second: Stream, shape: tuple[int, ...], bits: int) -> Tensor:
    """The sum of what :func:`unpack_words` makes of two streams, modulo ``2^bits``, in one pass.

    Args:
        first: contiguous, of packed_size(count, bits) bytes, count being that of ``shape``.
        second: likewise.
        shape: of the result.
        bits: 1 to 64.

    Returns:
        int64 tensor with values in [0, 2^bits), at 64 bits in all of Z_2^64.

    Raises:
        ValueError: a stream has another length.
    """
    count = math.prod(shape)
    if bits < WORD_BITS and count and compiled():
        from secformer_rt.ring import fused_bits

        _check(count, bits, first, second)
        found = np.empty(shape, np.int64)
        fused_bits.unpack_sum(*_fast(bits), first, second, bits, found.reshape(-1).view(np.uint64))
        return torch.from_numpy(found)
    total = add(unpack_words(first, shape, bits), unpack_words(second, shape, bits))
    return total if bits == WORD_BITS else total & ((1 << bits) - 1)


def unpack_onto(public: Tensor, shift: int, first: Stream, second: Stream, bits: int) -> Tensor:
    """``public`` plus ``2^shift`` times what :func:`unpack_sum` finds for its shape, in one pass.

    Raises:
        ValueError: a stream has another length than the tensor's words take.
    """
    shape = tuple(public.shape)
    if bits < WORD_BITS and public.numel() and compiled():
        from secformer_rt.ring import fused_bits

        _check(public.numel(), bits, first, second)
        words, found = as_flat(public).view(np.uint64), np.empty(shape, np.int64)
        flat = found.reshape(-1).view(np.uint64)
        fused_bits.unpack_onto(*_fast(bits), first, second, words, shift, bits, flat)
        return torch.from_numpy(found)
    return add_raised(public, unpack_sum(first, second, shape, bits), shift)


def _check(count: int, bits: int, *streams: Stream) -> None:
    size = packed_size(count, bits)
    for stream in streams:
        if stream.dtype != np.uint8:
            raise TypeError(f"words are unpacked from bytes, not from {stream.dtype}")
        if stream.size != size:
            raise ValueError(f"{count} words of {bits} bits take {size} bytes, not {stream.size}")


def _room(x: Tensor, bits: int, out: NDArray[np.uint64] | None) -> tuple[int, NDArray[np.uint64]]:
    """The bytes of a tensor's stream, and the words to write them to."""
    size = packed_size(x.numel(), bits)
    return size, np.empty(room_words(size), np.uint64) if out is None else out


@functools.cache
def _fast(bits: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What the compiled functions take for words of so many bits: addresses and a table, or empty arrays."""
    from secformer_rt.ring import streams

    if not streams.suits(bits):
        nothing = np.empty(0, np.int64)
        return nothing, nothing
    return streams.compile_streams().addresses, streams.table(bits)
