"""GeLU as one product of three openings: the argument's, its series' and two comparison bits'."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from torch import Tensor

from secformer_rt.graph.preset import Comparison, FourierErf
from secformer_rt.protocols.bits import arithmetic
from secformer_rt.protocols.comparison import less_than
from secformer_rt.protocols.core import Bits, Form, Opened, Protocol, Secret, parallel
from secformer_rt.protocols.product import product
from secformer_rt.protocols.series import series_form
from secformer_rt.protocols.truncation import truncate_many, truncated_opening
from secformer_rt.ring.bit_planes import pack_bits, unpack_bits

INSIDE_FRAC = 12  # fraction bits of the series in the product
MARGIN_BITS = 4  # a fitted series may be left anywhere within 2^-4 below its cut and 2^-4 more


def gelu_product(
    x: Secret, choice: FourierErf, *, frac: int, ring: int, comparison: Comparison
) -> Protocol[Secret]:
    """``x (1 + g(x)) / 2``, g the saturating erf series, with ``frac + 13`` fraction bits modulo ``2^ring``.

    With the bits ``in = [-c <= x < c]`` and ``above = [x >= c]``, ``in x (1 + series) / 2 + above x`` is a
    product of forms that are all open by then, so that nothing is opened for it. A fitted series is as good
    a little below its cut, so the comparison need not look at the lowest bits of x.

    Cost: 3 rounds: x's truncation, the series' with the comparison, the bits' conversion; x's ring less
    what is cut off, 16 bits, the comparison's and 2 an element each way; dealer: the series', and ``ring``
    bits or fewer for each of 12 products of masks.
    Error: the series' own, of which 2^-12 |x| / 2 is rounding.
    Security: truncations and the comparison's bits, each opened once.
    Source: SecFormer (arXiv 2401.00793), section 3, Pi_GeLU; the product of three is ours.
    """
    (x,) = yield from truncate_many(x, (frac,), ring, shares=False)
    opened = truncated_opening(x)
    (inside, above), (series,) = yield from parallel(
        _bits(opened, choice, ring, comparison), _series(opened, choice, ring)
    )
    argument = opened.form
    more = series.plus(1 << INSIDE_FRAC)
    # Both products have the scale of the second: that of the first is shifted, and its ring is narrower.
    shift = INSIDE_FRAC + 1
    (outer, inner) = yield from parallel(
        product(replace(above, ring=ring - shift), argument), product(inside, more, argument)
    )
    return Secret(x.server, (outer.share << shift) + inner.share, frac + shift, ring)


def _series(x: Opened, choice: FourierErf, ring: int) -> Protocol[tuple[Form, ...]]:
    return ((yield from series_form(x, choice, INSIDE_FRAC, ring)),)


def _bits(x: Opened, choice: FourierErf, ring: int, comparison: Comparison) -> Protocol[tuple[Form, ...]]:
    """[-c <= x < c] and [x >= c]."""
    fitted = not choice.coefficients
    drop = x.frac - MARGIN_BITS if fitted else 0
    cut = round(choice.cut * 2**x.frac) - (1 << drop if fitted else 0)
    flags = yield from less_than(x, (-cut, cut), drop=drop, method=comparison)
    below, under = _halves(flags)
    shape = tuple(x.public.shape)
    inside, not_above = yield from parallel(
        arithmetic(x.server, Bits(below ^ under, shape), ring), arithmetic(x.server, Bits(under, shape), ring)
    )
    return inside, not_above.scaled(-1).plus(1)


def _halves(flags: Bits) -> tuple[Tensor, Tensor]:
    count = prod(flags.shape)
    if count % 16 == 0 or flags.planes.is_meta:
        half = (count // 2 + 7) // 8
        return flags.planes[:half], flags.planes[-half:]
    first, second = unpack_bits(flags.planes, (2, count // 2))
    return pack_bits(first), pack_bits(second)
