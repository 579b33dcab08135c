from __future__ import annotations

from typing import Literal

import pytest
import torch

from secformer_rt.errors import BadConfigError
from secformer_rt.graph.preset import Comparison
from secformer_rt.protocols.core import Protocol, Secret
from secformer_rt.protocols.exponential import _factors, exponential, limit_exponential
from secformer_rt.protocols.masking import open_masked
from secformer_rt.protocols.model import Model
from tests.protocols.common import plan_words, random_words, run_words
from tests.protocols.test_uniformity import check_fresh, check_uniform
from tests.support import Outcome

Clip = Literal[8, 16]
FRAC = 12
UNIT = 2.0**-FRAC


def exp_of(y: torch.Tensor, clip: Clip, comparison: Comparison = "tables") -> torch.Tensor:
    def build(s: list[Secret], _: Model) -> Protocol[Secret]:
        opened = yield from open_masked(s[0])
        return (yield from exponential(opened, clip=clip, bits=24, comparison=comparison))

    outcome = run_words(build, (y, FRAC, 24))
    assert outcome.results[0].frac == 60
    assert outcome.plan.rounds == (3 if comparison == "tables" else 8)
    return outcome.value()


@pytest.mark.parametrize("comparison", ["tables", "adder"])
@pytest.mark.parametrize("clip", [8, 16])
def test_the_error_over_the_whole_domain(clip: Clip, comparison: Comparison) -> None:
    # Every unit from below the clip's edge to just below 1, where a comparison's dropped bits begin to tell.
    y = torch.arange(-(clip + 2) << FRAC, 15 << (FRAC - 4))
    got = exp_of(y, clip, comparison)
    want = (y * UNIT).exp()
    computed = y >= (1 - clip << FRAC) + (3 << (FRAC - 4))
    assert float((got - want)[computed].abs().max()) < 2.0**-17
    # In between, within the blur of the edge, it is exp or 0.
    blurred = got[~computed]
    assert bool(((blurred == 0) | ((blurred - want[~computed]).abs() < 2.0**-17)).all())


@pytest.mark.parametrize("comparison", ["tables", "adder"])
@pytest.mark.parametrize("clip", [8, 16])
def test_nothing_is_left_below_the_clip(clip: Clip, comparison: Comparison) -> None:
    far = random_words(3000, bits=23) - (1 << 22)  # down to the end of the ring
    edge = torch.arange(-3000, 1) + (1 - clip << FRAC)
    y = torch.cat([far[far < (1 - clip) << FRAC], edge, torch.tensor([-(1 << 23)])])
    assert bool((exp_of(y, clip, comparison) == 0).all())


def test_the_largest_elements_are_those_at_the_maximum() -> None:
    """A row's maximum is at 0, or slightly above if the tournament missed it."""
    y = torch.tensor([0, 1, 100, 1792, 3839]).repeat(200)
    got = exp_of(y, 16)
    assert float((got - (y * UNIT).exp()).abs().max()) < 2.0**-17


@pytest.mark.parametrize(("top", "bits"), [(1, 18), (2, 18), (4, 16)])
def test_public_factors_are_exp_rounded(top: int, bits: int) -> None:
    low, frac = 10, 6
    plain, wrapped = _factors(low, frac, top)[0].T
    x = torch.arange(1 << low, dtype=torch.float64) / 2**frac
    for table, offset in ((plain, top - 16), (wrapped, top)):
        want = (x + offset).exp() * 2.0**bits
        assert bool(((table - want).abs() <= 0.5 + want * 1e-14).all())


def limit_of(y: torch.Tensor, squarings: int, clip: float, comparison: Comparison = "tables") -> Outcome:
    def build(s: list[Secret], _: Model) -> Protocol[Secret]:
        return limit_exponential(s[0], squarings=squarings, clip=clip, comparison=comparison)

    outcome = run_words(build, (y, FRAC, 24))
    beside = 2 if comparison == "tables" else 7
    assert outcome.plan.rounds == 1 + max(squarings - 1, beside)
    assert outcome.results[0].frac == (60 if squarings > 1 else 2 * FRAC + 2)
    return outcome


