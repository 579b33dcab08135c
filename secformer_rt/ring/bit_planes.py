"""Bit planes: eight bits to a byte, the first in the most significant place.

The bits that fill up a plane's last byte are zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from secformer_rt.ring.buffers import check_bytes
from secformer_rt.ring.jit import any_meta, as_array, as_flat, compiled, empty
from secformer_rt.ring.words import WORD_BITS


def pack_bits(bits: Tensor) -> Tensor:
    """Pack 0/1 elements into a bit plane.

    Args:
        bits: uint8 tensor of any shape, n elements, 0 or 1 each.

    Returns:
        uint8 tensor of shape (ceil(n / 8),).
    """
    check_bytes(bits, "pack_bits")
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
    check_bytes(planes, "unpack_bits")
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
        flat = as_flat(words)
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


def bit_plane(words: Tensor, bit: int) -> Tensor:
    """One bit of every word as a plane.

    Args:
        words: int64 of any shape.
        bit: 0 to 63.

    Returns:
        (ceil(N / 8),) uint8, as :func:`pack_bits` makes of these bits.

    Raises:
        TypeError: the words are not int64.
    """
    if words.dtype != torch.int64:
        raise TypeError(f"expected torch.int64, not {words.dtype}")
    if any_meta(words) or not compiled():
        return pack_bits(((words.reshape(-1) >> bit) & 1).to(torch.uint8))
    from secformer_rt.ring import fused_bits

    out = empty(((words.numel() + 7) // 8,), torch.uint8)
    fused_bits.bit_plane(as_flat(words), bit, out.numpy())
    return out


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

        out = empty((rows, size), torch.uint8)
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
    check_bytes(opened, "masked_products")
    check_bytes(shares, "masked_products")
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
