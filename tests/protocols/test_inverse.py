from __future__ import annotations

from collections.abc import Callable
from math import log

import pytest
import torch
from torch import Tensor

from secformer_rt.graph.iterations import InverseKind, goldschmidt_steps, newton_steps
from secformer_rt.graph.preset import Seeded
from secformer_rt.protocols.core import Protocol, Secret
from secformer_rt.protocols.inverse import goldschmidt, newton
from secformer_rt.protocols.model import Model
from secformer_rt.protocols.seeds import seeded
from tests.protocols.common import run_words, total
from tests.support import Outcome

KINDS: tuple[InverseKind, ...] = ("reciprocal", "rsqrt")
EXACT: dict[InverseKind, Callable[[Tensor], Tensor]] = {
    "reciprocal": lambda v: 1 / v,
    "rsqrt": lambda v: v**-0.5,
}
FRAC = 30
RANGES = [(-2, 6), (-3, 5), (-4, 7), (-12, -4), (6, 14), (-6, 6), (0, 0), (0, 1), (-1, 0)]


def over(low: int, high: int, count: int = 2000) -> Tensor:
    """Words evenly spread over the octaves of [2^low, 2^high], and both ends."""
    exponents = torch.linspace(low, high, count, dtype=torch.float64)
    return (torch.exp2(exponents) * 2.0**FRAC).round().to(torch.int64)


def found(outcome: Outcome) -> Tensor:
    return total(outcome.results) * 2.0 ** -outcome.results[0].frac


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("low", "high"), RANGES)
def test_goldschmidt_does_what_floating_point_does(kind: InverseKind, low: int, high: int) -> None:
    words = over(low, high)
    chosen = goldschmidt_steps(2.0**low, 2.0**high, kind, 1e-4, 40)
    outcome = run_words(lambda s, _: goldschmidt(s[0], chosen), (words, FRAC))
    value = words * 2.0**-FRAC
    # The first truncation of q costs a unit relative to q, which may be as small as low / eta.
    unit = 2.0 ** (chosen.exponent - low)
    bound = 2.0**-17 + unit * 2.0**-39 if kind == "reciprocal" else 2.0**-13 + unit * 2.0**-28
    bound = max(bound, 2.0**-30 * 2.0**-low)  # the argument's own last place
    assert float((found(outcome) / EXACT[kind](value) - 1).abs().max()) < 1e-4 + bound
    assert float((found(outcome) / chosen.apply(value) - 1).abs().max()) < 1e-4 + bound
    assert outcome.plan.rounds == max(4, chosen.iterations)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("low", "high"), RANGES)
def test_newton_does_what_floating_point_does(kind: InverseKind, low: int, high: int) -> None:
    words = over(low, high)
    chosen = newton_steps(2.0**low, 2.0**high, kind, 1e-4, 40)
    outcome = run_words(lambda s, _: newton(s[0], chosen), (words, FRAC))
    value = words * 2.0**-FRAC
    unit = 2.0 ** (chosen.exponent - low)
    bound = 2.0**-17 + unit * 2.0**-36 if kind == "reciprocal" else 2.0**-13 + unit * 2.0**-30
    assert float((found(outcome) / EXACT[kind](value) - 1).abs().max()) < 1e-4 + bound
    assert float((found(outcome) / chosen.apply(value) - 1).abs().max()) < 1e-4 + bound
    assert outcome.plan.rounds == max(4, 2 * chosen.iterations + 1)


@pytest.mark.parametrize("kind", KINDS)
def test_iterations_serve_the_widest_range_they_claim(kind: InverseKind) -> None:
    words = over(-10, 8)
    for protocol, steps in ((goldschmidt, goldschmidt_steps), (newton, newton_steps)):
        chosen = steps(2.0**-10, 2.0**8, kind, 1e-4, 60)
        outcome = run_words(lambda s, _, p=protocol, c=chosen: p(s[0], c), (words, FRAC))
        error = (found(outcome) / EXACT[kind](words * 2.0**-FRAC) - 1).abs()
        assert float(error.max()) < 2e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("low", "high"), [(-1, 6), (-1, 9), (-2, 6), (-6, 8)])
@pytest.mark.parametrize("segments", [4, 16])
def test_seeded_is_a_line_an_interval(kind: InverseKind, low: int, high: int, segments: int) -> None:
    words = over(low, high, 1500)
    choice = Seeded(protocol="seeded", segments=segments)
    outcome = run_words(
        lambda s, _: seeded(s[0], kind, 2.0**low, 2.0**high, choice, frac=24, slope_frac=30), (words, FRAC)
    )
    claim = (log(2) / segments) ** 2 / 8 * (1 if kind == "reciprocal" else 3 / 8)
    error = (found(outcome) / EXACT[kind](words * 2.0**-FRAC) - 1).abs()
    # A line's end is left a little late where comparisons drop bits, and slopes have 30 fraction bits.
    assert float(error.max()) < 1.7 * claim + 2.0 ** (high - low - 24) + 2.0 ** (2 * high - 30)
    assert float(error.max()) > claim / 2
    assert outcome.plan.rounds <= 4


def test_seeded_takes_a_value_that_has_few_fraction_bits() -> None:
    words = torch.arange(1, 65, dtype=torch.int64) << 16
    choice = Seeded(protocol="seeded")
    outcome = run_words(
        lambda s, _: seeded(s[0], "reciprocal", 1.0, 64.0, choice, frac=16, slope_frac=30), (words, 16)
    )
    assert float((found(outcome) * torch.arange(1, 65) - 1).abs().max()) < 6e-4


BEYOND = torch.tensor([-8.0, 0.0, 1e-6, 0.1, 0.9, 16.6, 17.0, 40.0, 60.0], dtype=torch.float64)
TAKEN_FOR = torch.tensor([1.0] * 5 + [16.0] * 4, dtype=torch.float64)


def build(name: str, kind: InverseKind) -> Callable[[list[Secret], Model], Protocol[Secret]]:
    if name == "seeded":
        choice = Seeded(protocol="seeded", segments=4)
        return lambda s, _: seeded(s[0], kind, 1.0, 16.0, choice, frac=24, slope_frac=30)
    if name == "newton":
        return lambda s, _: newton(s[0], newton_steps(1.0, 16.0, kind, 1e-4, 40))
    return lambda s, _: goldschmidt(s[0], goldschmidt_steps(1.0, 16.0, kind, 1e-4, 40))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["seeded", "newton", "goldschmidt"])
def test_beyond_the_range_the_ends_serve(kind: InverseKind, name: str) -> None:
    words = (BEYOND * 2.0**FRAC).to(torch.int64)
    got = found(run_words(build(name, kind), (words, FRAC)))
    assert float((got / EXACT[kind](TAKEN_FOR) - 1).abs().max()) < 2e-4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["newton", "goldschmidt"])
def test_iterations_saturate_however_far(kind: InverseKind, name: str) -> None:
    words = torch.tensor([-(1 << 50), -1, 1 << 40, 1 << 50], dtype=torch.int64)
    got = found(run_words(build(name, kind), (words, FRAC)))
    want = EXACT[kind](torch.tensor([1.0, 1.0, 16.0, 16.0], dtype=torch.float64))
    assert float((got / want - 1).abs().max()) < 2e-4
