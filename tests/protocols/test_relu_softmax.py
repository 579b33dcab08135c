"""2ReLU: its weights, its division down to rows without any, and what it costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from secformer_rt.errors import BadConfigError
from secformer_rt.graph import approximations
from secformer_rt.graph.causal import hidden_scores, past, without_future
from secformer_rt.graph.iterations import GoldschmidtSteps, Iteration, Step, goldschmidt_steps
from secformer_rt.graph.preset import Comparison, Goldschmidt, Seeded, TwoRelu
from secformer_rt.protocols.core import Protocol, Secret
from secformer_rt.protocols.inverse import goldschmidt
from secformer_rt.protocols.model import Model
from secformer_rt.protocols.relu_softmax import relu_weights, scales_for, two_relu_attend, two_relu_softmax
from secformer_rt.protocols.truncation import truncate
from secformer_rt.ring.fixed_point import encode
from tests.protocols.common import plan_words, preset, run_words
from tests.protocols.test_softmax import BATCH, BITS, HEADS, SIZE, padding, random, spoiled
from tests.support import Outcome

PLAIN, CUBE = preset("mpcformer-2relu").softmax, preset("the-x").softmax
assert isinstance(PLAIN, TwoRelu) and isinstance(CUBE, TwoRelu)
SEEDED = Seeded(protocol="seeded")
SQUARE = TwoRelu(protocol="2relu", offset=5.0, power=2, epsilon=0.25, division=SEEDED)
CHOICES = pytest.mark.parametrize("choice", [PLAIN, SQUARE, CUBE], ids=["plain", "square", "cube"])


def bounds_of(scores: Tensor, choice: TwoRelu, mask: Tensor | None = None) -> tuple[float, float]:
    _, total = approximations.softmax_parts(scores, choice, mask)
    return choice.epsilon, 4 * float(total.max())


def steps_of(choice: TwoRelu, bounds: tuple[float, float]) -> Iteration | None:
    division = choice.division
    if isinstance(division, Goldschmidt):
        return goldschmidt_steps(*bounds, "reciprocal", division.tolerance, division.iterations)
    return None


def attend(
    scores: Tensor,
    values: Tensor,
    mask: Tensor | None,
    choice: TwoRelu,
    bounds: tuple[float, float],
    comparison: Comparison = "tables",
    frac: int = 52,
) -> Outcome:
    def build(s: list[Secret], _: Model) -> Protocol[Secret]:
        keys = s[2] if mask is not None else None
        steps = steps_of(choice, bounds)
        return two_relu_attend(s[0], s[1], keys, choice, steps, bounds, BITS, comparison)

    inputs = [(encode(scores, frac), frac), (encode(values, 26), 26)]
    return run_words(build, *inputs, *([] if mask is None else [(mask, 0)]))


def wanted(scores: Tensor, values: Tensor, choice: TwoRelu, mask: Tensor | None = None) -> Tensor:
    weights, total = approximations.softmax_parts(scores, choice, mask)
    return weights / total @ values


@CHOICES
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("tokens", [1, 4, 9, 32])
def test_attention(choice: TwoRelu, tokens: int, masked: bool) -> None:
    scores, values = random(BATCH, HEADS, tokens, tokens) * 3, random(BATCH, HEADS, tokens, SIZE, seed=1) * 3
    mask = padding(tokens) if masked else None
    outcome = attend(scores, values, mask, choice, bounds_of(scores, choice, mask))
    want = wanted(scores, values, choice, mask)
    assert float((outcome.value() - want).abs().max()) < 2e-2
    assert float((outcome.value() - want).abs().mean()) < 1e-3
    assert outcome.results[0].ring == 64


@pytest.mark.parametrize("comparison", ["tables", "adder"])
@pytest.mark.parametrize("division", [SEEDED, Goldschmidt(protocol="goldschmidt", iterations=24)])
def test_every_division_and_comparison(comparison: Comparison, division: Seeded | Goldschmidt) -> None:
    choice = PLAIN.model_copy(update={"division": division})
    scores, values = random(1, 2, 12, 12) * 4, random(1, 2, 12, 4, seed=1)
    outcome = attend(scores, values, None, choice, bounds_of(scores, choice), comparison)
    assert float((outcome.value() - wanted(scores, values, choice)).abs().max()) < 5e-3


@CHOICES
def test_a_row_without_a_positive_score_gives_0(choice: TwoRelu) -> None:
    scores = random(1, 1, 6, 6) * 4
    scores[..., 1, :] = -40.0
    scores[..., 2, :] = -choice.offset
    scores[..., 3, :] = -choice.offset - 2.0**-10
    outcome = attend(scores, random(1, 1, 6, SIZE) * 3, None, choice, bounds_of(scores, choice)).value()
    assert not outcome[..., 1:4, :].any()
    assert bool(outcome[..., 0, :].any())


def test_epsilon_counts_where_little_is_positive() -> None:
    scores = torch.full((1, 1, 3, 3), -1.0, dtype=torch.float64)
    scores[..., 0] = torch.tensor([2.0**-8, 2.0**-6, 2.0**-3])
    values = torch.ones(1, 1, 3, 2, dtype=torch.float64)
    got = attend(scores, values, None, PLAIN, (PLAIN.epsilon, 64.0)).value()[0, 0, :, 0]
    assert got.tolist() == pytest.approx([1 / 5, 1 / 2, 8 / 9], abs=2e-3)


@pytest.mark.parametrize("division", [SEEDED, Goldschmidt(protocol="goldschmidt", iterations=24)])
def test_the_least_epsilon_is_not_lost_in_few_bits(division: Seeded | Goldschmidt) -> None:
    choice = PLAIN.model_copy(update={"epsilon": 2.0**-10, "division": division})
    scores = torch.tensor([[-1.0, -2.0], [0.5, -1.0], [0.25, 0.75]], dtype=torch.float64)
    bounds, bits = (choice.epsilon, 8.0), BITS.model_copy(update={"function": 6})
    outcome = run_words(
        lambda s, _: two_relu_softmax(s[0], choice, steps_of(choice, bounds), bounds, bits),
        (encode(scores, 26), 26),
    )
    got = outcome.value()
    assert not got[0].any()
    assert got[1:].flatten().tolist() == pytest.approx([1.0, 0.0, 0.25, 0.75], abs=5e-3)


@pytest.mark.parametrize("huge", [300.0, -300.0])
@CHOICES
def test_masked_keys_have_no_influence(choice: TwoRelu, huge: float) -> None:
    mask = padding(8)
    scores, values = random(BATCH, HEADS, 8, 8), random(BATCH, HEADS, 8, SIZE, seed=1)
    bounds = bounds_of(scores, choice, mask)
    bad_scores = spoiled(scores, mask, huge, keys=True)
    bad_values = spoiled(values, mask, 10.0, keys=False)
    outcome = attend(bad_scores, bad_values, mask, choice, bounds)
    assert float((outcome.value() - wanted(scores, values, choice, mask)).abs().max()) < 1e-2


@CHOICES
def test_later_keys_have_no_weight(choice: TwoRelu) -> None:
    """A decoder's mask is public: what hides a later score is where its weight is exactly 0."""
    scores, values = random(1, 2, 7, 7) * 3, random(1, 2, 7, SIZE, seed=1)
    seen = without_future(scores, choice)
    hidden = hidden_scores(choice, 12.0)
    known = torch.where(past(scores), scores, hidden.future)
    outcome = attend(known, values, None, choice, bounds_of(seen, choice))
    assert float((outcome.value() - wanted(seen, values, choice)).abs().max()) < 1e-2
    weights = run_words(
        lambda s, _: relu_weights(s[0], None, choice, BITS, "tables"), (encode(known, 52), 52)
    )
    assert not weights.value()[~past(scores).expand_as(scores)].any()


