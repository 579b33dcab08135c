"""Fourier series of a masked value: sin and cos of the mask are dealt, the rest is public."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import pi

import numpy as np
import torch
from torch import Tensor

from secformer_rt.errors import BadConfigError
from secformer_rt.graph.approximations import series_of
from secformer_rt.graph.preset import Comparison, FourierErf
from secformer_rt.protocols.bits import arithmetic
from secformer_rt.protocols.comparison import CHUNK, LAST_RADIX, less_than
from secformer_rt.protocols.core import Bits, Form, Opened, Protocol, Secret, deal, parallel
from secformer_rt.protocols.correlations import (
    Correlation,
    Field,
    PublicConstants,
    Ref,
    Shape,
    Sharing,
    Source,
    constants,
)
from secformer_rt.protocols.masking import open_elementwise
from secformer_rt.protocols.product import product
from secformer_rt.protocols.truncation import evaluate, truncate, truncated_opening
from secformer_rt.ring.kernels import harmonic_sum

WAVE_FRAC = 14  # fraction bits of a dealt sine, and of a coefficient times a public one
SERIES_RING = 32  # their products have 28 and stay below 2^30
# An even series is a result, not the argument of a product: it is kept modulo 2^64, so that it can be used
# without another opening, and with 32 fraction bits in all, which every weight matrix takes.
EVEN_FRAC = 16


def wave_table(period: int, terms: int) -> Tensor:
    """(period, 2 terms): cos(2 pi k i / period), then the sines, k = 1 .. terms, as float64.

    By numpy: both servers must find the same, and torch's first calls may err, see
    :mod:`secformer_rt.graph.approximations`.
    """
    turns = np.arange(period)[:, None] * np.arange(1, terms + 1) % period
    angles = turns * (2 * pi / period)
    return torch.from_numpy(np.concatenate([np.cos(angles), np.sin(angles)], axis=1))


def _fixed(values: Tensor, frac: int) -> Tensor:
    return (values * (1 << frac)).round().to(torch.int64)


@lru_cache(maxsize=8)
def _dealt_table(period: int, terms: int, frac: int) -> Tensor:
    return _fixed(wave_table(period, terms), frac).to(torch.int32)


@dataclass(frozen=True, slots=True)
class Waves:
    """A series: ``sum_k beta_k sin(2 pi k i / period)``, or of cosines if ``even``; i counts units.

    A term's dealt factor has ``frac`` fraction bits and its public one ``public_frac``; their products are
    added up modulo ``2^ring``.
    """

    period: int
    coefficients: tuple[float, ...]
    even: bool = False
    frac: int = WAVE_FRAC
    public_frac: int = WAVE_FRAC
    ring: int = SERIES_RING


@lru_cache(maxsize=8)
def _public_table(waves: Waves) -> Tensor:
    """(period, 2K), what the mask's cosines and sines are multiplied with.

    beta_k sin(2 pi k i / period), then -beta_k cos of it; if even, beta_k cos and beta_k sin.
    """
    cosines, sines = wave_table(waves.period, len(waves.coefficients)).chunk(2, dim=1)
    factors = [cosines, sines] if waves.even else [sines, -cosines]
    beta = torch.tensor(waves.coefficients, dtype=torch.float64)
    table = _fixed(torch.cat([beta * factor for factor in factors], dim=1), waves.public_frac).contiguous()
    return table.to(torch.int32) if waves.ring == SERIES_RING else table


@lru_cache(maxsize=8)
def _checksum(waves: Waves) -> PublicConstants:
    return constants(_public_table(waves))


@dataclass(frozen=True, slots=True)
class Harmonics(Correlation):
    """cos and sin of ``k`` times a mask, k = 1 .. terms, in a period of ``period`` units.

    They have ``frac`` fraction bits and are shared modulo ``2^bits``.
    Where the period does not divide ``2^ring``, both values that the mask can stand for (with and
    without the wrap that the opening's public part tells) are dealt.
    """

    mask: Ref
    bit: Ref | None
    shape: Shape
    ring: int
    period: int
    terms: int
    frac: int
    bits: int

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
        shape = (count, self.variants, 2 * self.terms)
        sharing = Sharing.HALVES if self.bits == SERIES_RING else Sharing.ADDITIVE
        return (Field(shape, Source.DERIVED, self.bits, sharing),)

    @property
    def refs(self) -> tuple[Ref, ...]:
        """The mask, and its top bit where wraps matter."""
        return (self.mask,) if self.variants == 1 or self.bit is None else (self.mask, self.bit)

    def derive(self, random: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
        """The harmonics, read off one table."""
        table = _dealt_table(self.period, self.terms, self.frac)
        mask = inputs[0].reshape(-1)
        index = _residue(mask, self.period)
        if self.variants == 2:
            # A mask of 63 bits and its room may take the sign bit.
            index = _residue(index + (mask < 0) * ((1 << 64) % self.period), self.period)
            wrap = (1 << self.ring) % self.period
            wrapped = _residue(index - wrap * inputs[1].reshape(-1), self.period)
            index = torch.stack([index, wrapped], dim=1).reshape(-1)
        # Many times as fast as an index in brackets.
        chosen = table.index_select(0, index).reshape(-1, self.variants, table.shape[1])
        return [chosen if self.bits == SERIES_RING else chosen.to(torch.int64)]


def _residue(x: Tensor, period: int) -> Tensor:
    """``x`` modulo a period, not negative."""
    return torch.remainder(x, period) if period & (period - 1) else x & (period - 1)


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
    return (yield from evaluate_waves(x, Waves(round(period * 2**x.frac), coefficients)))


def cosine_series(x: Opened, period: float, coefficients: tuple[float, ...]) -> Protocol[Secret]:
    """``sum_k a_k cos(2 pi k x / period)``, k from 1, of a masked x, modulo ``2^64`` with 32 fraction bits.

    With ``x = P - R``: ``cos kx = cos kP cos kR + sin kP sin kR``; T deals the terms in R.

    Cost: 0 rounds; 0 bytes; dealer: 2 words an element and term, twice that for a period that is no power
    of two. Error: typically ``2^-18 sqrt(2K + 2 sum a_k^2)``, at most some five times that, beside the
    series' own.
    Security: as :func:`sine_series`.
    Source: SecFormer, section 3 (Pi_Sin), for cosines.
    """
    waves = Waves(round(period * 2**x.frac), coefficients, True, EVEN_FRAC, EVEN_FRAC, 64)
    return (yield from evaluate_waves(x, waves))


def evaluate_waves(
    x: Opened,
    waves: Waves,
    *,
    start: Tensor | None = None,
    raised: int = 0,
    constant: int = 0,
) -> Protocol[Secret]:
    """The series of a masked x.

    A share ``start``, ``raised`` by so many bits, and a public constant at the result's scale are added.
    """
    table = _public_table(waves)
    yield from deal(_checksum(waves))
    shape = tuple(x.public.shape)
    correlation = Harmonics(
        x.mask, x.bit, shape, x.ring, waves.period, len(waves.coefficients), waves.frac, waves.ring
    )
    dealt = yield from deal(correlation)
    (words,) = dealt.shares
    if correlation.variants == 2:
        if x.wrap is None:
            raise ValueError("a period that is no power of two needs a truncated value")
        count, _, width = words.shape
        chosen = torch.arange(count, device=words.device) * 2 + x.wrap.reshape(-1)
        words = words.reshape(-1, width).index_select(0, chosen)
    else:
        words = words[:, 0]
    total = harmonic_sum(
        x.public.reshape(-1),
        table.to(words.device),
        words,
        start=None if start is None else start.reshape(-1),
        raised=raised,
        constant=constant if x.server == 0 else 0,
    )
    return Secret(x.server, total.reshape(shape), waves.frac + waves.public_frac, waves.ring)


def open_for_series(x: Secret, period: float, frac: int) -> Protocol[tuple[Secret, Opened]]:
    """X with ``frac`` fraction bits, and its opening, which serves a series of that period.

    A period that is no power of two needs the wrap that a truncation's opening tells. An x that would not
    be truncated is given a further bit, 0, for it to cut off.

    Cost: the truncation's, or 1 round and 8 bytes an element each way.
    """
    x = yield from truncate(x, frac)
    if x.truncated is None and (1 << x.ring) % round(period * 2**frac):
        x = yield from truncate(x.at(frac + 1), frac)
    return x, (yield from open_elementwise(x))


def saturating_series(
    x: Opened, choice: FourierErf, *, bits: int, comparison: Comparison
) -> Protocol[Secret]:
    """An odd function that is ``choice``'s series inside ``|x| < cut`` and its sign outside.

    ``bits`` is the width of x with its sign and one bit of room. The result has 14 fraction bits.

    Cost after x's opening: that of :func:`saturate`, in which the series' 18 bits an element and its
    truncation (dealer: 11.5 bytes) are included; dealer: the series'.
    Error: the series' own plus ``2^-14 sqrt((K + sum beta_k^2) / 12 + 1/6)``, typically: 6e-5 for 8 terms
    and 8e-5 for 14. Some six times that at most: 4e-4 and 5e-4.
    """
    return (yield from saturate(x, choice.cut, series_form(x, choice), bits=bits, comparison=comparison))


def saturate(
    x: Opened, cut: float, inside: Protocol[Form], *, bits: int, comparison: Comparison
) -> Protocol[Secret]:
    """A function of x inside ``|x| < cut``, and x's sign outside.

    ``g = 1 - [x < -c] - [x < c] + ([x < c] - [x < -c]) inside``; ``inside`` yields a form with 14 fraction
    bits. Where x is outside both bits are equal, so that whatever it is there cancels exactly.

    Cost beside that of ``inside``, which runs at the same time: 2 rounds and 22 bits an element each way
    for the default width by tables (6 chunks, 2 cuts), by the adder 7 rounds; dealer: for ``inside`` a
    truncation of a series, 16 bytes of conversion and 27.5 of the products, and the comparison's.
    """
    below, value = yield from parallel(_below(x, (-cut, cut), bits, comparison), inside)
    chosen = yield from product(below, value)
    flags = evaluate(below).share
    share = chosen.share[1] - chosen.share[0] - ((flags[0] + flags[1]) << chosen.frac)
    return Secret(x.server, share, chosen.frac).plus_public(1 << chosen.frac)


def _below(x: Opened, cuts: tuple[float, ...], bits: int, comparison: Comparison) -> Protocol[Form]:
    flags = yield from below_cuts(x, cuts, bits=bits, comparison=comparison)
    return (yield from arithmetic(x.server, flags))


def below_cuts(x: Opened, cuts: tuple[float, ...], *, bits: int, comparison: Comparison) -> Protocol[Bits]:
    """``x < c`` for each cut, in XOR shares; ``bits`` is x's width with its sign and one bit of room.

    Cost: that of :func:`~secformer_rt.protocols.comparison.less_than`; by tables 1 round, for which the
    lowest bits are left out where x has more than 25.

    Raises:
        BadConfigError: a cut is beyond the width.
    """
    reach = 2.0 ** (bits - 2 - x.frac)
    if any(abs(cut) > reach for cut in cuts):
        raise BadConfigError(
            f"A cut of {max(cuts, key=abs):g} is beyond the values that are served, up to {reach:g}: "
            "raise fixed_point.range, or choose smaller cuts."
        )
    thresholds = tuple(round(cut * 2**x.frac) for cut in cuts)
    drop = max(0, bits - 1 - CHUNK * LAST_RADIX)
    return (yield from less_than(x, thresholds, bits=bits, drop=drop, method=comparison))


def series_form(x: Opened, choice: FourierErf, frac: int = WAVE_FRAC, bits: int = 64) -> Protocol[Form]:
    """``choice``'s series of x, everywhere, as a form with ``frac`` fraction bits modulo ``2^bits``.

    Cost: 1 round; 18 bits an element each way; dealer: by default 11.5 bytes an element, and
    :func:`sine_series`'.
    """
    series = yield from sine_series(x, choice.period, series_of(choice))
    return truncated_opening((yield from truncate(series, frac, bits))).form
