from __future__ import annotations

import pytest
import torch
from torch import Tensor

from secformer_rt.errors import BadConfigError
from secformer_rt.graph import approximations
from secformer_rt.graph.preset import Comparison, Polynomial, Quad
from secformer_rt.protocols.activations import sigmoid, tanh
from secformer_rt.protocols.core import Protocol, Secret
from secformer_rt.protocols.model import Model
from secformer_rt.protocols.polynomial import argument, combine, cubic, piecewise, quad, reach
from secformer_rt.ring.packing import packed_size
from tests.protocols.common import plain, plan_words, preset, random_words, run_words

FRAC, RANGE = 12, 8
UNIT = 2.0**-FRAC
BITS = RANGE + FRAC + 2
TANH = preset("exact").tanh
COMPARISONS: list[Comparison] = ["tables", "adder"]


def polynomial(cuts: tuple[float, ...], *pieces: tuple[float, ...]) -> Polynomial:
    return Polynomial(protocol="polynomial", cuts=cuts, pieces=pieces)


CHOICES = {
    "steps": polynomial((-100.0, -1.0, 0.0, 2.5), (-3.0,), (0.5,), (0.0,), (1.0, 0.0, 0.0), (200.0,)),
    "lines": polynomial((-1.0, 1.0), (0.1, 1 / 3), (1.0, -0.7), (3.0, 1 / 64)),
    "squares": polynomial((0.0,), (1.0, 0.0, 0.25), (0.0, -1.0, 1 / 3)),
    "cubics": polynomial((-2.0,), (0.0, 0.0, 0.0, 0.01), (0.7, 0.0, 0.0, -0.3)),
    "tiny": polynomial((-2.0,), (0.0, 1e-15), (0.0, 0.0, 0.0, 1e-9)),
    "steep": polynomial((-0.01, 0.01), (-1.0,), (0.0, 100.0), (1.0,)),
    "odd": polynomial((-3.0, 3.0), (0.0,), (0.0, 1.0, 0.0, -0.1, 0.0, 0.004), (0.0,)),
    "small": polynomial((-0.01, 0.01), (0.0,), (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1e9), (0.0,)),
    "many": polynomial(tuple(range(-7, 8)), *((float(k), 0.5 + k) for k in range(16))),
}


def numbers(cuts: tuple[float, ...]) -> Tensor:
    """x in units: the range to its ends, and around the cuts."""
    end = 1 << RANGE + FRAC
    near = [round(cut * 2**FRAC) + d for cut in (*cuts, 0.0) for d in (-2, -1, 0, 1, 2)]
    return torch.cat(
        [
            plain(1 - end, 2 - end, end - 1, *near),
            random_words(300, bits=RANGE + FRAC + 1),
            random_words(300, bits=FRAC + 4),
        ]
    )


