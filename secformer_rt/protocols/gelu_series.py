"""GeLU of small values as half of them and an even series, from one opening of few bits."""

from __future__ import annotations

from math import ceil, log2

from secformer_rt.graph.approximations import even_coefficients
from secformer_rt.graph.preset import SERIES_BITS, EvenSeries
from secformer_rt.protocols.core import Protocol, Secret
from secformer_rt.protocols.masking import open_reduced
from secformer_rt.protocols.series import SERIES_RING, Waves, evaluate_waves

INDEX_FRAC = 11  # fraction bits of the series' argument
DEALT_FRAC = 12  # of a dealt cosine or sine


def result_frac(choice: EvenSeries) -> int:
    """Fraction bits of the result, whose truncation leaves values up to the period."""
    return SERIES_BITS + 1 - ceil(log2(choice.period))


def argument_ring(choice: EvenSeries, frac: int) -> int:
    """The ring in which an argument with ``frac`` fraction bits must be known."""
    return SERIES_RING + 1 + frac - result_frac(choice)


def gelu_series(x: Secret, choice: EvenSeries) -> Protocol[Secret]:
    """``x / 2 + sum_k a_k cos(2 pi k x / period)``, k from 0, modulo ``2^32``.

    The series is periodic, so x is opened modulo its period, with INDEX_FRAC fraction bits
    (:func:`~.masking.open_reduced`). ``x / 2`` is local.

    Cost: 1 round; INDEX_FRAC and ``log2 period`` bits an element each way; dealer: 8 bytes a term.
    Error: the series' own; 2^-12 typically, times the slope, from x; ``2^-13 sqrt(sum a_k^2)`` and
    ``2^-(result_frac - 12) sqrt(K) / 2`` from both factors of its terms.
    Security: the opening is masked modulo the period, which is a power of two; nothing else is opened.
    Source: SecFormer (arXiv 2401.00793), section 3, Pi_Sin, applied to the even part of GeLU.

    Raises:
        ValueError: x is known in a narrower ring than :func:`argument_ring`.
    """
    if x.ring < argument_ring(choice, x.frac):
        raise ValueError(f"GeLU's argument is needed modulo 2^{argument_ring(choice, x.frac)}")
    constant, *coefficients = even_coefficients(choice)
    frac = result_frac(choice)
    opened = yield from open_reduced(x, INDEX_FRAC, INDEX_FRAC + ceil(log2(choice.period)))
    units = round(choice.period * 2**INDEX_FRAC)
    waves = Waves(units, tuple(coefficients), True, DEALT_FRAC, frac - DEALT_FRAC, SERIES_RING)
    return (
        yield from evaluate_waves(
            opened,
            waves,
            start=x.held,
            raised=frac - x.frac - 1,
            constant=round(constant * 2**frac),
        )
    )
