"""Bits in XOR shares: cut out of words, multiplied, and turned into additive shares."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import ceil, prod

import numpy as np
import torch
from torch import Tensor

from secformer_rt.protocols.core import Bits, Dealt, Form, Protocol, Secret, Term, deal, reveal
from secformer_rt.protocols.correlations import Correlation, Field, Shape, Sharing, Source
from secformer_rt.ring.bit_planes import Monomials, masked_products, unpack_bits
from secformer_rt.ring.choices import counts, entries, signs


@dataclass(frozen=True, slots=True)
class BitProducts(Correlation):
    """Random planes (F, n) and the ANDs of the listed subsets of them, (len(subsets), n)."""

    factors: int
    size: int
    subsets: tuple[tuple[int, ...], ...]

    @property
    def fields(self) -> tuple[Field, ...]:
        """The masks, then the products."""
        return (
            Field((self.factors, self.size), Source.RANDOM, 1, Sharing.PLANES),
            Field((len(self.subsets), self.size), Source.DERIVED, 1, Sharing.PLANES),
        )

    def derive(self, random: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
        """The products of the masks."""
        masks = random[0]
        rows = []
        for subset in self.subsets:
            row = masks[subset[0]]
            for index in subset[1:]:
                row = row & masks[index]
            rows.append(row)
        return [torch.stack(rows)]


@dataclass(frozen=True, slots=True)
class BitMask(Correlation):
    """Random bits, as XOR shares (a plane) and as additive shares modulo ``2^bits``."""

    shape: Shape
    bits: int

    @property
    def fields(self) -> tuple[Field, ...]:
        """The plane and the words."""
        return (
            Field((ceil(prod(self.shape) / 8),), Source.RANDOM, 1, Sharing.PLANES),
            Field(self.shape, Source.DERIVED, self.bits),
        )

    def derive(self, random: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
        """The bits as words."""
        return [unpack_bits(random[0], self.shape).to(torch.int64)]


def bit_planes(words: Tensor, bits: int) -> Tensor:
    """Bits ``0 .. bits - 1`` of int64 words, each a packed plane: (bits, ceil(n / 8)), lowest first.

    Local. A plane is laid out as by :func:`~secformer_rt.ring.bit_planes.pack_bits`.
    """
    if words.is_meta:
        return torch.empty((bits, ceil(words.numel() / 8)), dtype=torch.uint8, device="meta")
    # A byte of every word at a time: eight planes then come from the cache.
    columns = words.reshape(-1).contiguous().numpy().astype("<i8", copy=False).view(np.uint8).reshape(-1, 8)
    planes = np.empty((bits, (len(columns) + 7) // 8), dtype=np.uint8)
    for first in range(0, bits, 8):
        column = columns[:, first // 8].copy()
        for bit in range(first, min(first + 8, bits)):
            planes[bit] = np.packbits(column & np.uint8(1 << (bit - first)))
    return torch.from_numpy(planes)


def bit_products(server: int, factors: Tensor, terms: tuple[tuple[int, ...], ...]) -> Protocol[list[Tensor]]:
    """XOR shares of the ANDs of factors (planes, (F, n)) over each of ``terms``.

    With ``x_i = e_i ^ p_i`` (e opened, p dealt): ``AND x_i = XOR over S of (AND of e outside S) p_S``.

    Cost: 1 round; F bits an element each way; dealer: one bit an element and subset of two or more.
    """
    subsets, monomials = _multiplied_out(server, factors.shape[0], terms)
    dealt = yield from deal(BitProducts(factors.shape[0], factors.shape[1], subsets))
    masks, products = dealt.shares
    opened = yield from reveal(factors, xor=True, mask=masks)
    return list(masked_products(opened, masks, products, monomials))


@lru_cache(maxsize=64)
def _multiplied_out(
    server: int, factors: int, terms: tuple[tuple[int, ...], ...]
) -> tuple[tuple[tuple[int, ...], ...], Monomials]:
    """The subsets whose ANDs are dealt, and this server's monomials of every term."""
    subsets = sorted({s for t in terms for k in range(2, len(t) + 1) for s in combinations(t, k)})
    held: dict[tuple[int, ...], int] = {(i,): i for i in range(factors)}
    held.update({subset: factors + i for i, subset in enumerate(subsets)})
    # The all-public monomial falls to server 0.
    monomials = [
        (row, held.get(subset, -1), set(term) - set(subset))
        for row, term in enumerate(terms)
        for size in range(server, len(term) + 1)
        for subset in combinations(term, size)
    ]
    return tuple(subsets), Monomials(monomials, len(terms))


def arithmetic(server: int, bits: Bits, ring: int = 64, *, flipped: bool = False) -> Protocol[Form]:
    """Bits as a form of integers 0 and 1: ``b = e + (1 - 2e) p`` with ``e = b ^ p`` opened.

    ``1 - b`` of them, which costs nothing, if they are to be flipped.

    Cost: 1 round; 1 bit an element each way; dealer: one word an element.
    """
    dealt, opened = yield from _opened(bits, ring)
    chosen, step = signs(opened, bits.shape, flipped=flipped)
    return _form(server, chosen, step, dealt, ring)


def choose(server: int, bits: Bits, words: Tensor, offset: int, pairs: Tensor) -> Protocol[Form]:
    """An entry ``T_b[w]`` of two public tables: ``T_e[w] + (T_(1-e)[w] - T_e[w]) p`` with ``e = b ^ p``.

    Args:
        server: whose form.
        bits: b.
        words: public int64 of the bits' shape; w is their low bits, after the offset is added.
        offset: added to the words.
        pairs: (P, 2) int64, ``T_0`` and ``T_1``; P is a power of two.

    Cost: that of :func:`arithmetic`, whose ring is ``2^64``.
    """
    dealt, opened = yield from _opened(bits, 64)
    return _form(server, *entries(opened, words, offset, pairs), dealt, 64)


def count_bits(server: int, bits: Bits, ring: int) -> Protocol[Secret]:
    """How many bits are set along the last axis, (..., 1). Costs what :func:`arithmetic` does."""
    dealt, opened = yield from _opened(bits, ring)
    return Secret(server, counts(opened, dealt.shares[1], server=server), 0, ring)


def _opened(bits: Bits, ring: int) -> Protocol[tuple[Dealt, Tensor]]:
    """Dealt bits p, and ``e = b ^ p``."""
    dealt = yield from deal(BitMask(bits.shape, ring))
    return dealt, (yield from reveal(bits.planes, xor=True, mask=dealt.shares[0]))


def _form(server: int, chosen: Tensor, step: Tensor, dealt: Dealt, ring: int) -> Form:
    return Form(server, (Term(chosen), Term(step, 0, dealt.ref(1), dealt.shares[1], bit=True)), 0, ring)
