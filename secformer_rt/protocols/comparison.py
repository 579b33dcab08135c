"""Comparison of a masked value with public thresholds, from dealt chunk tables.

The value is ``x = P - R`` modulo ``2^k`` with P public and R known to the dealer, so ``x < t`` is the top
bit of ``(P - t) - R``, which is the XOR of both top bits and of the borrow ``low(P - t) < low(R)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import ceil, prod

import torch
from torch import Tensor

from secformer_rt.graph.preset import Comparison
from secformer_rt.protocols.core import Bits, Form, Opened, Protocol, Term, deal, parallel, reveal
from secformer_rt.protocols.correlations import Correlation, Field, Ref, Shape, Sharing, Source
from secformer_rt.ring.packing import chunk_lookup, pack_bits, unpack_bits

CHUNK = 4  # bits that one dealt table covers
RADIX = 4  # chunks that one of several rounds combines
LAST_RADIX = 6  # chunks that are combined in one round rather than two


@dataclass(frozen=True, slots=True)
class ChunkTables(Correlation):
    """Thermometer tables of the chunks of a mask's bits ``low .. high``, and its bit ``high``.

    Entry v of a chunk's table says ``v < r_chunk``. Two bytes a chunk and one bit an element travel.
    """

    mask: Ref
    shape: Shape
    low: int
    high: int

    @property
    def chunks(self) -> int:
        """Number of tables an element."""
        return ceil((self.high - self.low) / CHUNK)

    @property
    def fields(self) -> tuple[Field, ...]:
        """The tables (C, N) and the plane of bit ``high``."""
        count = prod(self.shape)
        return (
            Field((self.chunks, count), Source.DERIVED, 16, Sharing.TABLES),
            Field((ceil(count / 8),), Source.DERIVED, 1, Sharing.PLANES),
        )

    @property
    def refs(self) -> tuple[Ref, ...]:
        """The mask."""
        return (self.mask,)

    def derive(self, random: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
        """The tables and the top bit."""
        r = inputs[0].reshape(-1)
        digits = (_chunks(r, self.low, self.high)).to(torch.int32)
        tables = ((1 << digits) - 1).to(torch.int16)
        return [tables, pack_bits(((r >> self.high) & 1).to(torch.uint8))]


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


def _chunks(values: Tensor, low: int, high: int) -> Tensor:
    """Bits ``low .. high`` of (N,) values as (C, N) chunks, least significant first."""
    count = ceil((high - low) / CHUNK)
    return torch.stack(
        [
            (values >> (low + CHUNK * i)) & ((1 << min(CHUNK, high - low - CHUNK * i)) - 1)
            for i in range(count)
        ]
    )


def less_than(
    x: Opened,
    thresholds: tuple[int, ...],
    *,
    bits: int | None = None,
    drop: int = 0,
    method: Comparison = "tables",
) -> Protocol[Bits]:
    """XOR shares of ``x < t`` for every public threshold (in units of x), shape (len(t), *x.shape).

    Only the low ``bits`` of x are looked at (all of its ring by default): ``x - t`` must lie in
    ``[-2^(bits-1), 2^(bits-1))``. The lowest ``drop`` bits are not compared: values within ``2^drop`` of
    a threshold may go either way.

    Cost: 1 round up to 6 chunks of 4 bits, 2 up to 24; with n chunks in one round 2n - 2 bits an element
    and threshold each way; dealer: 16 bits a chunk, one set for all thresholds, and 15 bits (4 chunks) or
    83 bits (6 chunks) an element and threshold.
    Security: every opened bit is hidden by a fresh dealt bit.
    """
    ring = x.ring if bits is None else min(bits, x.ring)
    shape = tuple(x.public.shape)
    count = prod(shape)
    total = (len(thresholds), *shape)
    dealt = yield from deal(ChunkTables(x.mask, shape, drop, ring - 1))
    tables, top = dealt.shares
    public = torch.stack([(x.public - t).reshape(-1) for t in thresholds])  # (M, N)
    # Shifting as int64 keeps the bits that are looked at, whatever the sign.
    index = _chunks(public.reshape(-1), drop, ring - 1).to(torch.uint8)
    if len(thresholds) > 1:
        repeated = tables[:, None, :].expand(-1, len(thresholds), -1).reshape(tables.shape[0], -1)
    else:
        repeated = tables
    less, equal = chunk_lookup(repeated.contiguous(), index.contiguous(), 1 - x.server)
    borrow = yield from _tree(x.server, list(less), list(equal))
    top_bits = unpack_bits(top, (1, count)).expand(len(thresholds), count)
    planes = borrow ^ pack_bits(top_bits.reshape(-1))
    if x.server == 0:
        planes = planes ^ pack_bits(((public.reshape(-1) >> (ring - 1)) & 1).to(torch.uint8))
    return Bits(planes, total)


def borrow(x: Opened, *, bits: int, drop: int) -> Protocol[Bits]:
    """XOR shares of ``low(P) < low(R)`` over the low ``bits`` of ``x = P - R``, less ``drop``: did it wrap?

    Where both agree above ``drop`` the answer is no. Cost as :func:`less_than`.
    """
    shape = tuple(x.public.shape)
    dealt = yield from deal(ChunkTables(x.mask, shape, drop, bits))
    index = _chunks(x.public.reshape(-1), drop, bits).to(torch.uint8)
    less, equal = chunk_lookup(dealt.shares[0], index, 1 - x.server)
    planes = yield from _tree(x.server, list(less), list(equal))
    return Bits(planes, shape)


def _tree(server: int, less: list[Tensor], equal: list[Tensor]) -> Protocol[Tensor]:
    """Combine (less, equal) planes, least significant first, by levels of groups of ``RADIX``."""
    while len(less) > 1:
        last = len(less) <= LAST_RADIX
        width = LAST_RADIX if last else RADIX
        groups = [range(i, min(i + width, len(less))) for i in range(0, len(less), width)]
        combined = yield from parallel(
            *(
                _combine(server, [less[i] for i in g], [equal[i] for i in g], want_equal=not last)
                for g in groups
            )
        )
        less, equal = [c[0] for c in combined], [c[1] for c in combined]
    return less[0]


def _combine(
    server: int, less: list[Tensor], equal: list[Tensor], *, want_equal: bool
) -> Protocol[tuple[Tensor, Tensor]]:
    """One group: ``lt = lt_n ^ eq_n lt_(n-1) ^ eq_n eq_(n-1) lt_(n-2) ...``, ``eq = eq_n ... eq_0``."""
    n = len(less)
    if n == 1:
        return less[0], equal[0]
    # Factors: eq_(n-1) .. eq_1 [.. eq_0], then lt_(n-2) .. lt_0.
    equals = n if want_equal else n - 1
    factors = [equal[n - 1 - i] for i in range(equals)] + [less[n - 2 - i] for i in range(n - 1)]
    terms = [(*range(i + 1), equals + i) for i in range(n - 1)]
    if want_equal:
        terms.append(tuple(range(n)))
    products = yield from bit_products(server, torch.stack(factors), tuple(terms))
    result = less[n - 1]
    for plane in products[: n - 1]:
        result = result ^ plane
    return result, products[-1] if want_equal else result


def bit_products(server: int, factors: Tensor, terms: tuple[tuple[int, ...], ...]) -> Protocol[list[Tensor]]:
    """XOR shares of the ANDs of factors (planes, (F, n)) over each of ``terms``.

    With ``x_i = e_i ^ p_i`` (e opened, p dealt): ``AND x_i = XOR over S of (AND of e outside S) p_S``.

    Cost: 1 round; F bits an element each way; dealer: one bit an element and subset of two or more.
    """
    subsets = sorted({s for t in terms for k in range(2, len(t) + 1) for s in combinations(t, k)})
    dealt = yield from deal(BitProducts(factors.shape[0], factors.shape[1], tuple(subsets)))
    masks, products = dealt.shares
    opened = yield from reveal(factors ^ masks, xor=True)
    shares: dict[tuple[int, ...], Tensor] = {subset: products[i] for i, subset in enumerate(subsets)}
    shares.update({(i,): masks[i] for i in range(factors.shape[0])})
    return [_and(server, opened, shares, term) for term in terms]


def _and(server: int, opened: Tensor, shares: dict[tuple[int, ...], Tensor], term: tuple[int, ...]) -> Tensor:
    """This server's XOR share of one product; the all-public monomial falls to server 0."""
    result = shares[term]
    if result.is_meta:
        return result
    for size in range(1, len(term)):
        for subset in combinations(term, size):
            monomial = shares[subset]
            for index in set(term) - set(subset):
                monomial = monomial & opened[index]
            result = result ^ monomial
    if server == 0:
        public = opened[term[0]]
        for index in term[1:]:
            public = public & opened[index]
        result = result ^ public
    return result


def arithmetic(server: int, bits: Bits, ring: int = 64) -> Protocol[Form]:
    """Bits as a form of integers 0 and 1: ``b = e + (1 - 2e) p`` with ``e = b ^ p`` opened.

    Cost: 1 round; 1 bit an element each way; dealer: one word an element.
    """
    dealt = yield from deal(BitMask(bits.shape, ring))
    plane, words = dealt.shares
    opened = yield from reveal(bits.planes ^ plane, xor=True)
    e = unpack_bits(opened, bits.shape).to(torch.int64)
    return Form(server, (Term(e), Term(1 - 2 * e, 0, dealt.ref(1), words, bit=True)), 0, ring)
