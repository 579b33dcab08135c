from __future__ import annotations

import pytest
import torch
from torch import Tensor

from secformer_rt.protocols.core import Protocol, Secret
from secformer_rt.protocols.layernorm import layer_norm, variance
from secformer_rt.protocols.masking import open_masked
from secformer_rt.protocols.model import Model
from secformer_rt.ring.fixed_point import encode
from tests.protocols.common import Parameter, preset, random_words, run_words, total
from tests.support import Outcome

EPS = 1e-12


def normalised(x: Tensor, gain: Tensor, beta: Tensor, name: str, bounds: tuple[float, float]) -> Outcome:
    chosen = preset(name)
    bits = chosen.fixed_point

    def build(s: list[Secret], model: Model) -> Protocol[Secret]:
        norm, method = chosen.layernorm, chosen.comparison
        return layer_norm(s[0], model.gains["g"], s[1], norm, method, bounds, EPS, bits)

    return run_words(
        build,
        (encode(x, 24), 24),
        (encode(beta, bits.table), bits.table),
        parameters=[Parameter("g", encode(gain, bits.weight), bits.weight)],
    )


def exact(x: Tensor, gain: Tensor, beta: Tensor) -> Tensor:
    return torch.nn.functional.layer_norm(x, x.shape[-1:], gain, beta, EPS)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ["exact", "secformer", "crypten"])
@pytest.mark.parametrize("size", [8, 48, 100, 128, 768])
def test_close_to_the_exact_one(name: str, size: int) -> None:
    x = random(2, 5, size) * torch.tensor([0.5, 1.0, 2.0, 3.0, 0.7], dtype=torch.float64)[:, None] + 0.3
    gain, beta = 1 + random(size, seed=1) / 4, random(size, seed=2)
    outcome = normalised(x, gain, beta, name, (2.0**-4, 2.0**5))
    want = exact(x, gain, beta)
    # What the inverse root is allowed, and the fixed point of x and gain.
    allowed = (4e-4 if name == "exact" else 3e-4) * (want - beta).abs() + 2.0**-11
    assert bool(((outcome.value() - want).abs() < allowed).all())


@pytest.mark.parametrize("name", ["exact", "secformer", "crypten"])
def test_one_outlier_coordinate(name: str) -> None:
    x = random(4, 128)
    x[:, 17] = torch.tensor([40.0, -60.0, 100.0, -5.0], dtype=torch.float64)
    gain, beta = torch.ones(128, dtype=torch.float64), torch.zeros(128, dtype=torch.float64)
    want = exact(x, gain, beta)
    assert float(want.abs().max()) > 11  # almost all of sqrt(127)
    got = normalised(x, gain, beta, name, (2.0**-2, 2.0**8)).value()
    assert float((got - want).abs().max()) < 2e-2
    assert float((got - want).abs().median()) < 1e-3


def test_a_constant_row_gives_the_offset() -> None:
    """Without deviation there is nothing to normalise, whatever the inverse root makes of 0."""
    x = torch.tensor([0.0, 3.0, -7.25], dtype=torch.float64)[:, None].expand(3, 64).contiguous()
    beta = random(64)
    got = normalised(x, torch.ones(64, dtype=torch.float64), beta, "exact", (2.0**-4, 2.0**4)).value()
    assert float((got - beta).abs().max()) <= 2.0**-17  # beta's own rounding


def test_a_shift_of_the_row_changes_nothing() -> None:
    x, one, none = random(3, 32), torch.ones(32, dtype=torch.float64), torch.zeros(32, dtype=torch.float64)
    values = [normalised(x + d, one, none, "exact", (2.0**-3, 2.0**3)).value() for d in (0, 50)]
    assert float((values[0] - values[1]).abs().max()) < 1e-3


def test_variance_is_exact_in_the_ring() -> None:
    def build(s: list[Secret], _: Model) -> Protocol[Secret]:
        opened = yield from open_masked(s[0])
        return (yield from variance(opened))

    x = random_words(3, 4, 50)
    outcome = run_words(build, (x, 10))
    want = 50 * (x * x).sum(-1, keepdim=True) - x.sum(-1, keepdim=True) ** 2
    assert torch.equal(total(outcome.results), want)
    assert outcome.results[0].frac == 20
    assert sum(outcome.plan.dealer_bytes) == 8 * 12 and outcome.plan.rounds == 1
