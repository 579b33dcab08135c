"""exp of a non-positive value.

Either exp of the mask is dealt and two bits repair the wrap and the clip, or 1 + y/2^n is squared n times.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, log

import torch
from torch import Tensor

from secformer_rt.errors import BadConfigError
from secformer_rt.graph.preset import Comparison
from secformer_rt.protocols.bits import arithmetic, choose
from secformer_rt.protocols.comparison import borrow, less_than
from secformer_rt.protocols.core import Bits, Form, Opened, Protocol, Secret, Term, deal, parallel
from secformer_rt.protocols.correlations import (
    Correlation,
    Field,
    PublicConstants,
    Ref,
    Shape,
    Source,
    constants,
)
from secformer_rt.protocols.product import product
from secformer_rt.protocols.truncation import truncate, truncate_many, truncated_opening

POWER_FRAC = 30  # of the limit's powers: with twice as many, results below 4 stay below 2^62


@dataclass(frozen=True, slots=True)
class ExponentialMask(Correlation):
    """exp(-(r modulo 2^low) 2^-frac) of a mask r, with ``result`` fraction bits."""

    mask: Ref
    shape: Shape
    low: int
    frac: int
    result: int

    @property
    def fields(self) -> tuple[Field, ...]:
        """One word an element."""
        return (Field(self.shape, Source.DERIVED),)

    @property
    def refs(self) -> tuple[Ref, ...]:
        """The mask."""
        return (self.mask,)

    def derive(self, random: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
        """Its exponential."""
        r = (inputs[0] & ((1 << self.low) - 1)).to(torch.float64)
        return [((-r * 2.0**-self.frac).exp() * 2.0**self.result).round().to(torch.int64)]


def _fracs(top: int) -> tuple[int, int]:
    """Fraction bits of the dealt exp(-r) and of the public factor; both leave room for exp(top)."""
    room = ceil(top / log(2))
    mask = 42 - (room - 1) // 2
    return mask, 62 - room - mask


@lru_cache(maxsize=4)
def _factors(low: int, frac: int, top: int) -> tuple[Tensor, PublicConstants]:
    """exp(c 2^-frac + top - clip) and exp(c 2^-frac + top) for c in [0, 2^low), fixed point; their checksum.

    Both servers must hold the same integers, so they come from integer arithmetic, not from libm.
    """
    precision = 96
    step = _exp(1, frac, precision)
    clip = 1 << (low - frac)
    pairs = []
    value = 1 << precision
    small = _exp(top - clip, 0, precision)
    large = _exp(top, 0, precision)
    shift = 2 * precision - _fracs(top)[1]
    half = 1 << (shift - 1)
    for _ in range(1 << low):
        pairs.append([(value * factor + half) >> shift for factor in (small, large)])
        value = (value * step) >> precision
    tables = torch.tensor(pairs, dtype=torch.int64)
    return tables, constants(tables)


def _exp(numerator: int, frac: int, precision: int) -> int:
    """exp(numerator 2^-frac) with ``precision`` fraction bits, by its power series in integers."""
    x = (abs(numerator) << precision) >> frac
    total = term = 1 << precision
    n = 1
    while term:
        term = ((term * x) >> precision) // n
        total += term
        n += 1
    return total if numerator >= 0 else (1 << (2 * precision)) // total


def exponential(
    y: Opened, *, clip: int, bits: int, top: int = 1, comparison: Comparison = "tables"
) -> Protocol[Secret]:
    """exp(y) for ``y <= top - 1/16``; 0 where y is below about ``top - clip``.

    y + clip - top = P - R; with l the low bits of P and R, up to ``clip``, and w = [P_l < R_l]:
    ``exp(y) = exp(-R_l) exp(P_l + top - clip + clip w)``, and T deals exp(-R_l). A comparison clears what
    is below the window. w tells about the mask rather than about y, so it always comes from tables.
    The result has 60 fraction bits for top = 1, 59 for 2 and 56 for 4.

    Cost after y's opening: 2 rounds; 10 bits an element each way; dealer: 8 words an element. If the
    adder clears, for 24 bits 7 rounds and 111 bits.
    Error: 2^-17 absolute (top = 4: 2^-16), and 2^-18 relative. y must lie in ``[-2^(bits-1), (top - 1/16)
    2^frac)``, in units of its last place.
    Security: only bits are opened, each hidden by a fresh dealt bit.
    """
    low = y.frac + clip.bit_length() - 1
    offset = (clip - top) << y.frac
    drop = y.frac - 4
    # Values within 2^drop of the lower end could be taken for values of the upper end: clear them too.
    margin = 2 << drop
    pairs, checksum = _factors(low, y.frac, top)
    factor, keep = yield from parallel(
        _factor(y, offset, low, drop, pairs),
        _kept(y, margin - offset, bits=bits, drop=drop, comparison=comparison),
    )
    mask_frac, factor_frac = _fracs(top)
    dealt = yield from deal(ExponentialMask(y.mask, tuple(y.public.shape), low, y.frac, mask_frac))
    yield from deal(checksum)
    u = Form(y.server, (Term(1, 0, dealt.ref(0), dealt.shares[0]),), mask_frac)
    return (yield from product(keep, replace(factor, frac=factor_frac), u))


def _factor(y: Opened, offset: int, low: int, drop: int, pairs: Tensor) -> Protocol[Form]:
    """exp(P_l + top - clip + clip w) of ``P + offset``."""
    wrap = yield from borrow(y, plus=offset, bits=low, drop=drop)
    return (yield from choose(y.server, wrap, y.public, offset, pairs))


def _kept(y: Opened, threshold: int, *, bits: int, drop: int, comparison: Comparison) -> Protocol[Form]:
    """0 where y is below the threshold, else 1."""
    below = yield from less_than(y, (threshold,), bits=bits, drop=drop, method=comparison)
    return (yield from arithmetic(y.server, Bits(below.planes, tuple(y.public.shape)), flipped=True))


def limit_exponential(
    y: Secret, *, squarings: int, clip: float, comparison: Comparison = "tables"
) -> Protocol[Secret]:
    """``(1 + y/2^n)^(2^n)`` for ``-clip <= y <= 15/16`` by n squarings; exactly 0 for any y below -clip.

    y is in a ring of k < 64 bits. One opening widens it to 64 bits and serves the first square and the
    comparison; dividing by 2^n is a change of fraction bits. Every further square takes the truncation of
    the one before, whose opening its product is made of. Far below the clip, down to the end of y's ring,
    widening or squaring makes garbage modulo 2^64; the comparison is right there too, modulo 2^k, and the
    garbage is multiplied by an exact 0. It runs beside the squarings, and joins the last product. A ring
    that ends before the clip needs no comparison.

    Cost: ``1 + max(n - 1, 2)`` rounds. An element each way, for 24-bit y: 24 bits for y and 11 for its
    comparison; for n > 1 ``64 - max(2 n - 6, 1)`` for the first square and 34 for each of n - 2 later ones,
    of which 30 bits are cut off. With the adder ``1 + max(n - 1, 7)`` rounds, and 108 bits for the 11.
    Dealer: at most ``2.5n + 8`` words an element.
    Error: ``2^(n-28)`` against the exact power, which itself is about ``y^2 exp(y) / 2^(n+1)`` below exp(y).
    The result has 60 fraction bits (with n = 1 twice those of y, and 2).
    Security: truncation masks and the comparison's bits, each for one opening.
    Source: CrypTen (arXiv 2109.00984), n = 8; PUMA (arXiv 2307.12533), section 3.3, n = 5 and the clip.

    Raises:
        BadConfigError: at the clip the power would leave [-1, 1], and grow.
    """
    if clip > 2 ** (squarings + 1):
        raise BadConfigError(
            f"{squarings} squarings cannot follow exp down to -{clip:g}: use a clip of at most "
            f"{2 ** (squarings + 1)}, or more squarings."
        )
    # Widening serves one half of a ring: that below 1.
    shift = (1 << (y.ring - 2)) - (1 << y.frac)
    (wide,) = yield from truncate_many(y.plus_public(shift), (y.frac,))
    opened = truncated_opening(wide).plus(-shift)
    threshold = ceil(-clip * 2**y.frac)
    if 1 << (y.ring - 1) < (1 << y.frac) - threshold:  # its ring ends before the clip
        root = yield from _half_power(opened.form, squarings)
        return (yield from product(root, root))
    keep, root = yield from parallel(
        _kept(opened, threshold, bits=y.ring, drop=0, comparison=comparison),
        _half_power(opened.form, squarings),
    )
    return (yield from product(keep, root, root))


def _half_power(y: Form, squarings: int) -> Protocol[Form]:
    """``(1 + y/2^n)^(2^(n-1))``: all squarings but the last."""
    frac = y.frac + squarings
    power = replace(y, frac=frac).plus(1 << frac)
    for _ in range(squarings - 1):
        square = yield from product(power, power)
        rounded = yield from truncate(square.at(max(square.frac, POWER_FRAC + 1)), POWER_FRAC)
        assert rounded.truncated is not None
        power = rounded.truncated.form
    return power
