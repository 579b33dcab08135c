"""The openings' wire format, and bit planes.

Words travel as a stream of their low bits, the lowest first. A bit plane holds eight bits to a byte, the
first in the most significant place; the bits that fill up its last byte are zero.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from secformer_rt.ring.jit import any_meta, as_array, compiled, empty
from secformer_rt.ring.words import add

WORD_BITS = 64


def packed_size(count: int, bits: int) -> int:
    """Bytes that ``count`` words of ``bits`` bits take on the wire."""
    if not 1 <= bits <= WORD_BITS:
        raise ValueError(f"bits must be between 1 and {WORD_BITS}, not {bits}")
    return (count * bits + 7) // 8


def pack_words(x: Tensor, bits: int, mask: Tensor | None = None) -> Tensor:
    """The low bits of every word, one after the other, the lowest bit first.

    Args:
        x: int64 tensor of any shape.
        bits: 1 to 64; bits beyond the last word's in the last byte are zero.
        mask: int64 tensor of the same shape; if given, the words are those of ``x + mask``.

    Returns:
        uint8 tensor of shape (packed_size(x.numel(), bits),). At 64 bits, without a mask, it shares x's
        memory if x is contiguous.

    Raises:
        ValueError: the mask has another shape.
    """
    if x.dtype != torch.int64:
        raise TypeError(f"pack_words takes an int64 tensor, not {x.dtype}")
    if mask is not None and (mask.dtype != x.dtype or mask.shape != x.shape):
        raise ValueError(f"words of shape {tuple(x.shape)} have a mask of shape {tuple(mask.shape)}")
    size = packed_size(x.numel(), bits)
    if x.is_meta:
        return torch.empty(size, dtype=torch.uint8, device="meta")
    if x.numel() == 0:
        return torch.empty(0, dtype=torch.uint8)
    if compiled() and bits < WORD_BITS:
        from secformer_rt.ring import fused_bits

        words = as_array(x.contiguous()).reshape(-1).view(np.uint64)
        masks = words[:0] if mask is None else as_array(mask.contiguous()).reshape(-1).view(np.uint64)
        out = empty((_padded(size),), torch.uint8)
        fused_bits.pack_words(words, masks, False, bits, out.numpy().view(np.uint64))
        return out[:size]
    flat = (x if mask is None else add(x, mask)).reshape(-1).contiguous()
    if bits == WORD_BITS and sys.byteorder == "little":
        return flat.view(torch.uint8)
    columns = flat.numpy().astype("<i8", copy=False).view(np.uint8).reshape(-1, 8)
    chosen = np.unpackbits(columns, axis=1, bitorder="little")[:, :bits]
    return torch.from_numpy(np.packbits(chosen.reshape(-1), bitorder="little"))


def pack_differences(x: Tensor, others: Iterable[Tensor], bits: int) -> Tensor:
    """What :func:`pack_words` makes of x less other words, which come in blocks of a multiple of 64.

    Args:
        x: int64 tensor of any shape.
        others: int64 tensors of one axis, together as long as x; none is read after the next is asked for.
        bits: 1 to 64.
    """
    size = packed_size(x.numel(), bits)
    words = as_array(x.contiguous()).reshape(-1)
    out = empty((_padded(size),), torch.uint8)
    at = 0
    for other in others:
        some, less = words[at : at + other.numel()], other.numpy()
        if compiled() and bits < WORD_BITS:
            from secformer_rt.ring import fused_bits

            stream = out[at * bits // 8 :].numpy().view(np.uint64)
            fused_bits.pack_words(some.view(np.uint64), less.view(np.uint64), True, bits, stream)
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
    _check_bytes(buffer, "unpack_words")
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
        fused_bits.unpack_words(flat.numpy(), bits, out.numpy().reshape(-1).view(np.uint64))
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

        size = packed_size(count, bits)
        if first.numel() != size or second.numel() != size:
            raise ValueError(f"{count} words of {bits} bits take {size} bytes each way")
        out = empty(shape, torch.int64)
        one, other = (x.contiguous().numpy() for x in (first, second))
        fused_bits.unpack_sum(one, other, bits, out.numpy().reshape(-1).view(np.uint64))
        return out
    total = add(unpack_words(first, shape, bits), unpack_words(second, shape, bits))
    return total if bits == WORD_BITS else total & ((1 << bits) - 1)


def _padded(size: int) -> int:
    """A size that is whole words, with one to spare."""
    return (size + 7) // 8 * 8 + 8


def pack_bits(bits: Tensor) -> Tensor:
    """Pack 0/1 elements into a bit plane.

    Args:
        bits: uint8 tensor of any shape, n elements, 0 or 1 each.

    Returns:
        uint8 tensor of shape (ceil(n / 8),).
    """
    _check_bytes(bits, "pack_bits")
    if bits.is_meta:
        return torch.empty((bits.numel() + 7) // 8, dtype=torch.uint8, device="meta")
    return torch.from_numpy(np.packbits(bits.reshape(-1).numpy()))


def unpack_bits(planes: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Undo :func:`pack_bits`.

    Args:
        planes: uint8 tensor of shape (ceil(n / 8),), n being the number of elements of ``shape``.
        shape: of the result.

    Returns:
        uint8 tensor of zeros and ones.

    Raises:
        ValueError: ``planes`` has another length.
    """
    _check_bytes(planes, "unpack_bits")
    count = math.prod(shape)
    if planes.numel() != (count + 7) // 8:
        raise ValueError(f"{count} bits take {(count + 7) // 8} bytes, not {planes.numel()}")
    if planes.is_meta:
        return torch.empty(shape, dtype=torch.uint8, device="meta")
    return torch.from_numpy(np.unpackbits(planes.reshape(-1).numpy(), count=count)).view(shape)


