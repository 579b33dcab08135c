from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from secformer_rt.errors import BadConfigError
from secformer_rt.graph.goldschmidt import Deflation, InverseKind, deflation, reciprocal, rsqrt

KINDS: tuple[InverseKind, ...] = ("reciprocal", "rsqrt")
EXACT = {"reciprocal": lambda v: 1 / v, "rsqrt": lambda v: v**-0.5}
ITERATE = {"reciprocal": reciprocal, "rsqrt": rsqrt}


@settings(deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    low=st.floats(-20, 20),
    octaves=st.floats(0, 24),
    within=st.lists(st.floats(0, 1), min_size=1, max_size=20),
    tolerance=st.sampled_from([1e-2, 1e-4, 1e-6]),
)
def test_converges_everywhere_in_its_range(
    kind: InverseKind, low: float, octaves: float, within: list[float], tolerance: float
) -> None:
    start, end = 2.0**low, 2.0 ** (low + octaves)
    chosen = deflation(start, end, kind, tolerance, 40)
    assert chosen.eta >= end > chosen.eta / 2
    values = torch.tensor([2.0 ** (low + part * octaves) for part in (0, 1, *within)], dtype=torch.float64)
    values = values.clamp(start, end)
    exact = EXACT[kind](values)
    error = (ITERATE[kind](values, chosen) / exact - 1).abs().max()
    assert float(error) <= tolerance + 1e-12
    if chosen.iterations:
        fewer = Deflation(chosen.exponent, chosen.iterations - 1)
        assert float((ITERATE[kind](values, fewer) / exact - 1).abs().max()) > tolerance


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("high", "exponent"), [(1.0, 0), (8.0, 3), (8.001, 4), (0.3, -1), (0.25, -2)])
def test_eta_is_the_smallest_power_of_two(kind: InverseKind, high: float, exponent: int) -> None:
    assert deflation(high, high, kind, 1e-4, 40).exponent == exponent


def test_the_iterations_are_the_papers() -> None:
    value = torch.tensor([3.0], dtype=torch.float64)
    q, p = 3 / 8, 1.0
    for _ in range(3):
        q, p = q * (2 - q), p * (2 - q)
    assert float(reciprocal(value, Deflation(3, 3))) == pytest.approx(p / 8, rel=1e-15)
    q, p = 3 / 8, 1.0
    for _ in range(3):
        q, p = q * ((3 - q) / 2) ** 2, p * (3 - q) / 2
    assert float(rsqrt(value, Deflation(3, 3))) == pytest.approx(p / math.sqrt(8), rel=1e-15)


def test_one_deflation_does_not_serve_everything() -> None:
    # The division of SecFormer diverges beyond 2 eta: why eta has to be calibrated.
    chosen = deflation(1.0, 4096.0, "reciprocal", 1e-4, 40)
    assert not abs(float(reciprocal(torch.tensor([12_800.0]), chosen)) * 12_800 - 1) < 1


@pytest.mark.parametrize("kind", KINDS)
def test_too_wide_a_range_is_named(kind: InverseKind) -> None:
    with pytest.raises(BadConfigError, match=rf"{kind} over \[0.001, 1e\+06\] needs more than 5"):
        deflation(0.001, 1e6, kind, 1e-4, 5)


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0), (1.0, math.inf), (math.nan, 1.0)]
)
def test_ranges_that_are_none(low: float, high: float) -> None:
    with pytest.raises(BadConfigError, match="must be positive and finite"):
        deflation(low, high, "rsqrt", 1e-4, 40)


def test_iteration_count_is_capped_but_not_short() -> None:
    needed = deflation(1.0, 2.0**10, "reciprocal", 1e-4, 40).iterations
    assert deflation(1.0, 2.0**10, "reciprocal", 1e-4, needed).iterations == needed
    with pytest.raises(BadConfigError):
        deflation(1.0, 2.0**10, "reciprocal", 1e-4, needed - 1)
