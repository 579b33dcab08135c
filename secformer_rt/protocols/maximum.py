"""Maximum of each row, by a tournament."""

from __future__ import annotations

import torch

from secformer_rt.graph.preset import Comparison
from secformer_rt.protocols.bits import arithmetic
from secformer_rt.protocols.comparison import less_than
from secformer_rt.protocols.core import Bits, Protocol, Secret
from secformer_rt.protocols.masking import open_masked
from secformer_rt.protocols.product import product


def row_maximum(x: Secret, *, resolution: int, comparison: Comparison = "tables") -> Protocol[Secret]:
    """The largest element along the last axis, kept as an axis of 1, in x's ring.

    Halves of the row are compared pairwise: ``max(a, b) = a + [a - b < 0] (b - a)``. Elements closer than
    ``2^-resolution`` count as equal, so the result may be that much too small at each of the levels.
    Differences must fit the ring: elements below ``2^(ring - 2)`` units.

    Cost: ceil(log2 n) levels. With "tables" 3 rounds a level; in a 24-bit ring with 12 fraction bits and a
    resolution of 4, 3 bytes and 7 bits a compared pair each way. With "adder", which compares exactly, 8
    rounds a level; 3 bytes and 108 bits.
    Security: the openings are those of :func:`open_masked`, :func:`less_than` and :func:`arithmetic`.
    """
    drop = max(0, x.frac - resolution)
    while x.shape[-1] > 1:
        half = x.shape[-1] // 2
        left, right = x.share[..., :half], x.share[..., half : 2 * half]
        difference = x.local(left - right)
        opened = yield from open_masked(difference)
        flags = yield from less_than(opened, (0,), drop=drop, method=comparison)
        smaller = yield from arithmetic(x.server, Bits(flags.planes, difference.shape), x.ring)
        correction = yield from product(smaller, opened.form)
        winners = left - correction.share
        if x.shape[-1] % 2:
            winners = torch.cat([winners, x.share[..., -1:]], dim=-1)
        x = x.local(winners)
    return x
