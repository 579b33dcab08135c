from __future__ import annotations

from typing import Literal

import pytest
import torch

from secformer_rt.protocols.core import Protocol, Secret
from secformer_rt.protocols.exponential import _factors, exponential
from secformer_rt.protocols.lowering import Model
from secformer_rt.protocols.masking import open_masked
from tests.protocols.common import random_words, run_words

Clip = Literal[8, 16]
FRAC = 12
UNIT = 2.0**-FRAC


def exp_of(y: torch.Tensor, clip: Clip) -> torch.Tensor:
    def build(s: list[Secret], _: Model) -> Protocol[Secret]:
        opened = yield from open_masked(s[0])
        return (yield from exponential(opened, clip=clip, bits=24))

    outcome = run_words(build, (y, FRAC, 24))
    assert outcome.results[0].frac == 60
    assert outcome.plan.rounds == 3
    return outcome.value()


@pytest.mark.parametrize("clip", [8, 16])
def test_the_error_over_the_whole_domain(clip: Clip) -> None:
    # Every unit from below the clip's edge to just below 1, where a comparison's dropped bits begin to tell.
    y = torch.arange(-(clip + 2) << FRAC, 15 << (FRAC - 4))
    got = exp_of(y, clip)
    want = (y * UNIT).exp()
    computed = y >= (1 - clip << FRAC) + (3 << (FRAC - 4))
    assert float((got - want)[computed].abs().max()) < 2.0**-17
    # In between, within the blur of the edge, it is exp or 0.
    blurred = got[~computed]
    assert bool(((blurred == 0) | ((blurred - want[~computed]).abs() < 2.0**-17)).all())


@pytest.mark.parametrize("clip", [8, 16])
def test_nothing_is_left_below_the_clip(clip: Clip) -> None:
    far = random_words(3000, bits=23) - (1 << 22)  # down to the end of the ring
    edge = torch.arange(-3000, 1) + (1 - clip << FRAC)
    y = torch.cat([far[far < (1 - clip) << FRAC], edge, torch.tensor([-(1 << 23)])])
    assert bool((exp_of(y, clip) == 0).all())


def test_the_largest_elements_are_those_at_the_maximum() -> None:
    """A row's maximum is at 0, or slightly above if the tournament missed it."""
    y = torch.tensor([0, 1, 100, 1792, 3839]).repeat(200)
    got = exp_of(y, 16)
    assert float((got - (y * UNIT).exp()).abs().max()) < 2.0**-17


def test_public_factors_are_exp_rounded() -> None:
    low, frac = 10, 6
    plain, wrapped = _factors(low, frac)
    x = torch.arange(1 << low, dtype=torch.float64) / 2**frac
    for table, offset in ((plain, 1 - 16), (wrapped, 1)):
        want = (x + offset).exp() * 2.0**18
        assert bool(((table - want).abs() <= 0.5 + want * 1e-14).all())
