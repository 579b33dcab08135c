"""LayerNorm's place taken by gain and offset."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from secformer_rt.protocols.affine import affine
from secformer_rt.protocols.core import Protocol, Secret
from secformer_rt.protocols.model import Model
from secformer_rt.ring.fixed_point import encode
from tests.protocols.common import Parameter, run_words


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("frac", [12, 18, 52])
@pytest.mark.parametrize("size", [8, 100])
def test_it_is_gain_times_x_plus_offset(frac: int, size: int) -> None:
    x = (random(3, 5, size) * 30 * 2**12).round() / 2**12
    gain, offset = 1 + random(size, seed=1) / 4, random(size, seed=2)

    def build(s: list[Secret], model: Model) -> Protocol[Secret]:
        return affine(s[0], model.gains["g"], s[1], frac=18)

    outcome = run_words(
        build,
        (encode(x, frac), frac),
        (encode(offset, 16), 16),
        parameters=[Parameter("g", encode(gain, 14), 14)],
    )
    allowed = 2.0**-15 * x.abs() + 2.0**-17 + 2.0**-17 * gain.abs()
    assert bool(((outcome.value() - (x * gain + offset)).abs() <= allowed).all())
    assert outcome.results[0].frac == 32
    assert outcome.plan.rounds == 1
    # What is not cut off of 64 bits; a word where nothing is.
    assert outcome.plan.server_bytes == x.numel() * (64 - max(0, frac - 18)) // 8