def chunk_lookup(tables: Tensor, words: Tensor, low: int, bits: int, first: int) -> tuple[Tensor, Tensor]:
    """Look two neighbouring bits up in every 16-bit table, at chunks of four bits of public words.

    With lt the bit of a table at a word's chunk, and below the bit before it (``first`` where there is
    none), gives lt and eq = lt XOR below.

    Args:
        tables: (C, N) int16; bit i of an element is its entry i.
        words: (M, N) int64; every row is looked up in the same tables.
        low: where the words' first chunk begins.
        bits: of all C chunks together; the last may be shorter.
        first: 0 or 1.

    Returns:
        lt and eq, each (C, ceil(M N / 8)) uint8: a bit plane for every chunk.
    """
    if tables.dtype != torch.int16 or words.dtype != torch.int64:
        raise TypeError(f"expected torch.int16 and torch.int64, not {tables.dtype} and {words.dtype}")
    if tables.ndim != 2 or words.ndim != 2 or tables.shape[1] != words.shape[1]:
        raise ValueError(f"tables {tuple(tables.shape)} do not fit words {tuple(words.shape)}")
    if first not in (0, 1) or not 0 <= low <= low + bits <= WORD_BITS or tables.shape[0] != -(-bits // 4):
        raise ValueError(
            f"{tables.shape[0]} chunks do not cover {bits} bits from {low} on, or first is {first}"
        )
    chunks, count = tables.shape[0], words.numel()
    width = (count + 7) // 8
    if any_meta(tables, words):
        lt, eq = (torch.empty(chunks, width, dtype=torch.uint8, device="meta") for _ in range(2))
        return lt, eq
    if compiled():
        from secformer_rt.ring import fused_bits

        lt, eq = empty((chunks, width), torch.uint8), empty((chunks, width), torch.uint8)
        flat = as_array(words.contiguous().reshape(-1))
        fused_bits.chunk_lookup(as_array(tables.contiguous()), flat, low, bits, first, lt.numpy(), eq.numpy())
        return lt, eq
    index = torch.stack([(words >> (low + 4 * c)) & ((1 << min(4, bits - 4 * c)) - 1) for c in range(chunks)])
    # With the constant put below bit 0, the two bits lie at index and index + 1.
    entries = (tables.to(torch.int64)[:, None, :] & 0xFFFF) << 1 | first
    pair = (entries >> index).reshape(chunks, count)
    lt_bits, below = (pair >> 1 & 1).to(torch.uint8).numpy(), (pair & 1).to(torch.uint8).numpy()
    return (
        torch.from_numpy(np.packbits(lt_bits, axis=1)),
        torch.from_numpy(np.packbits(lt_bits ^ below, axis=1)),
    )


def _check_bytes(x: Tensor, name: str) -> None:
    if x.dtype != torch.uint8:
        raise TypeError(f"{name} takes a uint8 tensor, not {x.dtype}")


def rotated_sum(shifts: Tensor, tables: Tensor) -> Tensor:
    """The sum of a row's tables, each rotated right by a public number, modulo 256.

    Args:
        shifts: (R, T) uint8, below B.
        tables: (R, T, B) uint8; B at most 256.

    Returns:
        (R, B) uint8: entry ``(k + shift) mod B`` gets entry k of every table.

    Raises:
        TypeError, ValueError: the dtypes or shapes do not fit.
    """
    if shifts.dtype != torch.uint8 or tables.dtype != torch.uint8:
        raise TypeError(f"expected torch.uint8, not {shifts.dtype} and {tables.dtype}")
    if tables.ndim != 3 or shifts.shape != tables.shape[:2] or tables.shape[2] > 256:
        raise ValueError(f"shifts {tuple(shifts.shape)} do not fit tables {tuple(tables.shape)}")
    rows, _, size = tables.shape
    if any_meta(shifts, tables):
        return torch.empty((rows, size), dtype=torch.uint8, device="meta")
    if compiled():
        from secformer_rt.ring import fused_bits

        out = torch.zeros((rows, size), dtype=torch.uint8)
        fused_bits.rotated_sum(as_array(shifts.contiguous()), as_array(tables.contiguous()), out.numpy())
        return out
    index = (torch.arange(size) - shifts[..., None].to(torch.int64)) % size
    return tables.gather(-1, index).sum(1, dtype=torch.int64).to(torch.uint8)


class Monomials:
    """Terms of XORs of ANDs: for each its row of the result, its row of shares or -1, and its factors."""

    def __init__(self, monomials: Iterable[tuple[int, int, Iterable[int]]], rows: int) -> None:
        """``rows`` are those of the result; factors are rows of what was opened, below 62."""
        program = [(row, share, sum(1 << f for f in set(factors))) for row, share, factors in monomials]
        self.table = np.array(program, dtype=np.int64).reshape(-1, 3)
        self.rows = rows


def masked_products(opened: Tensor, shares: Tensor, monomials: Monomials) -> Tensor:
    """XORs of monomials, each the AND of one row of shares with some opened rows.

    Args:
        opened: (F, n) uint8 planes.
        shares: (S, n) uint8 planes.
        monomials: what is added up.

    Returns:
        (T, n) uint8, T being the rows of ``monomials``.
    """
    _check_bytes(opened, "masked_products")
    _check_bytes(shares, "masked_products")
    shape = (monomials.rows, opened.shape[1])
    if any_meta(opened, shares):
        return torch.empty(shape, dtype=torch.uint8, device="meta")
    out = torch.zeros(shape, dtype=torch.uint8)
    if compiled():
        from secformer_rt.ring import fused_bits

        public, mine = (as_array(x.contiguous()) for x in (opened, shares))
        fused_bits.masked_products(public, mine, monomials.table, out.numpy())
        return out
    for row, share, factors in monomials.table.tolist():
        value = torch.full_like(out[row], 255) if share < 0 else shares[share]
        for f in range(opened.shape[0]):
            if factors >> f & 1:
                value = value & opened[f]
        out[row] ^= value
    return out
