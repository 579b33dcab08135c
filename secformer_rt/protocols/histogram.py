"""About where the maximum of each row lies, from a histogram that nobody sees.

A softmax is the same whatever is subtracted from its scores; subtracting something near the maximum only
keeps the exponential in range. So the maximum need not be known, only the highest bucket of values in use.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from secformer_rt.graph.preset import Comparison
from secformer_rt.protocols.bits import arithmetic, count_bits
from secformer_rt.protocols.comparison import less_than
from secformer_rt.protocols.core import Bits, Form, Opened, Protocol, Secret, deal, parallel
from secformer_rt.protocols.correlations import Correlation, Field, Ref, Shape, Sharing, Source
from secformer_rt.protocols.masking import open_masked
from secformer_rt.protocols.product import product
from secformer_rt.ring.choices import tails

COUNT_BITS = 8  # of a bucket's count, which so is at most 128
GROUP = 128  # elements that are counted together


@dataclass(frozen=True, slots=True)
class BucketTables(Correlation):
    """For each element of a mask a one-hot table of ``count`` buckets, at minus its bits from ``low`` on."""

    mask: Ref
    shape: Shape
    low: int
    count: int

    @property
    def fields(self) -> tuple[Field, ...]:
        """(elements, buckets) bytes."""
        return (Field((prod(self.shape), self.count), Source.DERIVED, 8, Sharing.BYTES),)

    @property
    def refs(self) -> tuple[Ref, ...]:
        """The mask."""
        return (self.mask,)

    def derive(self, random: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
        """The tables."""
        index = -(inputs[0].reshape(-1, 1) >> self.low) & (self.count - 1)
        tables = torch.zeros((index.shape[0], self.count), dtype=torch.uint8)
        return [tables.scatter_(1, index, 1)]


def highest_bucket(
    x: Opened, *, low: int, count: int, ring: int, raised: int = 0, comparison: Comparison = "tables"
) -> Protocol[Secret]:
    """The number j of the highest bucket in use along the last axis, an integer modulo ``2^ring``.

    With ``x = P - R``, the bits from ``low`` on of P less those of R are x's bucket, or the one above it if
    the lower bits of P are less than those of R. T deals R's as a one-hot table; rotated by P's and added up
    along the row the tables are a histogram, so ``S_j = sum of its buckets from j on`` is a local number
    that is positive up to the highest bucket in use.

    Args:
        x: values that lie in ``[0, (count - 1) 2^low)`` units once they are ``raised``; their opening must be
            plain modulo ``2^low count``.
        low: bits of a bucket's width.
        count: buckets, a power of two, at most 256.
        ring: of the result.
        raised: units that are added to the values.
        comparison: how ``S_j > 0`` is found.

    Returns:
        (..., 1): j, for which the maximum lies in ``[(j - 1) 2^low, (j + 1) 2^low)``.

    Cost: 3 rounds; a byte and 3 bits a bucket, row and group of 128 elements each way; dealer: a byte an
    element and bucket; 4 bytes, 2 bits and ``ring`` bits a bucket, row and group.
    Security: sums are opened under fresh masks modulo 2^8, bits under fresh bits.
    """
    shape = tuple(x.public.shape)
    columns = shape[-1]
    dealt = yield from deal(BucketTables(x.mask, shape, low, count))
    tables = dealt.shares[0].reshape(-1, columns, count)
    public = x.public.reshape(-1, columns)
    groups = [slice(start, start + GROUP) for start in range(0, columns, GROUP)]
    sums = [tails(public[:, g], raised, low, tables[:, g]) for g in groups]
    if len(sums) == 1:
        empty = yield from count_bits(x.server, (yield from _empty(x.server, sums[0], comparison)), ring)
    else:
        forms = yield from parallel(*(_empty_form(x.server, each, ring, comparison) for each in sums))
        above = yield from product(*forms)
        empty = above.local(above.share.sum(-1))
    return empty.local(-empty.share.reshape(*shape[:-1], 1)).plus_public(count - 1)


def _empty(server: int, sums: Tensor, comparison: Comparison) -> Protocol[Bits]:
    """(rows, buckets - 1): whether no bucket from j = 1, 2, ... on is in use."""
    opened = yield from open_masked(Secret(server, sums, 0, COUNT_BITS))
    flags = yield from less_than(opened, (1,), method=comparison)
    return Bits(flags.planes, tuple(sums.shape))


def _empty_form(server: int, sums: Tensor, ring: int, comparison: Comparison) -> Protocol[Form]:
    return (yield from arithmetic(server, (yield from _empty(server, sums, comparison)), ring))
