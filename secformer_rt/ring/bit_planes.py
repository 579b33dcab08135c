"""Bit planes: eight bits to a byte, the first in the most significant place.

The bits that fill up a plane's last byte are zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
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


def chunk_lookup(
    tables: Tensor, words: Tensor, less: tuple[int, ...], low: int, bits: int, first: int
) -> tuple[Tensor, Tensor]:
    """Look two neighbouring bits up in every 16-bit table, at chunks of four bits of public differences.

    With lt the bit of a table at a word's chunk, and below the bit before it (``first`` where there is
    none), gives lt and eq = lt XOR below.

    Args:
        tables: (C, N) int16; bit i of an element is its entry i.
        words: (N,) int64.
        less: M numbers; each in turn is taken from all words, whose differences the same tables serve.
        low: where the differences' first chunk begins.
        bits: of all C chunks together; the last may be shorter.
        first: 0 or 1.

    Returns:
        lt and eq, each (C, ceil(M N / 8)) uint8: a bit plane for every chunk.
    """
    if tables.dtype != torch.int16 or words.dtype != torch.int64:
        raise TypeError(f"expected torch.int16 and torch.int64, not {tables.dtype} and {words.dtype}")
    if tables.ndim != 2 or words.ndim != 1 or tables.shape[1:] != words.shape:
        raise ValueError(f"tables {tuple(tables.shape)} do not fit words {tuple(words.shape)}")
    if first not in (0, 1) or not 0 <= low <= low + bits <= WORD_BITS or tables.shape[0] != -(-bits // 4):
        raise ValueError(
            f"{tables.shape[0]} chunks do not cover {bits} bits from {low} on, or first is {first}"
        )
    chunks, count = tables.shape[0], len(less) * words.numel()
    width = (count + 7) // 8
    if any_meta(tables, words):
        lt, eq = (torch.empty(chunks, width, dtype=torch.uint8, device="meta") for _ in range(2))
        return lt, eq
    if compiled():
        from secformer_rt.ring import fused_bits

        lt, eq = empty((chunks, width), torch.uint8), empty((chunks, width), torch.uint8)
        given = (as_array(tables.contiguous()), as_flat(words), np.array(less, np.int64))
        fused_bits.chunk_lookup(*given, low, bits, first, lt.numpy(), eq.numpy())
        return lt, eq
    rows = _differences(words, less)
    index = torch.stack([(rows >> (low + 4 * c)) & ((1 << min(4, bits - 4 * c)) - 1) for c in range(chunks)])
    # With the constant put below bit 0, the two bits lie at index and index + 1.
    entries = (tables.to(torch.int64)[:, None, :] & 0xFFFF) << 1 | first
    pair = (entries >> index).reshape(chunks, count)
    lt_bits, below = (pair >> 1 & 1).to(torch.uint8).numpy(), (pair & 1).to(torch.uint8).numpy()
    return (
        torch.from_numpy(np.packbits(lt_bits, axis=1)),
        torch.from_numpy(np.packbits(lt_bits ^ below, axis=1)),
    )


def _differences(words: Tensor, less: tuple[int, ...]) -> Tensor:
    """(M, N): all words less each of the numbers."""
    return words.reshape(-1) - torch.tensor(less, dtype=torch.int64, device=words.device)[:, None]


def bit_plane(words: Tensor, bit: int, less: tuple[int, ...] = (0,)) -> Tensor:
    """One bit of every word, less some numbers, as a plane.

    Args:
        words: int64 of any shape, N of them.
        bit: 0 to 63.
        less: M numbers; each in turn is taken from all words.

    Returns:
        (ceil(M N / 8),) uint8, as :func:`pack_bits` makes of these bits.

    Raises:
        TypeError: the words are not int64.
    """
    if words.dtype != torch.int64:
        raise TypeError(f"expected torch.int64, not {words.dtype}")
    if any_meta(words) or not compiled():
        return pack_bits(((_differences(words, less) >> bit) & 1).to(torch.uint8))
    from secformer_rt.ring import fused_bits

    out = empty(((len(less) * words.numel() + 7) // 8,), torch.uint8)
    fused_bits.bit_plane(as_flat(words), np.array(less, np.int64), bit, out.numpy())
    return out


def _wide(planes: Tensor) -> NDArray[Any]:
    """Planes as words of eight bytes where they have as many: vector code of bytes is slower."""
    array = as_array(planes)
    if array.shape[1] % 8:
        return array
    words = array.view(np.uint64)
    return words if words.flags.aligned else words.copy()


class Monomials:
    """Terms of XORs of ANDs: for each its row of the result, its row of shares or -1, and its factors."""

    def __init__(self, monomials: Iterable[tuple[int, int, Iterable[int]]], rows: int) -> None:
        """``rows`` are those of the result; factors are rows of what was opened, below 62."""
        program = [(row, share, sum(1 << f for f in set(factors))) for row, share, factors in monomials]
        self.table = np.array(program, dtype=np.int64).reshape(-1, 3)
        self.rows = rows


def masked_products(opened: Tensor, masks: Tensor, products: Tensor, monomials: Monomials) -> Tensor:
    """XORs of monomials, each the AND of one row of shares with some opened rows.

    Args:
        opened: (F, n) uint8 planes.
        masks: (F, n) uint8 planes: the first rows of shares.
        products: (S - F, n) uint8 planes: the others.
        monomials: what is added up.

    Returns:
        (T, n) uint8, T being the rows of ``monomials``.
    """
    for planes in (opened, masks, products):
        check_bytes(planes, "masked_products")
    shape = (monomials.rows, opened.shape[1])
    if any_meta(opened, masks, products):
        return torch.empty(shape, dtype=torch.uint8, device="meta")
    out = torch.zeros(shape, dtype=torch.uint8)
    if compiled():
        from secformer_rt.ring import fused_bits

        e, p, products_of_p = (_wide(x.contiguous()) for x in (opened, masks, products))
        fused_bits.masked_products(e, p, products_of_p, monomials.table, out.numpy().view(e.dtype))
        return out
    shares = torch.cat([masks, products])
    for row, share, factors in monomials.table.tolist():
        value = torch.full_like(out[row], 255) if share < 0 else shares[share]
        for f in range(opened.shape[0]):
            if factors >> f & 1:
                value = value & opened[f]
        out[row] ^= value
    return out
