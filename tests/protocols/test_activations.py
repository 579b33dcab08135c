from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from secformer_rt.errors import BadConfigError
from secformer_rt.graph import approximations
from secformer_rt.graph.preset import (
    Comparison,
    EvenSeries,
    FourierErf,
    FourierTanh,
    Gelu,
    Polynomial,
    TanhGelu,
)
from secformer_rt.protocols.activations import _root, gelu, relu, sigmoid, tanh
from secformer_rt.protocols.core import Protocol, Secret
from secformer_rt.protocols.masking import open_masked
from secformer_rt.protocols.model import Model
from tests.protocols.common import Build, plain, plan_words, preset, random_words, run_words
from tests.support import Outcome, run_protocol

FRAC, RANGE = 12, 8
UNIT, END = 2.0**-FRAC, 2.0**RANGE
BITS = RANGE + FRAC + 2
TANH = preset("exact").tanh
EVEN = EvenSeries(protocol="even", period=32, cut=14, terms=20)
CHOICES: dict[str, Gelu] = {
    "even": EVEN,
    "exact": preset("exact").gelu,
    "secformer": preset("secformer").gelu,
    "quad": preset("mpcformer").gelu,
    "puma": preset("puma").gelu,
    "crypten": preset("crypten").gelu,
    "east": preset("east").gelu,
    "relu": preset("the-x").gelu,
}
COMPARISONS: list[Comparison] = ["tables", "adder"]


def cuts_of(choice: Gelu) -> tuple[float, ...]:
    match choice:
        case EvenSeries():
            return ()
        case FourierErf():
            return (-choice.cut, choice.cut)
        case Polynomial():
            return choice.cuts
        case TanhGelu():
            cut = _root(choice, TANH.cut, END)
            return (-cut, cut)
    return ()


def everywhere(cuts: tuple[float, ...], end: float = END) -> Tensor:
    """The range to its ends, densely around 0 and the cuts, and at random."""
    steps = torch.arange(-12, 13, dtype=torch.float64) * UNIT
    return torch.cat(
        [
            torch.linspace(-end + 1, end - 1, 601, dtype=torch.float64),
            torch.linspace(-min(end, 8), min(end, 8), 1001, dtype=torch.float64),
            random_words(300).double() * 2.0**-63 * (end - 2 * UNIT),
            *(cut + steps for cut in (0.0, *cuts)),
            torch.tensor([-end + UNIT, end - 2 * UNIT], dtype=torch.float64),
        ]
    )


def bounds(
    function: Callable[[Tensor], Tensor], x: Tensor, cuts: tuple[float, ...], rounding: float
) -> tuple[Tensor, Tensor]:
    """Smallest and largest value of a function within the rounding of x, and of a cut to units, of x."""
    distance = torch.stack([(x - cut).abs() for cut in (*cuts, 1e9)]).amin(0)
    reach = rounding + torch.where(distance < 3 * UNIT, UNIT / 2, 0.0)
    near = torch.stack([function(x + d / 2 * reach) for d in range(-2, 3)])
    return near.amin(0), near.amax(0)


def check(
    outcome: Outcome,
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    frac: int,
    cuts: tuple[float, ...],
    slack: Tensor | float,
) -> None:
    """The result is the function's of x as it is rounded from ``frac`` bits, but for ``slack``."""
    got = outcome.value()
    low, high = bounds(function, x, cuts, UNIT if frac > FRAC else 0.0)
    wrong = (got < low - slack) | (got > high + slack)
    assert not wrong.any(), (x[wrong][:5], got[wrong][:5], low[wrong][:5], high[wrong][:5])


def slack_of(choice: Gelu, x: Tensor) -> Tensor | float:
    """The error that the docstrings state, beside x's rounding times the slope."""
    half = x.abs() / 2
    match choice:
        case EvenSeries():
            return 1.5e-4
        case FourierErf():
            return torch.where(half <= (choice.cut + 2 * UNIT) / 2, half * 4e-4 + UNIT / 16, 1e-9)
        case TanhGelu():
            cut = cuts_of(choice)[1]
            return torch.where(half <= (cut + 2 * UNIT) / 2, half * 5e-4 + 1e-4 + UNIT / 16, 1e-9)
        case Polynomial():
            return torch.where((x < choice.cuts[0] - UNIT) | (x > choice.cuts[-1] + UNIT), 0.0, 1e-4)
    return UNIT / 1000  # the quadratic has an extremum between the samples of bounds


@pytest.mark.parametrize("comparison", COMPARISONS)
@pytest.mark.parametrize("frac", [26, FRAC, 5])
@pytest.mark.parametrize("name", CHOICES)
def test_gelu_over_the_whole_range(name: str, frac: int, comparison: Comparison) -> None:
    choice = CHOICES[name]
    cuts = cuts_of(choice)
    x = everywhere(cuts, EVEN.cut if choice is EVEN else END)
    x = (x * 2**frac).round() / 2**frac

    def build(_: int, s: list[Secret]) -> Protocol[Secret]:
        return gelu(s[0], choice, TANH, frac=FRAC, bits=BITS, comparison=comparison)

    outcome = run_protocol(build, (x, frac))
    check(outcome, lambda v: approximations.gelu(v, choice, TANH), x, frac, cuts, slack_of(choice, x))


