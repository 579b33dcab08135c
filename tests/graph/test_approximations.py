from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from secformer_rt.errors import BadConfigError
from secformer_rt.graph import approximations
from secformer_rt.graph.preset import (
    EvenSeries,
    ExactSoftmax,
    FourierErf,
    FourierTanh,
    LimitExponential,
    Polynomial,
    Preset,
    Quad,
    Seeded,
    TanhGelu,
    TwoRelu,
)
from secformer_rt.protocols.series import wave_table

GRID = torch.linspace(-12, 12, 240_001, dtype=torch.float64)
TANH = FourierTanh(protocol="fourier", period=16, cut=6, terms=14)
MASK = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])


def erf_choice(**changes: object) -> FourierErf:
    values = {"protocol": "fourier", "period": 16.0, "cut": 4.5, "terms": 9} | changes
    return FourierErf.model_validate(values)


def softmax_choice(**changes: object) -> ExactSoftmax:
    values = {"protocol": "exact", "division": Seeded(protocol="seeded")} | changes
    return ExactSoftmax.model_validate(values)


def erf(x: float) -> float:
    return math.erf(x / math.sqrt(2))


def worst(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).abs().max())


def test_fitted_erf_and_gelu() -> None:
    choice = erf_choice()
    assert worst(approximations.segmented_series(GRID, choice), approximations.normal_erf(GRID)) < 7e-6
    assert worst(approximations.gelu(GRID, choice, TANH), functional.gelu(GRID)) < 1.6e-5


def test_seven_terms_reach_four() -> None:
    fitted = approximations.fit_odd_series(erf, 16, 4.1, 7)
    inside = GRID[GRID.abs() <= 4.1]
    error = worst(approximations.odd_series(inside, fitted, 16), approximations.normal_erf(inside))
    assert error < 8.6e-5


def test_fit_is_rounded_and_repeatable() -> None:
    first, again = (approximations.fit_odd_series(erf, 16.0, 4.5, 9) for _ in range(2))
    assert first == again == approximations.series_of(erf_choice())
    assert all(value == round(value, approximations.DECIMALS) for value in first)
    # Fitted once elsewhere: another machine must find the same digits.
    assert first[:3] == (1.200049, -0.034857, 0.249351)


def test_what_both_servers_derive_is_none_of_torchs_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise AssertionError("torch computes this")

    for name in ("sin", "cos", "exp", "erf", "tanh"):
        monkeypatch.setattr(torch, name, fails)
        monkeypatch.setattr(Tensor, name, fails)
    for is_tanh in (False, True):
        assert approximations._fitted.__wrapped__(is_tanh, 16.0, 4.5, 9)
    assert approximations._fitted_even.__wrapped__(16.0, 6.4, 7)
    assert wave_table(1024, 3).shape == (1024, 6)


def test_torch_is_asked_for_every_function_before_there_are_threads() -> None:
    recorded = """
import collections, threading, torch
calls = collections.Counter()
def recording(name):
    function = getattr(torch, name)
    def record(x, *rest):
        assert threading.active_count() == 1 and x.numel() == 1
        calls[name, x.dtype] += 1
        return function(x, *rest)
    return record
for name in ("sin", "cos", "exp", "log", "sqrt", "tanh", "erf"):
    setattr(torch, name, recording(name))
import secformer_rt.graph.approximations
assert len(calls) == 14, calls
"""
    subprocess.run([sys.executable, "-c", recorded], check=True)


def test_secformer_series(preset: Callable[[str], Preset]) -> None:
    choice = preset("secformer").gelu
    assert isinstance(choice, FourierErf)
    assert approximations.series_of(choice)[0] == 1.25772
    error = worst(approximations.segmented_series(GRID, choice), approximations.normal_erf(GRID))
    assert 0.02 < error < 0.0218
    assert worst(approximations.gelu(GRID, choice, TANH), functional.gelu(GRID)) < 0.0196


