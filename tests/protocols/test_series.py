from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import pytest
import torch
from torch import Tensor

from secformer_rt.errors import BadConfigError
from secformer_rt.graph import approximations
from secformer_rt.graph.preset import FourierErf
from secformer_rt.protocols.core import Protocol, Secret
from secformer_rt.protocols.lowering import Model
from secformer_rt.protocols.masking import open_masked
from secformer_rt.protocols.series import gelu, sine_series, tanh
from secformer_rt.protocols.truncation import truncate
from tests.protocols.common import plain, preset, random_words, run_words, total
from tests.support import run_protocol

FRAC, RANGE = 12, 8
UNIT = 2.0**-FRAC
BITS = RANGE + FRAC + 2


def series_error(choice: FourierErf) -> float:
    """More than what the series' fixed point adds to it: nine standard deviations."""
    return 4 * 2.0**-15 * sqrt(2 * len(approximations.series_of(choice)))


def everywhere(cut: float) -> Tensor:
    """The whole range, densely inside the cut, to a unit around it, and far outside."""
    edge = 2.0**RANGE
    steps = torch.arange(-40, 41, dtype=torch.float64) * UNIT
    return torch.cat(
        [
            torch.linspace(-edge + UNIT, edge - 2 * UNIT, 15001, dtype=torch.float64),
            torch.linspace(-cut, cut, 15001, dtype=torch.float64),
            cut + steps,
            -cut + steps,
            steps,
            torch.tensor([-edge, edge - 2 * UNIT], dtype=torch.float64),
        ]
    )


def around(function: Callable[[Tensor], Tensor], x: Tensor, cut: float) -> tuple[Tensor, Tensor]:
    """Smallest and largest value that a function has within the truncation's error of x.

    That is a unit, and half of one more at the cut, which is rounded to units.
    """
    reach = UNIT * torch.where((x.abs() - cut).abs() < 3 * UNIT, 1.5, 1.0)
    near = torch.stack([function(x + d / 3 * reach) for d in range(-3, 4)])
    return near.amin(0), near.amax(0)


@pytest.mark.parametrize("name", ["exact", "secformer"])
def test_gelu_over_the_whole_range(name: str) -> None:
    choice = preset(name).gelu
    x = everywhere(choice.cut)
    outcome = run_protocol(lambda _, i: gelu(i[0], choice, frac=FRAC, bits=BITS), (x, 26))
    got = outcome.value()
    low, high = around(lambda v: approximations.gelu(v, choice), x, choice.cut)
    # Outside the cut the series has no error, and its factor is exactly 0 or 1.
    inside = x.abs() <= choice.cut + 2 * UNIT
    slack = torch.where(inside, x.abs() / 2 * series_error(choice) + UNIT / 8, 1e-9)
    assert bool((got >= low - slack).all() and (got <= high + slack).all())
    assert outcome.plan.rounds == 4


def test_gelu_is_gelu() -> None:
    x = torch.linspace(-60, 60, 9001, dtype=torch.float64)
    choice = preset("exact").gelu
    got = run_protocol(lambda _, i: gelu(i[0], choice, frac=FRAC, bits=BITS), (x, 26)).value()
    assert float((got - torch.nn.functional.gelu(x)).abs().max()) < 8e-4


def test_tanh_over_the_whole_range() -> None:
    choice = preset("exact").tanh
    x = everywhere(choice.cut)
    outcome = run_protocol(lambda _, i: tanh(i[0], choice, frac=FRAC, bits=BITS), (x, 26))
    got = outcome.value()
    low, high = around(lambda v: approximations.segmented_series(v, choice), x, choice.cut)
    slack = torch.where(x.abs() <= choice.cut + 2 * UNIT, series_error(choice), 0.0)
    assert bool((got >= low - slack).all() and (got <= high + slack).all())
    assert float((got - x.tanh()).abs().max()) < 1e-3
    assert outcome.plan.rounds == 3


@pytest.mark.parametrize("period", [16.0, 28.284271247461902, 7.0])
@pytest.mark.parametrize("terms", [1, 8])
def test_a_series_of_a_truncated_value(period: float, terms: int) -> None:
    coefficients = tuple(1.9 / 2**k for k in range(terms))

    def build(s: list[Secret], _: Model) -> Protocol[list[Secret]]:
        x = yield from truncate(s[0], FRAC)
        assert x.truncated is not None
        return [x, (yield from sine_series(x.truncated, period, coefficients))]

    outcome = run_words(build, (random_words(4000, bits=36), 26))
    x = total([r[0] for r in outcome.results]) * UNIT
    a, b = (r[1] for r in outcome.results)
    assert (a.ring, a.frac) == (32, 28)
    got = total([a, b]) * 2.0**-28
    used = round(period * 2**FRAC) * UNIT  # the period in whole units
    error = got - approximations.odd_series(x, coefficients, used)
    assert float(error.abs().max()) < 4 * 2.0**-15 * sqrt(2 * terms)
    dealt = sum(outcome.plan.dealer_bytes) / 4000 - (8 + 2)  # beside the truncation's word and bit
    assert dealt == 2 * 4 * terms * (1 if period == 16.0 else 2)


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
        return gelu(s[0], choice, frac=FRAC, bits=BITS)

    choice = FourierErf(protocol="fourier", period=16, cut=4, coefficients=(2.0, -1.9))
    with pytest.raises(BadConfigError, match="coefficients"):
        run_words(build, (plain(1), 26))
