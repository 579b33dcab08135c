from __future__ import annotations

from math import sqrt

import pytest
import torch

from secformer_rt.errors import BadConfigError
from secformer_rt.graph import approximations
from secformer_rt.graph.preset import Comparison, FourierErf, FourierTanh
from secformer_rt.protocols.core import Opened, Protocol, Secret
from secformer_rt.protocols.masking import open_masked
from secformer_rt.protocols.model import Model
from secformer_rt.protocols.series import (
    below_cuts,
    cosine_series,
    open_for_series,
    saturating_series,
    sine_series,
)
from secformer_rt.protocols.truncation import truncate
from secformer_rt.ring.packing import packed_size
from tests.protocols.common import plain, plan_words, preset, random_words, run_words
from tests.protocols.test_comparison import opened_bits

FRAC, RANGE = 12, 8
UNIT = 2.0**-FRAC
BITS = RANGE + FRAC + 2


@pytest.mark.parametrize("period", [16.0, 28.284271247461902, 7.0])
@pytest.mark.parametrize("terms", [1, 8])
@pytest.mark.parametrize("even", [False, True])
@pytest.mark.parametrize("bits", [64, 37])
def test_a_series_of_a_truncated_value(period: float, terms: int, even: bool, bits: int) -> None:
    coefficients = tuple(1.9 / 2**k for k in range(terms))
    series = cosine_series if even else sine_series

    def build(s: list[Secret], _: Model) -> Protocol[list[Secret]]:
        x = yield from truncate(s[0], FRAC, bits)
        assert x.truncated is not None
        return [x, (yield from series(x.truncated, period, coefficients))]

    outcome = run_words(build, (random_words(2000, bits=36), 26, 50))
    x = outcome.value(lambda r: r[0])
    got = outcome.value(lambda r: r[1])
    assert (outcome.results[0][1].ring, outcome.results[0][1].frac) == ((64, 32) if even else (32, 28))
    used = round(period * 2**FRAC) * UNIT  # the period in whole units
    if even:
        angle = x[:, None] * torch.arange(1, terms + 1) * (2 * torch.pi / used)
        want = angle.cos() @ torch.tensor(coefficients, dtype=torch.float64)
        bound = 5 * 2.0**-18 * sqrt(2 * terms + 2 * sum(c * c for c in coefficients))
    else:
        want = approximations.odd_series(x, coefficients, used)
        bound = 4 * 2.0**-15 * sqrt(2 * terms)
    assert float((got - want).abs().max()) < bound
    dealt = sum(outcome.plan.dealer_bytes) / 2000 - 2 * (bits - 36) / 8  # beside the truncation's
    assert dealt == 2 * (8 if even else 4) * terms * (1 if period == 16.0 else 2)


@pytest.mark.parametrize(("name", "typical"), [("exact", 6e-5), ("secformer", 6e-5), ("tanh", 8e-5)])
def test_the_noise_of_a_saturating_series(name: str, typical: float) -> None:
    choice = preset("exact").tanh if name == "tanh" else preset(name).gelu
    assert isinstance(choice, FourierErf)

    def build(s: list[Secret], model: Model) -> Protocol[Secret]:
        _, opened = yield from open_for_series(s[0], choice.period, FRAC)
        return (yield from saturating_series(opened, choice, bits=BITS, comparison="tables"))

    inside = int(choice.cut * 2**FRAC) - 1
    x = torch.arange(-inside, inside + 1)
    error = run_words(build, (x, FRAC)).value() - approximations.segmented_series(x.double() * UNIT, choice)
    beta = approximations.series_of(choice)
    stated = 2.0**-14 * sqrt((len(beta) + sum(b * b for b in beta)) / 12 + 1 / 6)
    assert stated < 1.05 * typical
    assert float(error.square().mean().sqrt()) < 1.1 * stated
    assert float(error.abs().max()) < (5e-4 if isinstance(choice, FourierTanh) else 4e-4)


