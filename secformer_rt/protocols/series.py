"""Fourier series of a masked value: sin and cos of the mask are dealt, the rest is public."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import pi

import torch
from torch import Tensor

from secformer_rt.errors import BadConfigError
from secformer_rt.graph.approximations import series_of
from secformer_rt.graph.preset import FourierErf
from secformer_rt.protocols.comparison import LAST_RADIX, arithmetic, less_than
from secformer_rt.protocols.core import Form, Opened, Protocol, Secret, deal, parallel
from secformer_rt.protocols.correlations import (
    Correlation,
    Field,
    PublicConstants,
    Ref,
    Shape,
    Source,
    constants,
)
from secformer_rt.protocols.masking import open_elementwise, open_masked
from secformer_rt.protocols.product import product
from secformer_rt.protocols.truncation import evaluate, truncate
from secformer_rt.ring.kernels import harmonic_sum

WAVE_FRAC = 14  # fraction bits of a dealt sine, and of a coefficient times a public one
SERIES_RING = 32  # their products have 28 and stay below 2^30


@lru_cache(maxsize=8)
def wave_table(period: int, terms: int) -> Tensor:
    """(period, 2 terms): cos(2 pi k i / period), then the sines, k = 1 .. terms, as float64."""
    angles = torch.arange(period, dtype=torch.float64)[:, None] * torch.arange(1, terms + 1)
    angles = torch.remainder(angles, period) * (2 * pi / period)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def _fixed(values: Tensor) -> Tensor:
    return (values * (1 << WAVE_FRAC)).round().to(torch.int64)


@lru_cache(maxsize=8)
def _dealt_table(period: int, terms: int) -> Tensor:
    return _fixed(wave_table(period, terms)).to(torch.int32)


@lru_cache(maxsize=8)
def _public_table(period: int, coefficients: tuple[float, ...]) -> Tensor:
    """(period, 2K): beta_k sin(2 pi k i / period), then -beta_k cos of it."""
    waves = wave_table(period, len(coefficients))
    cosines, sines = waves.chunk(2, dim=1)
    beta = torch.tensor(coefficients, dtype=torch.float64)
    return _fixed(torch.cat([beta * sines, -beta * cosines], dim=1)).contiguous()


@lru_cache(maxsize=8)
def _checksum(period: int, coefficients: tuple[float, ...]) -> PublicConstants:
    return constants(_public_table(period, coefficients))


@dataclass(frozen=True, slots=True)
class Harmonics(Correlation):
    """cos and sin of ``k`` times a mask, k = 1 .. terms, in a period of ``period`` units.

    Where the period does not divide ``2^ring``, both values that the mask can stand for (with and
    without the wrap that the opening's public part tells) are dealt.
    """

    mask: Ref
    bit: Ref | None
    shape: Shape
    ring: int
    period: int
    terms: int

    @property
    def variants(self) -> int:
        """1 if the series does not notice a wrap of the mask, else 2."""
        return 1 if (1 << self.ring) % self.period == 0 else 2

    @property
    def fields(self) -> tuple[Field, ...]:
        """(elements, variants, 2 terms), cosines first."""
        count = 1
        for size in self.shape:
            count *= size
        return (Field((count, self.variants, 2 * self.terms), Source.DERIVED, SERIES_RING),)

    @property
    def refs(self) -> tuple[Ref, ...]:
        """The mask, and its top bit where wraps matter."""
        return (self.mask,) if self.variants == 1 or self.bit is None else (self.mask, self.bit)

    def derive(self, random: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
        """The harmonics, read off one table."""
        table = _dealt_table(self.period, self.terms)
        mask = inputs[0].reshape(-1)
        index = torch.remainder(mask, self.period)
        if self.variants == 2:
            wrap = (1 << self.ring) % self.period
            wrapped = torch.remainder(index - wrap * inputs[1].reshape(-1), self.period)
            index = torch.stack([index, wrapped], dim=1)
        else:
            index = index[:, None]
        return [table[index].to(torch.int64)]


def sine_series(x: Opened, period: float, coefficients: tuple[float, ...]) -> Protocol[Secret]:
    """``sum_k beta_k sin(2 pi k x / period)`` of a masked x, modulo ``2^32`` with 28 fraction bits.

    With ``x = P - R``: ``sin kx = sin kP cos kR - cos kP sin kR``; T deals the terms in R.

    Cost: 0 rounds; 0 bytes; dealer: 2 half words an element and term, twice that for a period that is no
    power of two. Error: at most ``2^-14 sqrt(2K)`` beside the series' own.
    Security: the opening is x's, modulo a power of two, whatever the period; nothing else is opened.
    Source: SecFormer, section 3 (Pi_Sin).
    """
    if sum(abs(c) for c in coefficients) >= 3.9:
        raise BadConfigError(
            "The coefficients of a series must sum to less than 3.9 in absolute value: fit fewer terms, or "
            "up to a larger cut."
        )
    units = round(period * 2**x.frac)
    table = _public_table(units, coefficients)
    yield from deal(_checksum(units, coefficients))
    shape = tuple(x.public.shape)
    correlation = Harmonics(x.mask, x.bit, shape, x.ring, units, len(coefficients))
    dealt = yield from deal(correlation)
    (words,) = dealt.shares
    if correlation.variants == 2:
        if x.wrap is None:
            raise ValueError("a period that is no power of two needs a truncated value")
        count, _, width = words.shape
        chosen = torch.arange(count, device=words.device) * 2 + x.wrap.reshape(-1)
        words = words.reshape(-1, width)[chosen]
    else:
        words = words[:, 0]
    index = torch.remainder(x.public.reshape(-1), units)
    total = harmonic_sum(index, table.to(words.device), words)
    return Secret(x.server, total.reshape(shape), 2 * WAVE_FRAC, SERIES_RING)


def saturating_series(x: Opened, choice: FourierErf, *, bits: int) -> Protocol[Secret]:
    """An odd function that is ``choice``'s series inside ``|x| < cut`` and its sign outside.

    ``g = 1 - [x < -c] - [x < c] + ([x < c] - [x < -c]) series``, compared and summed from one opening.
    ``bits`` is the width of x with its sign. The result has 14 fraction bits.

    Cost after x's opening: 2 rounds; 4 bytes and 22 bits an element each way.
    Error: the series' own plus at most 4e-4, typically 1e-4.
    """
    cut = round(choice.cut * 2**x.frac)
    drop = max(0, bits - 1 - 4 * LAST_RADIX)  # one round
    below, series = yield from parallel(_below(x, (-cut, cut), bits, drop), _series_form(x, choice))
    inside = yield from product(below, series)
    flags = evaluate(below).share
    share = inside.share[1] - inside.share[0] - ((flags[0] + flags[1]) << inside.frac)
    return Secret(x.server, share, inside.frac).plus_public(1 << inside.frac)


def _below(x: Opened, thresholds: tuple[int, ...], bits: int, drop: int) -> Protocol[Form]:
    flags = yield from less_than(x, thresholds, bits=bits, drop=drop)
    return (yield from arithmetic(x.server, flags))


def _series_form(x: Opened, choice: FourierErf) -> Protocol[Form]:
    series = yield from sine_series(x, choice.period, series_of(choice))
    reduced = yield from truncate(series, WAVE_FRAC)
    assert reduced.truncated is not None
    return reduced.truncated.form


def gelu(x: Secret, choice: FourierErf, *, frac: int, bits: int) -> Protocol[Secret]:
    """``x (1 + g(x)) / 2`` with g the erf series (SecFormer, section 3, Pi_GeLU).

    The factor is opened as it is: its own rounding would be multiplied by x.

    Cost: 4 rounds: x's truncation, two for g, and the factor's opening.
    """
    x = yield from truncate(x, frac)
    opened = yield from open_elementwise(x)
    g = yield from saturating_series(opened, choice, bits=bits)
    factor = yield from open_masked(Secret(x.server, g.plus_public(1 << g.frac).share, g.frac + 1))
    return (yield from product(factor.form, opened.form))


def tanh(x: Secret, choice: FourierErf, *, frac: int, bits: int) -> Protocol[Secret]:
    """Tanh by its own series. Cost: 3 rounds: x's truncation and two for the series."""
    x = yield from truncate(x, frac)
    opened = yield from open_elementwise(x)
    return (yield from saturating_series(opened, choice, bits=bits))