@pytest.mark.parametrize("name", ["exact", "secformer"])
def test_tanh(preset: Callable[[str], Preset], name: str) -> None:
    choice = preset(name).tanh
    assert isinstance(choice, FourierTanh)
    assert worst(approximations.segmented_series(GRID, choice), torch.tanh(GRID)) < 3e-4


@pytest.mark.parametrize("changes", [{"terms": 0}, {"cut": 8.1}])
def test_impossible_series(changes: dict[str, object]) -> None:
    with pytest.raises(BadConfigError, match="cannot be fitted"):
        approximations.series_of(erf_choice(**changes))


def test_series_is_odd_and_saturates() -> None:
    choice = erf_choice()
    assert torch.equal(
        approximations.segmented_series(-GRID, choice), -approximations.segmented_series(GRID, choice)
    )
    far = torch.tensor([-1e6, -4.51, 4.51, 1e6], dtype=torch.float64)
    assert approximations.segmented_series(far, choice).tolist() == [-1, -1, 1, 1]
    assert approximations.gelu(far, choice, TANH).tolist() == [0, 0, 4.51, 1e6]


def test_two_quad_ignores_masked_keys() -> None:
    scores = torch.randn((2, 3, 5, 5), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = approximations.two_quad_weights(scores, 5.0, MASK)
    assert not weights[0, :, :, 3:].any()
    torch.testing.assert_close(weights[1], (scores[1] + 5) ** 2)
    scores[0, :, :, 3:] = math.inf
    assert torch.equal(approximations.two_quad_weights(scores, 5.0, MASK), weights)


def test_softmax_ignores_masked_keys() -> None:
    scores = 3 * torch.randn((2, 3, 5, 5), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scores[0, :, :, 3:] += 100
    exact = approximations.softmax(scores, MASK)
    assert not exact[0, :, :, 3:].any()
    torch.testing.assert_close(exact[0, :, :, :3], torch.softmax(scores[0, :, :, :3], -1))
    weights = approximations.exponential_weights(scores, softmax_choice(), MASK)
    torch.testing.assert_close(weights / weights.sum(-1, keepdim=True), exact, atol=1e-6, rtol=1e-6)
    assert not weights[0, :, :, 3:].any()


def test_exponential_is_zero_below_the_clip() -> None:
    scores = torch.tensor([[[[40.0, 32.0, 31.99, -500.0]]]], dtype=torch.float64)
    weights = approximations.exponential_weights(scores, softmax_choice(clip=8))
    assert weights.flatten().tolist() == [1.0, math.exp(-8), 0.0, 0.0]


@pytest.mark.parametrize("squarings", [5, 8])
def test_limit_exponential(squarings: int) -> None:
    limit = LimitExponential(protocol="limit", squarings=squarings)
    scores = torch.tensor([[[[7.0, 6.0, -7.0, -7.1, -500.0]]]], dtype=torch.float64)
    weights = approximations.exponential_weights(scores, softmax_choice(clip=14, exponential=limit))
    power = [(1 + x / 2**squarings) ** (2**squarings) for x in (0.0, -1.0, -14.0)]
    assert weights.flatten().tolist() == pytest.approx([*power, 0.0, 0.0], abs=1e-15)
    assert abs(power[1] - math.exp(-1)) < math.exp(-1) / 2**squarings


@pytest.mark.parametrize(("period", "cut", "terms", "error"), [(32, 14, 20, 5e-5), (16, 6, 12, 3e-4)])
def test_even_series(period: float, cut: float, terms: int, error: float) -> None:
    choice = EvenSeries(protocol="even", period=period, cut=cut, terms=terms)
    x = torch.linspace(-cut, cut, 60_001, dtype=torch.float64)
    gelu = approximations.gelu(x, choice, TANH)
    assert worst(gelu, functional.gelu(x)) < error
    torch.testing.assert_close(gelu - gelu.flip(0), x)  # x / 2 and an even function
    coefficients = approximations.even_coefficients(choice)
    assert len(coefficients) == terms + 1
    assert all(value == round(value, approximations.DECIMALS) for value in coefficients)


def test_an_even_series_ends_at_half_its_period() -> None:
    with pytest.raises(BadConfigError, match=r"cannot reach 8\.5: give a cut of at most half the period"):
        approximations.even_coefficients(EvenSeries(protocol="even", period=16, cut=8.5, terms=9))


def test_quadratic(preset: Callable[[str], Preset]) -> None:
    choice = preset("mpcformer").gelu
    assert isinstance(choice, Quad)
    torch.testing.assert_close(approximations.gelu(GRID, choice, TANH), 0.125 * GRID**2 + 0.25 * GRID + 0.5)


def test_pieces(preset: Callable[[str], Preset]) -> None:
    choice = preset("puma").gelu
    assert isinstance(choice, Polynomial)
    found = approximations.gelu(GRID, choice, TANH)
    assert 0.0198 < worst(found, functional.gelu(GRID)) < 0.01995
    assert not found[GRID < -4].any() and torch.equal(found[GRID >= 3], GRID[GRID >= 3])
    at_cuts = approximations.gelu(torch.tensor(choice.cuts, dtype=torch.float64), choice, TANH)
    right = [
        sum(c * x**k for k, c in enumerate(p)) for x, p in zip(choice.cuts, choice.pieces[1:], strict=True)
    ]
    assert at_cuts.tolist() == pytest.approx(right)  # a cut belongs to what is right of it


def test_tanh_gelu(preset: Callable[[str], Preset]) -> None:
    choice = preset("crypten").gelu
    assert isinstance(choice, TanhGelu)
    found = approximations.gelu(GRID, choice, preset("crypten").tanh)
    assert worst(found, functional.gelu(GRID, approximate="tanh")) < 3e-4
    assert worst(found, functional.gelu(GRID)) < 5.5e-4
    far = torch.tensor([-250.0, 250.0], dtype=torch.float64)
    assert approximations.gelu(far, choice, TANH).tolist() == [0, 250]


def test_sigmoid() -> None:
    assert worst(approximations.sigmoid(GRID, TANH), GRID.sigmoid()) < 1.5e-4


def test_two_relu_and_its_epsilon() -> None:
    choice = TwoRelu(protocol="2relu", epsilon=0.5, division=Seeded(protocol="seeded"))
    scores = torch.tensor([[3.0, -1.0, 1.0], [-1.0, 0.0, -9.0]], dtype=torch.float64)
    weights, total = approximations.softmax_parts(scores, choice)
    assert weights.tolist() == [[3, 0, 1], [0, 0, 0]]
    assert total.tolist() == [[4.5], [0.5]]
    scores = torch.randn((2, 3, 5, 5), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scores[0, :, :, 3:] = math.inf
    assert not approximations.relu_weights(scores, choice, MASK)[0, :, :, 3:].any()


def test_the_cube_of_the_x(preset: Callable[[str], Preset]) -> None:
    """ReLU((x / 2 + 1)^3) over its sum, but for epsilon."""
    choice = preset("the-x").softmax
    scores = torch.linspace(-6, 6, 25, dtype=torch.float64)
    weights, _ = approximations.softmax_parts(scores, choice)
    torch.testing.assert_close(weights, 8 * torch.relu((scores / 2 + 1) ** 3))


def test_the_pieces_of_east(preset: Callable[[str], Preset]) -> None:
    chosen = preset("east")
    assert worst(approximations.gelu(GRID, chosen.gelu, chosen.tanh), functional.gelu(GRID)) < 1.14e-3
    assert worst(approximations.tanh(GRID, chosen.tanh), GRID.tanh()) < 9e-4
    assert worst(approximations.sigmoid(GRID, chosen.tanh), GRID.sigmoid()) < 4.5e-4


def test_relu_for_gelu(preset: Callable[[str], Preset]) -> None:
    chosen = preset("the-x")
    assert torch.equal(approximations.gelu(GRID, chosen.gelu, chosen.tanh), GRID.clamp(min=0))
