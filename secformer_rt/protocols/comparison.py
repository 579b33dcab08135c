"""Comparison of a masked value with public thresholds, from dealt chunk tables or by a binary adder.

The value is ``x = P - R`` modulo ``2^k`` with P public and R known to the dealer, so ``x < t`` is the top
bit of ``(P - t) - R``, which is the XOR of both top bits and of the borrow ``low(P - t) < low(R)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

import torch
from torch import Tensor

from secformer_rt.graph.preset import Comparison
from secformer_rt.protocols.adder import less_than_by_adder
from secformer_rt.protocols.bits import bit_products
from secformer_rt.protocols.core import Bits, Opened, Protocol, deal, parallel
from secformer_rt.protocols.correlations import Correlation, Field, Ref, Shape, Sharing, Source
from secformer_rt.ring.bit_planes import bit_plane, chunk_lookup, pack_bits, unpack_bits

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
    ``[-2^(bits-1), 2^(bits-1))``. The lowest ``drop`` bits need not be compared: values within ``2^drop``
    of a threshold may go either way.

    ``method`` "adder" compares by :func:`~secformer_rt.protocols.adder.less_than_by_adder`, which says what
    that costs; it is exact whatever ``drop``. What follows is for "tables".

    Cost: 1 round up to 6 chunks of 4 bits, 2 up to 24; with n chunks in one round 2n - 2 bits an element
    and threshold each way; dealer: 16 bits a chunk, one set for all thresholds, and 15 bits (4 chunks) or
    83 bits (6 chunks) an element and threshold.
    Security: every opened bit is hidden by a fresh dealt bit.
    """
    ring = x.ring if bits is None else min(bits, x.ring)
    if method == "adder":
        return (yield from less_than_by_adder(x, thresholds, bits=ring))
    shape = tuple(x.public.shape)
    count = prod(shape)
    total = (len(thresholds), *shape)
    dealt = yield from deal(ChunkTables(x.mask, shape, drop, ring - 1))
    tables, top = dealt.shares
    public = x.public.reshape(-1)
    less, equal = chunk_lookup(tables, public, thresholds, drop, ring - 1 - drop, 1 - x.server)
    borrow = yield from _tree(x.server, list(less), list(equal))
    planes = borrow ^ _repeated(top, count, len(thresholds))
    if x.server == 0:
        planes = planes ^ bit_plane(public, ring - 1, thresholds)
    return Bits(planes, total)


def _repeated(plane: Tensor, count: int, times: int) -> Tensor:
    """A plane of ``count`` bits several times over."""
    if times == 1 or count % 8 == 0:
        return plane.reshape(-1).repeat(times)
    return pack_bits(unpack_bits(plane, (1, count)).expand(times, count).reshape(-1))


def borrow(x: Opened, *, bits: int, drop: int, plus: int = 0) -> Protocol[Bits]:
    """XOR shares of ``low(P + plus) < low(R)`` over the low ``bits`` of ``x = P - R``, less ``drop``.

    It tells whether ``x + plus`` has wrapped.

    Where both agree above ``drop`` the answer is no. Cost as :func:`less_than`.
    """
    shape = tuple(x.public.shape)
    dealt = yield from deal(ChunkTables(x.mask, shape, drop, bits))
    less, equal = chunk_lookup(
        dealt.shares[0], x.public.reshape(-1), (-plus,), drop, bits - drop, 1 - x.server
    )
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