@pytest.mark.parametrize("comparison", COMPARISONS)
@pytest.mark.parametrize("name", CHOICES)
def test_pieces(name: str, comparison: Comparison) -> None:
    choice = CHOICES[name]
    words = numbers(choice.cuts)
    outcome = run_words(
        lambda s, _: piecewise(s[0], choice, frac=FRAC, bits=BITS, comparison=comparison), (words, FRAC)
    )
    assert outcome.results[0].frac == 18
    x = words.double() * UNIT
    rounded = choice.model_copy(update={"cuts": tuple(round(c * 2**FRAC) * UNIT for c in choice.cuts)})
    error = outcome.value() - approximations.gelu(x, rounded, TANH)
    index = torch.bucketize(x, torch.tensor(rounded.cuts, dtype=torch.float64), right=True)
    for i, piece in enumerate(choice.pieces):
        inside = index == i
        values = torch.stack([abs(c) * x[inside].abs() ** k for k, c in enumerate(piece)]).sum(0)
        bound = max(1.0, float(values.max())) * sum(c != 0 for c in piece) * 2.0**-13 + 2.0**-18
        # The square's rounding acts like a shift of it.
        bound += sum(abs(c) * (k // 2) * 2.0**-12 * 3.0 ** (k - 2) for k, c in enumerate(piece) if k > 3)
        if len(piece) > 3 and name == "cubics":
            bound += abs(piece[3]) * 2.0**-12 * float(x[inside].abs().max())
        assert float(error[inside].abs().max()) < bound, (i, piece)


@pytest.mark.parametrize("frac", [26, 36, 5])
def test_x_is_reduced_first(frac: int) -> None:
    choice = CHOICES["lines"]
    x = random_words(2000, bits=RANGE + frac + 1)
    got = run_words(
        lambda s, _: piecewise(s[0], choice, frac=FRAC, bits=BITS, comparison="tables"), (x, frac)
    ).value()
    near = [x.double() * 2.0**-frac + d * UNIT for d in ((-1, 0, 1) if frac > FRAC else (0,))]
    values = torch.stack([approximations.gelu(v, choice, TANH) for v in near])
    assert bool(((got > values.amin(0) - 0.02) & (got < values.amax(0) + 0.02)).all())


@pytest.mark.parametrize(
    ("pieces", "cuts"),
    [
        (((0.0,), (0.0, 0.0, 0.0, 0.0, 1.0)), (0.0,)),
        (((0.0,), (0.0,) * 6 + (2.0**-40,)), (0.0,)),  # would be rounded to 0
        (((0.0,), (0.0,) * 6 + (1.0,), (1.0,)), (0.0, 6.0)),
        (((0.0,), (2.0**50, 1.0 / 3)), (0.0,)),
        (((0.0,), (2.0**44,)), (0.0,)),
        (((0.0,), (0.0, 2.0**36)), (0.0,)),
    ],
)
def test_a_piece_that_does_not_fit(pieces: tuple[tuple[float, ...], ...], cuts: tuple[float, ...]) -> None:
    choice = polynomial(cuts, *pieces)
    with pytest.raises(BadConfigError, match=r"A polynomial of degree \d up to .* lower degree"):
        plan_words(
            lambda s, _: piecewise(s[0], choice, frac=FRAC, bits=BITS, comparison="tables"), (plain(1), 26)
        )


def test_a_cut_beyond_the_range() -> None:
    choice = polynomial((-1.0, 400.0), (0.0,), (1.0,), (2.0,))
    with pytest.raises(BadConfigError, match="cut of 400 is beyond"):
        plan_words(
            lambda s, _: piecewise(s[0], choice, frac=FRAC, bits=BITS, comparison="tables"), (plain(1), 26)
        )


@pytest.mark.parametrize(
    ("coefficients", "places"),
    [((0.5, 0.25, 0.125), 3), ((-1.0, 2.0, 0.0), 0), ((3.0, 0.3, 1.0), 0), ((0.0, 0.3, 0.1), 20)],
)
def test_quad(coefficients: tuple[float, float, float], places: int) -> None:
    words = numbers(())
    choice = Quad(protocol="quad", coefficients=coefficients)
    outcome = run_words(lambda s, _: quad(s[0], choice, frac=FRAC, bits=BITS), (words, FRAC))
    assert outcome.results[0].frac == 2 * FRAC + places
    x = words.double() * UNIT
    error = outcome.value() - approximations.gelu(x, choice, TANH)
    bound = torch.zeros_like(x)
    if coefficients[1] == 0.3:
        bound = x.abs() * 2.0**-13 + 1e-9
    if coefficients[2] == 0.1:
        bound = bound + x * x * 2.0**-21
    assert bool((error.abs() <= bound).all())


@pytest.mark.parametrize("range_", [8, 12])
def test_a_quadratic_that_does_not_fit(range_: int) -> None:
    choice = Quad(protocol="quad", coefficients=(0.0, 0.0, 0.1 if range_ == 12 else 123.4))
    with pytest.raises(BadConfigError, match="does not fit 64 bits: lower"):
        plan_words(lambda s, _: quad(s[0], choice, frac=FRAC, bits=range_ + FRAC + 2), (plain(1), 26))


@pytest.mark.parametrize(
    ("linear", "third", "bound"), [(0.8, 0.0357, 4.5), (0.1, 0.005, 12.0), (2.0, 0.0, 256.0)]
)
def test_cubic(linear: float, third: float, bound: float) -> None:
    def build(s: list[Secret], _: Model) -> Protocol[Secret]:
        x, opened, bits = yield from argument(s[0], FRAC, BITS)
        assert bits == BITS
        result = yield from cubic(x, opened, linear, third, bound, FRAC)
        return Secret(x.server, result.public * (1 - x.server) - result.share, FRAC, result.ring)

    end = int(bound * 2**FRAC)
    words = torch.cat([torch.arange(-end, end, max(1, end // 3000)), plain(end - 1)])
    x = words.double() * UNIT
    got = run_words(build, (words, FRAC)).value()
    e = reach((0.0, linear, 0.0, third), bound)
    stated = UNIT + 2.0 ** (e - 27) * bound**3
    assert float((got - linear * x - third * x**3).abs().max()) < stated


@pytest.mark.parametrize(("frac", "kept"), [(6, 6), (12, 12), (16, 12)])
@pytest.mark.parametrize("given", [26, 12, 5])
def test_the_argument(given: int, frac: int, kept: int) -> None:
    def build(s: list[Secret], _: Model) -> Protocol[tuple[Secret, int]]:
        x, opened, bits = yield from argument(s[0], frac, RANGE + frac + 2)
        assert opened.frac == x.frac
        return x, bits

    words = random_words(100, bits=RANGE + given)
    outcome = run_words(build, (words, given))
    x, bits = outcome.results[0]
    assert (x.frac, bits) == (kept, RANGE + kept + 2)
    error = outcome.value(lambda r: r[0]) - words.double() * 2.0**-given
    assert float(error.abs().max()) < (2.0**-kept if given > kept else 1e-12)
    sent = packed_size(100, 64 - max(0, given - kept))
    assert (outcome.plan.rounds, outcome.plan.server_bytes) == (1, sent)
    assert sum(outcome.plan.dealer_bytes) == 2 * packed_size(100, max(1, given - kept)) * (given > kept)


def test_combining_keeps_the_bits_that_a_value_leaves() -> None:
    x, y = (Secret(0, plain(5), frac) for frac in (4, 10))
    result = combine([(0.5, x), (2.0, y)], 3.0, 12)
    assert result.frac == 12
    assert result.share.tolist() == [5 * 128 + 5 * 8 + 3 * 4096]
    assert combine([(0.5, x)], 3.0, 12).share.tolist() == [5 * 128 + 3 * 4096]


@pytest.mark.parametrize(
    ("coefficients", "bound", "bits"), [((0.0, 1.0), 2.0, 2), ((1.0, 0.0, -1.0), 3.9, 5)]
)
def test_reach(coefficients: tuple[float, ...], bound: float, bits: int) -> None:
    assert reach(coefficients, bound) == bits


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_tanh_in_pieces(comparison: Comparison) -> None:
    choice = preset("east").tanh
    assert isinstance(choice, Polynomial)
    words = torch.cat([numbers(choice.cuts), torch.arange(-5 << FRAC, 5 << FRAC, 37)])
    x = words.double() * UNIT
    for function, plaintext, frac in ((tanh, x.tanh(), 18), (sigmoid, (x / 2).sigmoid(), 19)):
        outcome = run_words(
            lambda s, _, f=function: f(s[0], choice, frac=FRAC, bits=BITS, comparison=comparison),
            (words, FRAC if function is tanh else FRAC + 1),
        )
        assert outcome.results[0].frac == frac
        assert float((outcome.value() - plaintext).abs().max()) < 1.5e-3
    far = plain(-(5 << FRAC), 5 << FRAC, 200 << FRAC)
    outcome = run_words(
        lambda s, _: tanh(s[0], choice, frac=FRAC, bits=BITS, comparison=comparison), (far, FRAC)
    )
    assert outcome.value().tolist() == [-1, 1, 1]
