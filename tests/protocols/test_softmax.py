from __future__ import annotations

import pytest
import torch
from torch import Tensor

from secformer_rt.graph import approximations
from secformer_rt.graph.iterations import Iteration, goldschmidt_steps
from secformer_rt.graph.preset import Comparison, ExactSoftmax, Goldschmidt, LimitExponential, Seeded, TwoQuad
from secformer_rt.protocols.core import Protocol, Secret
from secformer_rt.protocols.model import Model
from secformer_rt.protocols.softmax import exact_attend, exact_softmax, two_quad_attend, two_quad_softmax
from secformer_rt.ring.fixed_point import encode
from tests.protocols.common import preset, run_words
from tests.support import Outcome

BITS = preset("exact").fixed_point
BATCH, HEADS, SIZE = 2, 2, 8


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def padding(tokens: int) -> Tensor:
    """The first text is whole, the second ends early."""
    lengths = torch.tensor([tokens, max(1, tokens // 2)])
    return (torch.arange(tokens) < lengths[:, None]).to(torch.int64)


def steps_of(choice: TwoQuad | ExactSoftmax, bounds: tuple[float, float]) -> Iteration | None:
    division = choice.division
    if isinstance(division, Goldschmidt):
        return goldschmidt_steps(*bounds, "reciprocal", division.tolerance, division.iterations)
    return None


def two_quad(
    scores: Tensor,
    values: Tensor,
    mask: Tensor | None,
    choice: TwoQuad,
    bounds: tuple[float, float],
    comparison: Comparison = "tables",
) -> Outcome:
    steps = steps_of(choice, bounds)

    def build(s: list[Secret], _: Model) -> Protocol[Secret]:
        keys = s[2] if mask is not None else None
        return two_quad_attend(s[0], s[1], keys, choice, steps, bounds, BITS, comparison)

    inputs = [(encode(scores, 26), 26), (encode(values, 20), 20)]
    return run_words(build, *inputs, *([] if mask is None else [(mask, 0)]))


def exact(
    scores: Tensor,
    values: Tensor,
    mask: Tensor | None,
    choice: ExactSoftmax,
    steps: Iteration | None = None,
    comparison: Comparison = "tables",
) -> Outcome:
    def build(s: list[Secret], _: Model) -> Protocol[Secret]:
        keys = s[2] if mask is not None else None
        return exact_attend(s[0], s[1], keys, choice, steps, BITS, comparison)

    inputs = [(encode(scores, 26), 26), (encode(values, 20), 20)]
    return run_words(build, *inputs, *([] if mask is None else [(mask, 0)]))


def weighted(weights: Tensor, values: Tensor) -> Tensor:
    return weights / weights.sum(-1, keepdim=True) @ values


def limited(squarings: int, clip: float) -> ExactSoftmax:
    return ExactSoftmax(
        protocol="exact",
        clip=clip,
        exponential=LimitExponential(protocol="limit", squarings=squarings),
        division=Seeded(protocol="seeded"),
    )


QUAD = preset("secformer").softmax
EXACT = preset("exact").softmax
assert isinstance(QUAD, TwoQuad) and isinstance(EXACT, ExactSoftmax)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("tokens", [4, 9, 32])
def test_two_quad(tokens: int, masked: bool) -> None:
    scores, values = random(BATCH, HEADS, tokens, tokens) * 2, random(BATCH, HEADS, tokens, SIZE, seed=1) * 3
    mask = padding(tokens) if masked else None
    weights = approximations.two_quad_weights(scores, 5.0, mask)
    sums = weights.sum(-1)
    bounds = (float(sums.min()) / 2, float(sums.max()) * 2)
    outcome = two_quad(scores, values, mask, QUAD, bounds)
    assert float((outcome.value() - weighted(weights, values)).abs().max()) < 2e-2


@pytest.mark.parametrize("comparison", ["tables", "adder"])
def test_two_quad_with_a_seeded_division(comparison: Comparison) -> None:
    scores, values = random(1, 2, 8, 8), random(1, 2, 8, 4, seed=1)
    choice = TwoQuad(protocol="2quad", division=Seeded(protocol="seeded", segments=16))
    weights = approximations.two_quad_weights(scores, 5.0)
    sums = weights.sum(-1)
    bounds = (float(sums.min()) / 2, float(sums.max()) * 2)
    outcome = two_quad(scores, values, None, choice, bounds, comparison)
    assert float((outcome.value() - weighted(weights, values)).abs().max()) < 5e-3


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("tokens", [1, 4, 9, 32])
def test_exact_softmax(tokens: int, masked: bool) -> None:
    scores = random(BATCH, HEADS, tokens, tokens) * 6
    values = random(BATCH, HEADS, tokens, SIZE, seed=1) * 3
    mask = padding(tokens) if masked else None
    outcome = exact(scores, values, mask, EXACT)
    want = approximations.softmax(scores, mask) @ values
    assert float((outcome.value() - want).abs().max()) < 8e-3


@pytest.mark.parametrize("clip", [8, 16])
def test_exact_softmax_of_extreme_scores(clip: int) -> None:
    """One-hot rows, ties, and rows that cover the whole range of scores."""
    scores = torch.zeros(1, 1, 6, 6, dtype=torch.float64)
    scores[..., 1, 3] = 200.0
    scores[..., 2, :] = 500.0
    scores[..., 3, :] = -500.0
    scores[..., 4, :] = torch.tensor([-500.0, 500.0, -500.0, 499.0, 0.0, 500.0])
    scores[..., 5, 0] = -500.0
    values = random(1, 1, 6, SIZE)
    choice = ExactSoftmax(protocol="exact", clip=clip, division=Seeded(protocol="seeded"))
    want = approximations.softmax(scores) @ values
    assert float((exact(scores, values, None, choice).value() - want).abs().max()) < 3e-3


def test_exact_softmax_with_an_iterated_division() -> None:
    scores, values = random(1, 2, 12, 12) * 3, random(1, 2, 12, 4, seed=1)
    choice = ExactSoftmax(protocol="exact", division=Goldschmidt(protocol="goldschmidt", iterations=24))
    steps = goldschmidt_steps(0.5, 24.0, "reciprocal", 1e-4, 24)
    want = approximations.softmax(scores) @ values
    assert float((exact(scores, values, None, choice, steps).value() - want).abs().max()) < 3e-3


def spoiled(tensor: Tensor, mask: Tensor, value: float, keys: bool) -> Tensor:
    where = mask[:, None, None, :] if keys else mask[:, None, :, None]
    return torch.where(where != 0, tensor, value)


@pytest.mark.parametrize("huge", [200.0, -200.0])
@pytest.mark.parametrize("name", ["exact", "secformer"])
def test_masked_keys_have_no_influence(name: str, huge: float) -> None:
    tokens = 8
    mask = padding(tokens)
    scores, values = random(BATCH, HEADS, tokens, tokens), random(BATCH, HEADS, tokens, SIZE, seed=1)
    bad_scores = spoiled(scores, mask, huge, keys=True)
    bad_values = spoiled(values, mask, 40 * huge, keys=False)
    if name == "exact":
        outcome = exact(bad_scores, bad_values, mask, EXACT)
        want = approximations.softmax(scores, mask) @ values
    else:
        weights = approximations.two_quad_weights(scores, 5.0, mask)
        outcome = two_quad(bad_scores, bad_values, mask, QUAD, (16.0, 1024.0))
        want = weighted(weights, values)
    assert float((outcome.value() - want).abs().max()) < 5e-3


PUMA = limited(5, 14)
CRYPTEN = limited(8, 16)


@pytest.mark.parametrize("comparison", ["tables", "adder"])
@pytest.mark.parametrize("choice", [EXACT, PUMA, CRYPTEN], ids=["dealt", "puma", "crypten"])
@pytest.mark.parametrize("masked", [False, True])
def test_every_exponential_and_comparison(masked: bool, choice: ExactSoftmax, comparison: Comparison) -> None:
    tokens = 9
    scores = random(BATCH, HEADS, tokens, tokens) * 6
    values = random(BATCH, HEADS, tokens, SIZE, seed=1) * 3
    mask = padding(tokens) if masked else None
    weights = approximations.exponential_weights(scores, choice, mask)
    outcome = exact(scores, values, mask, choice, comparison=comparison)
    assert float((outcome.value() - weighted(weights, values)).abs().max()) < 8e-3


@pytest.mark.parametrize("comparison", ["tables", "adder"])
@pytest.mark.parametrize("choice", [EXACT, PUMA, CRYPTEN], ids=["dealt", "puma", "crypten"])
def test_extreme_scores_with_every_exponential(choice: ExactSoftmax, comparison: Comparison) -> None:
    scores = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    scores[..., 0, :] = torch.tensor([-511.0, 511.0, -511.0, 510.0, 0.0])
    scores[..., 1, 3] = 511.0
    scores[..., 2, :] = -511.0
    scores[..., 3, :] = torch.tensor([0.0, -float(choice.clip) - 2, -0.5, -300.0, -1.0])
    values = random(1, 1, 5, SIZE)
    want = weighted(approximations.exponential_weights(scores, choice), values)
    got = exact(scores, values, None, choice, comparison=comparison).value()
    assert float((got - want).abs().max()) < 3e-3


@pytest.mark.parametrize("shape", [(1,), (2, 1), (3, 4), (2, 2, 3, 9)])
@pytest.mark.parametrize("choice", [EXACT, PUMA, CRYPTEN], ids=["dealt", "puma", "crypten"])
@pytest.mark.parametrize("comparison", ["tables", "adder"])
def test_exact_softmax_by_itself(
    shape: tuple[int, ...], choice: ExactSoftmax, comparison: Comparison
) -> None:
    scores = random(*shape) * 4
    outcome = run_words(
        lambda s, _: exact_softmax(s[0], choice, None, BITS, comparison), (encode(scores, 26), 26)
    )
    weights = approximations.exponential_weights(scores, choice)
    want = weights / weights.sum(-1, keepdim=True)
    assert float((outcome.value() - want).abs().max()) < 1e-3
    assert (outcome.results[0].frac, outcome.results[0].ring) == (38, 64)


@pytest.mark.parametrize("frac", [8, 12, 26, 48])
def test_exact_softmax_by_itself_from_any_scale(frac: int) -> None:
    scores = (random(3, 5) * 16).round() / 8
    outcome = run_words(lambda s, _: exact_softmax(s[0], EXACT, None, BITS), (encode(scores, frac), frac))
    assert float((outcome.value() - approximations.softmax(scores)).abs().max()) < 1e-3


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 2, 3, 9)])
@pytest.mark.parametrize("protocol", ["goldschmidt", "seeded"])
@pytest.mark.parametrize("comparison", ["tables", "adder"])
def test_two_quad_softmax_by_itself(shape: tuple[int, ...], protocol: str, comparison: Comparison) -> None:
    scores = random(*shape) * 2
    division = QUAD.division if protocol == "goldschmidt" else Seeded(protocol="seeded")
    choice = TwoQuad(protocol="2quad", division=division)
    weights = approximations.two_quad_weights(scores, 5.0)
    sums = weights.sum(-1, keepdim=True)
    bounds = (float(sums.min()) / 2, float(sums.max()) * 2)
    steps = steps_of(choice, bounds)
    outcome = run_words(
        lambda s, _: two_quad_softmax(s[0], choice, steps, bounds, BITS, comparison),
        (encode(scores, 26), 26),
    )
    assert float((outcome.value() - weights / sums).abs().max()) < 2e-3
    assert (outcome.results[0].frac, outcome.results[0].ring) == (16, 64)