@pytest.mark.parametrize(
    ("name", "error"),
    [("even", 5e-5 + 1.5e-4), ("exact", 8e-4), ("puma", 0.02), ("crypten", 1.2e-3), ("east", 1.4e-3)],
)
def test_gelu_is_gelu(name: str, error: float) -> None:
    end = 14.0 if name == "even" else 60.0
    x = (torch.linspace(-end, end, 3001, dtype=torch.float64) * 2**FRAC).round() / 2**FRAC

    def build(_: int, s: list[Secret]) -> Protocol[Secret]:
        return gelu(s[0], CHOICES[name], TANH, frac=FRAC, bits=BITS, comparison="tables")

    assert float((run_protocol(build, (x, FRAC)).value() - functional.gelu(x)).abs().max()) < error


@pytest.mark.parametrize("comparison", COMPARISONS)
@pytest.mark.parametrize("name", ["exact", "secformer", "puma", "crypten", "east", "relu"])
def test_far_out_nothing_is_left_of_the_other_pieces(name: str, comparison: Comparison) -> None:
    """There powers exceed the ring and a series repeats: still 0 or x, to the last bit."""
    end = int(END) << FRAC
    far = random_words(500, bits=RANGE + FRAC + 1)
    x = torch.cat([far[far.abs() > 6 << FRAC], plain(end - 1, end - 2, -end, -end + 1)])
    outcome = run_words(
        lambda s, _: gelu(s[0], CHOICES[name], TANH, frac=FRAC, bits=BITS, comparison=comparison),
        (x, FRAC),
    )
    assert torch.equal(outcome.value(), x.clamp(min=0).double() * UNIT)


@pytest.mark.parametrize("frac", [6, 14])
@pytest.mark.parametrize("name", ["exact", "quad", "puma", "crypten"])
def test_other_precisions(name: str, frac: int) -> None:
    """``fixed_point.function``: a polynomial keeps 12 bits of more."""
    choice = CHOICES[name]
    x = torch.cat([torch.linspace(-e, e, 401, dtype=torch.float64) for e in (6.0, END - 1)])
    bits = RANGE + frac + 2

    def build(_: int, s: list[Secret]) -> Protocol[Secret]:
        return gelu(s[0], choice, TANH, frac=frac, bits=bits, comparison="tables")

    error = run_protocol(build, (x, 26)).value() - approximations.gelu(x, choice, TANH)
    kept = min(frac, FRAC)
    slope = x.abs() / 4 + 0.25 if name == "quad" else 1.2
    jumps = torch.stack([(x - cut).abs() for cut in (*cuts_of(choice), 1e9)]).amin(0) < 2 * 2.0**-kept
    # u's and the square's rounding act like some more of x's.
    assert bool((error.abs() < 2.5 * slope * 2.0**-kept + 2e-3)[~jumps].all())


@pytest.mark.parametrize("comparison", COMPARISONS)
@pytest.mark.parametrize("frac", [26, FRAC, 5])
@pytest.mark.parametrize("choice", [TANH, FourierTanh(protocol="fourier", period=13, cut=5, terms=12)])
def test_tanh_over_the_whole_range(choice: FourierTanh, frac: int, comparison: Comparison) -> None:
    cuts = (-choice.cut, choice.cut)
    x = (everywhere(cuts) * 2**frac).round() / 2**frac

    def build(_: int, s: list[Secret]) -> Protocol[Secret]:
        return tanh(s[0], choice, frac=FRAC, bits=BITS, comparison=comparison)

    outcome = run_protocol(build, (x, frac))
    assert outcome.results[0].frac == 14
    slack = torch.where(x.abs() <= choice.cut + 2 * UNIT, 5e-4, 0.0)
    check(outcome, lambda v: approximations.segmented_series(v, choice), x, frac, cuts, slack)
    assert float((outcome.value() - x.tanh()).abs().max()) < 1.5e-3


@pytest.mark.parametrize("comparison", COMPARISONS)
@pytest.mark.parametrize("frac", [26, FRAC, 5])
def test_sigmoid_over_the_whole_range(frac: int, comparison: Comparison) -> None:
    cuts = (-2 * TANH.cut, 2 * TANH.cut)
    x = (everywhere(cuts) * 2**frac).round() / 2**frac

    def build(_: int, s: list[Secret]) -> Protocol[Secret]:
        return sigmoid(s[0], TANH, frac=FRAC, bits=BITS, comparison=comparison)

    outcome = run_protocol(build, (x, frac))
    assert outcome.results[0].frac == 15
    # x / 2 has a bit more than x: of 12 it is rounded too, by a unit, which is two of x.
    low, high = bounds(lambda v: approximations.sigmoid(v, TANH), x, cuts, 2 * UNIT if frac >= FRAC else 0.0)
    slack = torch.where(x.abs() <= 2 * TANH.cut + 6 * UNIT, 2.5e-4, 0.0)
    got = outcome.value()
    assert bool(((got >= low - slack) & (got <= high + slack)).all())
    assert float((got - x.sigmoid()).abs().max()) < 8e-4


