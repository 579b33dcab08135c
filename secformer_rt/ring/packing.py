"""The wire format of openings and corrections: words as a stream of their low bits, the lowest first."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secformer_rt.ring.buffers import check_bytes, whole_words
from secformer_rt.ring.jit import any_meta, as_flat, compiled, empty
from secformer_rt.ring.words import WORD_BITS, add, add_chosen, add_raised, check_shapes


def packed_size(count: int, bits: int) -> int:
    """Bytes that ``count`` words of ``bits`` bits take on the wire."""
    if not 1 <= bits <= WORD_BITS:
        raise ValueError(f"bits must be between 1 and {WORD_BITS}, not {bits}")
    return (count * bits + 7) // 8


def pack_words(x: Tensor, bits: int, mask: Tensor | None = None, cut: int = 0, up: int = 0) -> Tensor:
    """The low bits of every word, one after the other, the lowest bit first.

    Args:
        x: int64 tensor of any shape, or int32.
        bits: 1 to 64; bits beyond the last word's in the last byte are zero.
        mask: int64 tensor of the same shape; if given, the words are those of ``((x + up) >> cut) + mask``.
        cut: 0 to ``64 - bits``; not without a mask.
        up: 0 or more.

    Returns:
        uint8 tensor of shape (packed_size(x.numel(), bits),). At 64 bits, without a mask, it shares x's
        memory if x is contiguous.

    Raises:
        ValueError: the mask has another shape, or so many bits cannot be cut off.
    """
    if not 0 <= cut <= WORD_BITS - bits or ((cut or up) and mask is None):
        raise ValueError(f"{cut} bits cannot be cut off words of which {bits} are kept, nor without a mask")
    if x.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"pack_words takes an int64 or int32 tensor, not {x.dtype}")
    if mask is not None and (mask.dtype != torch.int64 or mask.shape != x.shape):
        raise ValueError(f"words of shape {tuple(x.shape)} have a mask of shape {tuple(mask.shape)}")
    size = packed_size(x.numel(), bits)
    if x.is_meta:
        return torch.empty(size, dtype=torch.uint8, device="meta")
    if x.numel() == 0:
        return torch.empty(0, dtype=torch.uint8)
    if mask is None or bits == WORD_BITS or not compiled():
        x = x.to(torch.int64)
    if compiled() and bits < WORD_BITS:
        from secformer_rt.ring import fused_bits

        words = as_flat(x)
        words = words.view(np.uint64) if words.itemsize == 8 else words
        masks = np.empty(0, np.uint64) if mask is None else as_flat(mask).view(np.uint64)
        out = empty((_padded(size),), torch.uint8)
        fused_bits.pack_words(*_fast(bits), words, masks, False, bits, cut, up, out.numpy().view(np.uint64))
        return out[:size]
    flat = (x if mask is None else add((x + up) >> cut, mask)).reshape(-1).contiguous()
    if bits == WORD_BITS and sys.byteorder == "little":
        return flat.view(torch.uint8)
    columns = flat.numpy().astype("<i8", copy=False).view(np.uint8).reshape(-1, 8)
    chosen = np.unpackbits(columns, axis=1, bitorder="little")[:, :bits]
    return torch.from_numpy(np.packbits(chosen.reshape(-1), bitorder="little"))


def pack_chosen(x: Tensor, bit: Tensor, public: Tensor, ring: int, bits: int) -> Tensor:
    """What :func:`pack_words` makes of ``words.add_chosen(x, bit, public, ring)``, in one pass.

    Raises:
        ValueError: the tensors have several shapes.
    """
    if bits < WORD_BITS and x.numel() and compiled() and not any_meta(x, bit, public):
        from secformer_rt.ring import fused_bits

        check_shapes(x, bit, public)
        size = packed_size(x.numel(), bits)
        words, chosen, numbers = (as_flat(t).view(np.uint64) for t in (x, bit, public))
        out = empty((_padded(size),), torch.uint8)
        stream = out.numpy().view(np.uint64)
        fused_bits.pack_chosen(*_fast(bits), words, chosen, numbers, ring, bits, stream)
        return out[:size]
    return pack_words(add_chosen(x, bit, public, ring), bits)


def pack_differences(x: Tensor, others: Iterable[Tensor], bits: int) -> Tensor:
    """What :func:`pack_words` makes of x less other words, which come in blocks of a multiple of 64.

    Args:
        x: int64 tensor of any shape.
        others: int64 tensors of one axis, together as long as x; none is read after the next is asked for.
        bits: 1 to 64.
    """
    size = packed_size(x.numel(), bits)
    words = as_flat(x)
    out = empty((_padded(size),), torch.uint8)
    at = 0
    for other in others:
        some, less = words[at : at + other.numel()], other.numpy()
        if compiled() and bits < WORD_BITS:
            from secformer_rt.ring import fused_bits

            stream = out[at * bits // 8 :].numpy().view(np.uint64)
            fused_bits.pack_words(
                *_fast(bits), some.view(np.uint64), less.view(np.uint64), True, bits, 0, 0, stream
            )
        else:
            packed = pack_words(torch.from_numpy(some - less), bits)
            out[at * bits // 8 :][: packed.numel()] = packed
        at += other.numel()
    return out[:size]


def unpack_words(buffer: Tensor, shape: tuple[int, ...], bits: int, out: Tensor | None = None) -> Tensor:
    """Undo :func:`pack_words`.

    Args:
        buffer: contiguous uint8 tensor of shape (packed_size(count, bits),), count being that of ``shape``.
        shape: of the result.
        bits: 1 to 64; bits beyond the last word's are ignored.
        out: a contiguous int64 tensor of this shape to write to; new memory if not given.

    Returns:
        int64 tensor with values in [0, 2^bits), at 64 bits in all of Z_2^64. At 64 bits, where no other
        place is given, it shares the buffer's memory if that is aligned.

    Raises:
        ValueError: the buffer has another length.
    """
    check_bytes(buffer, "unpack_words")
    count = math.prod(shape)
    size = packed_size(count, bits)
    if buffer.numel() != size:
        raise ValueError(f"{count} words of {bits} bits take {size} bytes, not {buffer.numel()}")
    if buffer.is_meta:
        return torch.empty(shape, dtype=torch.int64, device="meta")
    if count == 0:
        return torch.empty(shape, dtype=torch.int64)
    flat = buffer.reshape(-1).contiguous()
    if bits == WORD_BITS and sys.byteorder == "little":
        if out is not None:
            out.view(-1).view(torch.uint8).copy_(flat)
            return out
        if flat.data_ptr() % 8 or flat.storage_offset() % 8:
            flat = flat.clone()
        return flat.view(torch.int64).view(shape)
    if compiled():
        from secformer_rt.ring import fused_bits

        out = empty(shape, torch.int64) if out is None else out
        fused_bits.unpack_words(*_fast(bits), flat.numpy(), bits, out.numpy().reshape(-1).view(np.uint64))
        return out
    stream = np.unpackbits(flat.numpy(), count=count * bits, bitorder="little").reshape(count, bits)
    columns = np.packbits(stream, axis=1, bitorder="little")
    words = np.zeros((count, 8), np.uint8)
    words[:, : columns.shape[1]] = columns
    found = torch.from_numpy(words.view("<i8").astype(np.int64, copy=False).reshape(shape))
    return found if out is None else out.copy_(found)


def unpack_sum(first: Tensor, second: Tensor, shape: tuple[int, ...], bits: int) -> Tensor:
    """The sum of what :func:`unpack_words` makes of two buffers, modulo ``2^bits``, in one pass.

    Args:
        first: contiguous uint8 tensor of shape (packed_size(count, bits),), count being that of ``shape``.
        second: likewise.
        shape: of the result.
        bits: 1 to 64.

    Returns:
        int64 tensor with values in [0, 2^bits), at 64 bits in all of Z_2^64.

    Raises:
        ValueError: a buffer has another length.
    """
    count = math.prod(shape)
    if bits < WORD_BITS and count and compiled() and not any_meta(first, second):
        from secformer_rt.ring import fused_bits

        one, other = _streams(first, second, count, bits)
        out = empty(shape, torch.int64)
        fused_bits.unpack_sum(*_fast(bits), one, other, bits, out.numpy().reshape(-1).view(np.uint64))
        return out
    total = add(unpack_words(first, shape, bits), unpack_words(second, shape, bits))
    return total if bits == WORD_BITS else total & ((1 << bits) - 1)


def unpack_onto(public: Tensor, shift: int, first: Tensor, second: Tensor, bits: int) -> Tensor:
    """``public`` plus ``2^shift`` times what :func:`unpack_sum` finds for its shape, in one pass.

    Raises:
        ValueError: a buffer has another length than the tensor's words take.
    """
    shape = tuple(public.shape)
    if bits < WORD_BITS and public.numel() and compiled() and not any_meta(public, first, second):
        from secformer_rt.ring import fused_bits

        one, other = _streams(first, second, public.numel(), bits)
        out = empty(shape, torch.int64)
        words, found = (as_flat(t).view(np.uint64) for t in (public, out))
        fused_bits.unpack_onto(*_fast(bits), one, other, words, shift, bits, found)
        return out
    return add_raised(public, unpack_sum(first, second, shape, bits), shift)


def _streams(first: Tensor, second: Tensor, count: int, bits: int) -> tuple[NDArray[np.uint8], ...]:
    size = packed_size(count, bits)
    if first.numel() != size or second.numel() != size:
        raise ValueError(f"{count} words of {bits} bits take {size} bytes each way")
    return first.contiguous().numpy(), second.contiguous().numpy()


def _padded(size: int) -> int:
    """A size that is whole words, with three to spare."""
    return whole_words(size) + 24


@functools.cache
def _fast(bits: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What the compiled functions take for words of so many bits: addresses and a table, or empty arrays."""
    from secformer_rt.ring import streams

    if not streams.suits(bits):
        nothing = np.empty(0, np.int64)
        return nothing, nothing
    return streams.compile_streams().addresses, streams.table(bits)