@pytest.mark.parametrize("frac", [26, FRAC, 5])
@pytest.mark.parametrize("period", [16.0, 7.0])
def test_an_opening_serves_any_period(frac: int, period: float) -> None:
    def build(s: list[Secret], _: Model) -> Protocol[tuple[Secret, Opened]]:
        return (yield from open_for_series(s[0], period, FRAC))

    x = random_words(300, bits=RANGE + frac)
    outcome = run_words(build, (x, frac))
    assert outcome.plan.rounds == 1
    cut = max(frac - FRAC, 0 if period == 16.0 else 1)
    assert outcome.plan.server_bytes == packed_size(300, 64 - cut)
    assert outcome.results[0][1].wrap is not None or period == 16.0
    error = outcome.value(lambda r: r[0]) - x.double() * 2.0**-frac
    assert float(error.abs().max()) < (UNIT if frac > FRAC else 1e-12)


def test_an_opening_is_not_made_twice() -> None:
    def build(s: list[Secret], _: Model) -> Protocol[tuple[Secret, Opened]]:
        yield from open_masked(s[0])
        return (yield from open_for_series(s[0], 16.0, FRAC))

    assert plan_words(build, (plain(1), FRAC)).rounds == 1


def test_any_opening_will_do_for_a_period_that_divides_the_ring() -> None:
    def build(s: list[Secret], _: Model) -> Protocol[Secret]:
        opened = yield from open_masked(s[0])
        return (yield from sine_series(opened, 8.0, (1.0,)))

    x = random_words(500)
    got = run_words(build, (x, FRAC)).value()
    want = (2 * torch.pi / 8 * torch.remainder(x, 8 << FRAC) * UNIT).sin()
    assert float((got - want).abs().max()) < 2.0**-12


def test_another_period_needs_a_truncated_value() -> None:
    def build(s: list[Secret], _: Model) -> Protocol[Secret]:
        opened = yield from open_masked(s[0])
        return (yield from sine_series(opened, 7.0, (1.0,)))

    with pytest.raises(ValueError, match="truncated"):
        run_words(build, (plain(1), FRAC))


def test_coefficients_must_fit_the_small_ring() -> None:
    def build(s: list[Secret], _: Model) -> Protocol[Secret]:
        opened = yield from open_masked(s[0])
        return (yield from sine_series(opened, 16.0, (2.0, -1.9)))

    with pytest.raises(BadConfigError, match="coefficients"):
        plan_words(build, (plain(1), FRAC))


@pytest.mark.parametrize("comparison", ["tables", "adder"])
@pytest.mark.parametrize("cuts", [(0.0,), (-(2.0**RANGE), 2.0**RANGE), (-3.7, -0.1, 0.00017, 250.0)])
def test_cuts_are_rounded_to_units(cuts: tuple[float, ...], comparison: Comparison) -> None:
    def build(s: list[Secret], _: Model) -> Protocol[object]:
        opened = yield from open_masked(s[0])
        return (yield from below_cuts(opened, cuts, bits=BITS, comparison=comparison))

    units = [round(cut * 2**FRAC) for cut in cuts]
    end = 1 << RANGE + FRAC
    near = [t + d for t in units for d in (-2, -1, 0, 1, 2) if -end <= t + d < end]
    x = torch.cat([plain(*near, -end + 1, end - 1), random_words(500, bits=RANGE + FRAC + 1)])
    found = opened_bits(run_words(build, (x, FRAC)), (len(cuts), *x.shape))
    assert torch.equal(found, torch.stack([x < t for t in units]))


def test_a_cut_beyond_the_width_is_refused() -> None:
    def build(s: list[Secret], _: Model) -> Protocol[object]:
        opened = yield from open_masked(s[0])
        return (yield from below_cuts(opened, (-300.0, 1.0), bits=BITS, comparison="tables"))

    with pytest.raises(BadConfigError, match="cut of -300 is beyond the values that are served, up to 256"):
        plan_words(build, (plain(1), FRAC))