def power(y: torch.Tensor, squarings: int) -> torch.Tensor:
    return (1 + y.double() * UNIT / 2**squarings) ** (2**squarings)


@pytest.mark.parametrize("comparison", ["tables", "adder"])
@pytest.mark.parametrize(
    ("squarings", "clip"), [(1, 4.0), (2, 8.0), (3, 16.0), (5, 14.0), (8, 16.0), (8, 5.3), (12, 64.0)]
)
def test_the_limit_is_the_power_over_the_whole_window(
    squarings: int, clip: float, comparison: Comparison
) -> None:
    first = -int(clip * 2**FRAC)  # the smallest that is not below -clip
    inside = torch.arange(first, (15 << (FRAC - 4)) + 1, 1 if clip < 20 else 7)
    edges = torch.tensor([first, first + 1, -1, 0, 1, 15 << (FRAC - 4)])
    y = torch.cat([inside, edges])
    error = limit_of(y, squarings, clip, comparison).value() - power(y, squarings)
    assert float(error.abs().max()) < 2.0 ** (squarings - 28)


@pytest.mark.parametrize("comparison", ["tables", "adder"])
@pytest.mark.parametrize(("squarings", "clip"), [(1, 4.0), (5, 14.0), (8, 5.3), (12, 64.0)])
def test_the_limit_is_exactly_0_below_the_clip(squarings: int, clip: float, comparison: Comparison) -> None:
    """Also where y cannot be widened and its powers leave every range: down to the end of its ring."""
    first = -int(clip * 2**FRAC)
    far = random_words(1500, bits=23) - (1 << 22)
    ends = torch.tensor([first - 1, first - 2, -(1 << 22) - 1, -(1 << 22), 1 - (1 << 23), -(1 << 23)])
    y = torch.cat([far[far < first], ends.repeat(50)])
    outcome = limit_of(y, squarings, clip, comparison)
    a, b = outcome.results
    assert not (a.share + b.share).any()


@pytest.mark.parametrize("squarings", [5, 8, 12])
def test_the_limit_approaches_exp(squarings: int) -> None:
    y = torch.arange(-14 << FRAC, 1, 11)
    got, want = limit_of(y, squarings, 14.0).value(), (y.double() * UNIT).exp()
    bound = (y.double() * UNIT) ** 2 * want / 2 ** (squarings + 1) + 2.0 ** (squarings - 28)
    assert bool((want - got < 1.05 * bound).all())
    assert bool((got - want < 2.0 ** (squarings - 28)).all())


@pytest.mark.parametrize("ring", [FRAC + 4, FRAC + 5])
@pytest.mark.parametrize("clip", [14.0, 16.0])
def test_a_ring_that_ends_before_the_clip(ring: int, clip: float) -> None:
    """There is nothing to clear, and nothing that a comparison could tell."""
    y = torch.arange((1 << FRAC) - (1 << ring - 1), (15 << (FRAC - 4)) + 1, 5)
    outcome = run_words(
        lambda s, _: limit_exponential(s[0], squarings=5, clip=clip), (y & ((1 << ring) - 1), FRAC, ring)
    )
    kept = torch.where(y >= -int(clip * 2**FRAC), power(y, 5), 0.0)
    assert float((outcome.value() - kept).abs().max()) < 1e-5
    compared = clip + 1 <= 1 << (ring - 1 - FRAC)
    # Of the squares what is not cut off: 64 bits less 2 (12 + 5) - 30, and less 30.
    assert (outcome.plan.server_bytes * 8 > (ring + 60 + 3 * 34 + 1) * len(y)) is compared


def test_a_limit_that_would_grow_is_refused() -> None:
    y = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(
        BadConfigError, match="2 squarings cannot follow exp down to -9: use a clip of at most 8"
    ):
        plan_words(lambda s, _: limit_exponential(s[0], squarings=2, clip=9.0), (y, FRAC, 24))


@pytest.mark.parametrize("value", [0, -(1 << 23)])
def test_what_the_limit_opens_is_uniform_and_fresh(value: int) -> None:
    y = torch.full((2560,), value, dtype=torch.int64)
    outcome = limit_of(y, 5, 14.0)
    check_uniform(outcome)
    check_fresh(outcome, limit_of(y, 5, 14.0))
