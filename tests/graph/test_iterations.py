from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from secformer_rt.errors import BadConfigError
from secformer_rt.graph.iterations import (
    GoldschmidtSteps,
    InverseKind,
    NewtonSteps,
    Step,
    goldschmidt_steps,
    newton_steps,
)

KINDS: tuple[InverseKind, ...] = ("reciprocal", "rsqrt")
FINDERS = (goldschmidt_steps, newton_steps)
PLAIN = {"reciprocal": Step(2.0, 1.0), "rsqrt": Step(1.5, 0.5)}


def exact(kind: InverseKind, values: Tensor) -> Tensor:
    return 1 / values if kind == "reciprocal" else values**-0.5


def spread(start: float, end: float, parts: list[float]) -> Tensor:
    values = torch.tensor([start * (end / start) ** part for part in (0, 1, *parts)], dtype=torch.float64)
    return values.clamp(start, end)


@pytest.mark.parametrize("find", FINDERS)
@settings(deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    low=st.floats(-20, 20),
    octaves=st.floats(0, 20),
    within=st.lists(st.floats(0, 1), min_size=1, max_size=20),
    tolerance=st.sampled_from([1e-2, 1e-4]),
)
def test_converges_everywhere_in_its_range(
    find: type, kind: InverseKind, low: float, octaves: float, within: list[float], tolerance: float
) -> None:
    start, end = 2.0**low, 2.0 ** (low + octaves)
    found = find(start, end, kind, tolerance, 60)
    values = spread(start, end, within)
    assert float((found.apply(values) / exact(kind, values) - 1).abs().max()) <= tolerance * (1 + 1e-6)


@settings(deadline=None)
@given(kind=st.sampled_from(KINDS), octaves=st.floats(1, 20), scale=st.floats(-10, 10))
def test_the_last_step_is_needed(kind: InverseKind, octaves: float, scale: float) -> None:
    start, end = 2.0**scale, 2.0 ** (scale + octaves)
    found = goldschmidt_steps(start, end, kind, 1e-4, 60)
    values = spread(start, end, [i / 500 for i in range(500)])
    fewer = replace(found, steps=found.steps[:-1])
    if fewer.steps:
        assert float((fewer.apply(values) / exact(kind, values) - 1).abs().max()) > 1e-5


@pytest.mark.parametrize(("kind", "plain"), [("reciprocal", 14), ("rsqrt", 12)])
def test_deflating_every_step_saves_iterations(kind: InverseKind, plain: int) -> None:
    """Over ten octaves, against one deflation and the plain step."""
    value = torch.tensor([1.0], dtype=torch.float64)
    for steps, enough in ((plain - 1, False), (plain, True)):
        once = GoldschmidtSteps(kind, 0.0, 2000.0, 10, (PLAIN[kind],) * steps)
        assert (abs(float(once.apply(value)) - 1) < 1e-4) is enough
    assert goldschmidt_steps(1.0, 1024.0, kind, 1e-4, 40).iterations <= plain - 4


@pytest.mark.parametrize(("high", "exponent"), [(1.0, 0), (8.0, 3), (8.001, 4), (0.3, -1), (0.25, -2)])
def test_eta_of_a_reciprocal(high: float, exponent: int) -> None:
    assert goldschmidt_steps(high, high, "reciprocal", 1e-4, 40).exponent == exponent
    assert newton_steps(high, high, "reciprocal", 1e-4, 40).exponent == exponent


@pytest.mark.parametrize(("high", "exponent"), [(1.0, 0), (8.0, 2), (8.001, 4), (0.3, -2), (0.12, -4)])
def test_eta_of_an_inverse_root_has_a_root(high: float, exponent: int) -> None:
    assert goldschmidt_steps(high, high, "rsqrt", 1e-4, 40).exponent == exponent
    assert newton_steps(high, high, "rsqrt", 1e-4, 40).exponent == exponent


def test_the_plain_steps_are_the_papers() -> None:
    value = torch.tensor([3.0], dtype=torch.float64)
    q, p = 3 / 4, 1.0
    for _ in range(3):
        q, p = q * (2 - q), p * (2 - q)
    found = GoldschmidtSteps("reciprocal", 1.0, 4.0, 2, (PLAIN["reciprocal"],) * 3)
    assert float(found.apply(value)) == pytest.approx(p / 4, rel=1e-15)
    q, p = 3 / 4, 1.0
    for _ in range(3):
        q, p = q * ((3 - q) / 2) ** 2, p * (3 - q) / 2
    found = GoldschmidtSteps("rsqrt", 1.0, 4.0, 2, (PLAIN["rsqrt"],) * 3)
    assert float(found.apply(value)) == pytest.approx(p / math.sqrt(4), rel=1e-15)


def test_newton_is_the_textbooks() -> None:
    steps = NewtonSteps("rsqrt", 1.0, 4.0, 2, Step(1.5, 0.25), 2)
    y = 1.5 - 0.25 * 0.75
    for _ in range(2):
        y = y * (3 - 0.75 * y * y) / 2
    assert float(steps.apply(torch.tensor([3.0], dtype=torch.float64))) == pytest.approx(y / 2, rel=1e-15)


def test_one_deflation_does_not_serve_everything() -> None:
    # The division of SecFormer diverges beyond 2 eta: why eta has to be calibrated.
    chosen = GoldschmidtSteps("reciprocal", 1.0, 1e9, 12, (PLAIN["reciprocal"],) * 13)
    assert not abs(float(chosen.apply(torch.tensor([12_800.0]))) * 12_800 - 1) < 1


@pytest.mark.parametrize("find", FINDERS)
@pytest.mark.parametrize("kind", KINDS)
def test_beyond_the_range_the_ends_serve(find: type, kind: InverseKind) -> None:
    steps = find(0.5, 32.0, kind, 1e-4, 40)
    got = steps.apply(torch.tensor([-3.0, 0.0, 0.1, 50.0, 1e9], dtype=torch.float64))
    want = exact(kind, torch.tensor([0.5, 0.5, 0.5, 32.0, 32.0], dtype=torch.float64))
    assert float((got / want - 1).abs().max()) < 1.1e-4


@pytest.mark.parametrize("find", FINDERS)
@pytest.mark.parametrize("kind", KINDS)
def test_too_wide_a_range_is_named(find: type, kind: InverseKind) -> None:
    with pytest.raises(BadConfigError, match=rf"{kind} over \[0.001, 1e\+06\] needs more than 5"):
        find(0.001, 1e6, kind, 1e-4, 5)


@pytest.mark.parametrize("find", FINDERS)
@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0), (1.0, math.inf), (math.nan, 1.0)]
)
def test_ranges_that_are_none(find: type, low: float, high: float) -> None:
    with pytest.raises(BadConfigError, match="must be positive and finite"):
        find(low, high, "rsqrt", 1e-4, 40)


@pytest.mark.parametrize("find", FINDERS)
def test_iteration_count_is_capped_but_not_short(find: type) -> None:
    needed = find(1.0, 2.0**10, "reciprocal", 1e-4, 40).iterations
    assert find(1.0, 2.0**10, "reciprocal", 1e-4, needed).iterations == needed
    with pytest.raises(BadConfigError):
        find(1.0, 2.0**10, "reciprocal", 1e-4, needed - 1)