@pytest.mark.parametrize("comparison", COMPARISONS)
@pytest.mark.parametrize("frac", [26, FRAC, 5])
def test_relu_over_the_whole_range(frac: int, comparison: Comparison) -> None:
    x = (everywhere(()) * 2**frac).round() / 2**frac

    def build(_: int, s: list[Secret]) -> Protocol[Secret]:
        return relu(s[0], frac=FRAC, bits=BITS, comparison=comparison)

    outcome = run_protocol(build, (x, frac))
    assert outcome.results[0].frac == FRAC
    check(outcome, functional.relu, x, frac, (), 0.0)


@pytest.mark.parametrize("comparison", COMPARISONS)
@pytest.mark.parametrize("bits", [22, 26, 30])
def test_relu_of_a_wide_value(bits: int, comparison: Comparison) -> None:
    blur = 1 << bits - 25 if bits > 25 and comparison == "tables" else 1
    x = torch.cat([torch.arange(-100, 101), random_words(500, bits=bits - 1)])
    outcome = run_words(lambda s, _: relu(s[0], frac=16, bits=bits, comparison=comparison), (x, 16))
    got = outcome.value() * 2**16
    clear = (x >= 0) | (x <= -blur)
    assert torch.equal(got[clear], x.clamp(min=0)[clear].double())
    assert bool(((got == 0) | (got == x))[~clear].all())


def shared(activation: Callable[[Secret], Protocol[Secret]]) -> Build:
    def build(s: list[Secret], _: Model) -> Protocol[Secret]:
        yield from open_masked(s[0])
        return (yield from activation(s[0]))

    return build


@pytest.mark.parametrize("name", CHOICES)
def test_an_opening_is_used_again(name: str) -> None:
    def alone(x: Secret) -> Protocol[Secret]:
        return gelu(x, CHOICES[name], TANH, frac=FRAC, bits=BITS, comparison="tables")

    x = (random_words(8), FRAC)
    saved = name != "secformer"  # its period needs an opening that tells the wrap
    assert plan_words(shared(alone), x).rounds == plan_words(lambda s, _: alone(s[0]), x).rounds + (not saved)


def refused(choice: Gelu, bits: int = BITS, match: str = "", choice_tanh: FourierTanh = TANH) -> None:
    with pytest.raises(BadConfigError, match=match):
        plan_words(
            lambda s, _: gelu(s[0], choice, choice_tanh, frac=FRAC, bits=bits, comparison="tables"),
            (plain(1), 26),
        )


def test_an_even_series_ends_at_half_its_period() -> None:
    refused(EvenSeries(protocol="even", period=16, cut=8.5, terms=9), match="at most half the period")


@pytest.mark.parametrize(("scale", "cubic"), [(0.0, 0.04), (-0.8, 0.04), (0.8, -0.01)])
def test_the_argument_of_tanh_must_grow(scale: float, cubic: float) -> None:
    refused(TanhGelu(protocol="tanh", scale=scale, cubic=cubic), match="a scale above 0")


def test_the_argument_of_tanh_must_fit() -> None:
    refused(TanhGelu(protocol="tanh", scale=1e-3), match="degree 3 up to 51.*a larger scale")
    wide = FourierTanh(protocol="fourier", period=2.0**55, cut=2.0**54, coefficients=(1.0,))
    refused(TanhGelu(protocol="tanh", cubic=2.0**160), match="smaller cut", choice_tanh=wide)


def test_a_cut_beyond_the_range_is_refused() -> None:
    refused(CHOICES["exact"], bits=FRAC + 2 + 2, match="raise fixed_point.range")


@pytest.mark.parametrize(("scale", "cubic"), [(1e-3, 0.0), (1e-12, 0.0), (0.1, 0.0447), (1.702 / 2, 0.0)])
def test_other_arguments_of_tanh(scale: float, cubic: float) -> None:
    """Also one that never reaches tanh's cut, and one that is almost 0."""
    choice = TanhGelu(protocol="tanh", scale=scale, cubic=cubic)
    cut = min(_root(choice, TANH.cut, END), END)
    x = (everywhere((-cut, cut) if cut < END else ()) * 2**FRAC).round() / 2**FRAC

    def build(_: int, s: list[Secret]) -> Protocol[Secret]:
        return gelu(s[0], choice, TANH, frac=FRAC, bits=BITS, comparison="tables")

    slack = x.abs() / 2 * (5e-4 + UNIT) + 1e-6
    check(
        run_protocol(build, (x, FRAC)),
        lambda v: approximations.gelu(v, choice, TANH),
        x,
        FRAC,
        (-cut, cut),
        slack,
    )