@CHOICES
@pytest.mark.parametrize("comparison", ["tables", "adder"])
def test_weights_over_the_whole_range_of_scores(choice: TwoRelu, comparison: Comparison) -> None:
    """Up to 2^9, to the last bit; from any scale."""
    scores = torch.cat([torch.linspace(-511, 511, 700, dtype=torch.float64), random(300) * 4])
    scores = (scores * 2**9).round() / 2**9
    want = approximations.relu_weights(scores, choice)
    for frac in (52, 26, 9):
        outcome = run_words(
            lambda s, _: relu_weights(s[0], None, choice, BITS, comparison), (encode(scores, frac), frac)
        )
        assert torch.equal(outcome.value(), want)


@CHOICES
@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 2, 3, 9)])
@pytest.mark.parametrize("comparison", ["tables", "adder"])
def test_softmax_by_itself(choice: TwoRelu, shape: tuple[int, ...], comparison: Comparison) -> None:
    scores = random(*shape) * 3
    bounds = bounds_of(scores, choice)
    steps = steps_of(choice, bounds)
    outcome = run_words(
        lambda s, _: two_relu_softmax(s[0], choice, steps, bounds, BITS, comparison),
        (encode(scores, 26), 26),
    )
    weights, total = approximations.softmax_parts(scores, choice)
    assert float((outcome.value() - weights / total).abs().max()) < 4e-3
    assert outcome.results[0].frac == 16


