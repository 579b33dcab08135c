from __future__ import annotations

from collections.abc import Callable
from math import log

import pytest
import torch
from torch import Tensor

from secformer_rt.graph import goldschmidt as reference
from secformer_rt.graph.goldschmidt import Deflation, deflation
from secformer_rt.graph.preset import Seeded
from secformer_rt.protocols.inverse import Kind, goldschmidt, seeded
from tests.protocols.common import run_words, total

KINDS: tuple[Kind, ...] = ("reciprocal", "rsqrt")
EXACT: dict[Kind, Callable[[Tensor], Tensor]] = {"reciprocal": lambda v: 1 / v, "rsqrt": lambda v: v**-0.5}
FRAC = 30


def over(low: int, high: int, count: int = 2000) -> Tensor:
    """Words evenly spread over the octaves of [2^low, 2^high], and both ends."""
    exponents = torch.linspace(low, high, count, dtype=torch.float64)
    return (torch.exp2(exponents) * 2.0**FRAC).round().to(torch.int64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("low", "high"), [(-2, 6), (-3, 5), (-4, 7), (-12, -4), (6, 14), (-6, 6)])
def test_goldschmidt_does_what_floating_point_does(kind: Kind, low: int, high: int) -> None:
    words = over(low, high)
    chosen = deflation(2.0**low, 2.0**high, kind, 1e-5, 40)
    outcome = run_words(lambda s, _: goldschmidt(s[0], kind, chosen), (words, FRAC))
    got = total(outcome.results) * 2.0 ** -outcome.results[0].frac
    used = chosen
    if kind == "rsqrt" and chosen.exponent % 2:
        used = Deflation(chosen.exponent + 1, chosen.iterations + 1)
    value = words * 2.0**-FRAC
    iterate = reference.reciprocal if kind == "reciprocal" else reference.rsqrt
    # The first truncation of q costs a unit of 2^-26 relative to q, which may be as small as low / eta.
    bound = 2.0**-14 + 2.0 ** (used.exponent - low - 24)
    assert float((got / iterate(value, used) - 1).abs().max()) < bound
    assert float((got / EXACT[kind](value) - 1).abs().max()) < bound + 1e-5
    assert outcome.plan.rounds == used.iterations


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("low", "high"), [(-1, 6), (-1, 9), (-2, 6), (-6, 8)])
@pytest.mark.parametrize("segments", [4, 16])
def test_seeded_is_a_line_an_interval(kind: Kind, low: int, high: int, segments: int) -> None:
    words = over(low, high, 1500)
    choice = Seeded(protocol="seeded", segments=segments)
    outcome = run_words(
        lambda s, _: seeded(s[0], kind, 2.0**low, 2.0**high, choice, frac=24, slope_frac=30), (words, FRAC)
    )
    got = total(outcome.results) * 2.0 ** -outcome.results[0].frac
    claim = (log(2) / segments) ** 2 / 8 * (1 if kind == "reciprocal" else 3 / 8)
    error = (got / EXACT[kind](words * 2.0**-FRAC) - 1).abs()
    # A line's end is left a little late where comparisons drop bits, and slopes have 30 fraction bits.
    assert float(error.max()) < 1.7 * claim + 2.0 ** (high - low - 24) + 2.0 ** (2 * high - 30)
    assert float(error.max()) > claim / 2
    assert outcome.plan.rounds <= 4


def test_seeded_takes_a_value_that_has_few_fraction_bits() -> None:
    words = torch.arange(1, 65, dtype=torch.int64) << 16
    choice = Seeded(protocol="seeded")
    outcome = run_words(
        lambda s, _: seeded(s[0], "reciprocal", 1.0, 64.0, choice, frac=16, slope_frac=30), (words, 16)
    )
    got = total(outcome.results) * 2.0 ** -outcome.results[0].frac
    assert float((got * torch.arange(1, 65) - 1).abs().max()) < 6e-4


@pytest.mark.parametrize("kind", KINDS)
def test_outside_the_range_the_outer_lines_go_on(kind: Kind) -> None:
    words = torch.tensor([0.6, 0.7, 20.0, 24.0], dtype=torch.float64).mul(2.0**FRAC).to(torch.int64)
    choice = Seeded(protocol="seeded", segments=4)
    outcome = run_words(
        lambda s, _: seeded(s[0], kind, 1.0, 16.0, choice, frac=24, slope_frac=30), (words, FRAC)
    )
    got = total(outcome.results) * 2.0 ** -outcome.results[0].frac
    exact = EXACT[kind](words * 2.0**-FRAC)
    assert bool((got < exact).all())  # a convex function lies above its chords' continuation
    near = EXACT[kind](torch.tensor([1.0, 1.0, 16.0, 16.0], dtype=torch.float64))
    assert bool(((got - near).sign() == torch.tensor([1.0, 1.0, -1.0, -1.0])).all())
