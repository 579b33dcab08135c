"""exp of a masked non-positive value: exp of the mask is dealt, two bits repair the wrap and the clip."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from secformer_rt.protocols.comparison import arithmetic, borrow, less_than
from secformer_rt.protocols.core import Bits, Form, Opened, Protocol, Secret, Term, deal, parallel
from secformer_rt.protocols.correlations import Correlation, Field, Ref, Shape, Source, constants
from secformer_rt.protocols.product import product

MASK_FRAC = 42  # fraction bits of the dealt exp(-r): multiplied by up to exp(17) it keeps 17
FACTOR_FRAC = 18  # of the public factor; both together stay below 2^62 for results below 4
TOP = 1.0  # the window in which exp is computed reaches from TOP - clip to TOP


@dataclass(frozen=True, slots=True)
class ExponentialMask(Correlation):
    """exp(-(r modulo 2^low) 2^-frac) of a mask r."""

    mask: Ref
    shape: Shape
    low: int
    frac: int

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
        return [((-r * 2.0**-self.frac).exp() * 2.0**MASK_FRAC).round().to(torch.int64)]


@lru_cache(maxsize=4)
def _factors(low: int, frac: int) -> tuple[Tensor, Tensor]:
    """exp(c 2^-frac + TOP - clip) and exp(c 2^-frac + TOP) for c in [0, 2^low), fixed point.

    Both servers must hold the same integers, so they come from integer arithmetic, not from libm.
    """
    precision = 96
    step = _exp(1, frac, precision)
    clip = 1 << (low - frac)
    plain, wrapped = [], []
    value = 1 << precision
    small = _exp(int(TOP) - clip, 0, precision)
    large = _exp(int(TOP), 0, precision)
    shift = 2 * precision - FACTOR_FRAC
    half = 1 << (shift - 1)
    for _ in range(1 << low):
        plain.append((value * small + half) >> shift)
        wrapped.append((value * large + half) >> shift)
        value = (value * step) >> precision
    return torch.tensor(plain, dtype=torch.int64), torch.tensor(wrapped, dtype=torch.int64)


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


def exponential(y: Opened, *, clip: int, bits: int) -> Protocol[Secret]:
    """exp(y) for ``y <= 15/16``; 0 where y is below about ``1 - clip``. The result has 60 fraction bits.

    y + clip - 1 = P - R; with l the low bits of P and R, up to ``clip``, and w = [P_l < R_l]:
    ``exp(y) = exp(-R_l) exp(P_l + 1 - clip + clip w)``, and T deals exp(-R_l). A comparison clears what
    is below the window.

    Cost after y's opening: 2 rounds; 10 bits an element each way; dealer: 8 words an element.
    Error: 2^-17 absolute. y must lie in ``[-2^(bits-1), (TOP - 1/16) 2^frac)``, in units of its
    last place.
    """
    low = y.frac + clip.bit_length() - 1
    offset = (clip - int(TOP)) << y.frac
    shifted = Opened(y.public + offset, y.mask, y.share, y.ring, y.form)
    drop = y.frac - 4
    # Values within 2^drop of the lower end could be taken for values of the upper end: clear them too.
    margin = 2 << drop
    wrap, clear = yield from parallel(_wrap(shifted, low, drop), _clear(shifted, margin, bits, drop))
    dealt = yield from deal(ExponentialMask(y.mask, tuple(y.public.shape), low, y.frac))
    yield from deal(constants(*_factors(low, y.frac)))
    u = Form(y.server, (Term(1, 0, dealt.ref(0), dealt.shares[0]),), MASK_FRAC)
    index = shifted.public & ((1 << low) - 1)
    plain, wrapped = (table.to(index.device)[index] for table in _factors(low, y.frac))
    keep = clear.scaled(-1).plus(1)
    factor = Form(y.server, (Term(plain), *wrap.scaled(wrapped - plain).terms), FACTOR_FRAC)
    return (yield from product(keep, factor, u))


def _wrap(y: Opened, low: int, drop: int) -> Protocol[Form]:
    bits = yield from borrow(y, bits=low, drop=drop)
    return (yield from arithmetic(y.server, bits))


def _clear(y: Opened, margin: int, bits: int, drop: int) -> Protocol[Form]:
    below = yield from less_than(y, (margin,), bits=bits, drop=drop)
    return (yield from arithmetic(y.server, Bits(below.planes, tuple(y.public.shape))))