@pytest.mark.parametrize("top", range(1, 28))
@pytest.mark.parametrize(("frac", "epsilon"), [(12, 2.0**-10), (12, 2.0**-6), (24, 0.25), (30, 1.0)])
def test_nothing_leaves_the_ring(frac: int, epsilon: float, top: int) -> None:
    found = scales_for((epsilon, 2.0**top), frac, 26)
    assert found.weights + found.values + top + 10 <= 62  # weights times values
    assert found.context + found.reciprocal + 10 <= 62  # and the result
    assert 8 <= found.context < found.weights + found.values
    assert found.reciprocal >= top + 10


def test_sums_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BadConfigError, match="choose a lower power"):
        scales_for((1.0, 2.0**33), 30, 26)


def meta(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.int64, device="meta")


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("power", "iterations"), [(1, 1), (1, 9), (3, 9)])
def test_costs(power: int, iterations: int, masked: bool) -> None:
    choice = PLAIN.model_copy(update={"power": power})
    steps = GoldschmidtSteps("reciprocal", 1.0, 1024.0, 10, (Step(2.0, 1.0),) * iterations)

    def build(s: list[Secret], _: Model) -> Protocol[Any]:
        mask = s[2].local(s[2].share, 0) if masked else None
        return two_relu_attend(s[0], s[1], mask, choice, steps, (1.0, 2.0 ** (5 + 5 * power)), BITS)

    tokens, size = 16, 4
    pairs, rows = 2 * tokens * tokens, 2 * tokens
    given = [(meta(1, 2, tokens, tokens), 52), (meta(1, 2, tokens, size), 26)]
    plan = plan_words(build, *given, *([(meta(1, tokens), 0)] if masked else []))
    frac = 12 if power == 1 else 30  # of the weights: a cube's scores keep 10 bits
    scales = scales_for((1.0, 2.0 ** (5 + 5 * power)), frac, 26)

    def divided(s: list[Secret], _: Model) -> Protocol[Secret]:
        quotient = yield from goldschmidt(s[0], steps)
        return (yield from truncate(quotient, scales.reciprocal))

    division = plan_words(divided, (meta(1, 2, tokens, 1), frac))
    # Scores; their comparison and its conversion; the division, and its truncation.
    assert plan.rounds == 3 + division.rounds
    # Of scores and the context what is not cut off, a word of weights and of values, and the comparison.
    # Where sums leave no room, weights and values are truncated, which opens the same word in two parts.
    scores = pairs * ((24, 22)[power > 1] + 64 + (11 if power == 1 else 9)) // 8
    context = min(frac, scales.weights) + min(26, scales.values) - scales.context
    values = rows * size * (64 + 64 - context) // 8
    assert plan.server_bytes == scores + values + division.server_bytes
