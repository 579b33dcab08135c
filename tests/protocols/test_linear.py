from __future__ import annotations

import pytest
import torch

from secformer_rt.protocols.core import Protocol, Secret, parallel
from secformer_rt.protocols.linear import Weight, linear, secret_matmul
from secformer_rt.protocols.model import Model
from secformer_rt.protocols.product import multiply
from tests.protocols.common import Parameter, random_words, run_words, total


def by_weight(s: list[Secret], model: Model) -> Protocol[Secret]:
    return linear(s[0], model.weights["w"])


@pytest.mark.parametrize(
    ("shape", "columns"), [((1, 1), 1), ((1, 5), 3), ((4, 9), 7), ((2, 3, 17), 33), ((2, 2, 3, 8), 1)]
)
def test_linear_is_exact_in_the_ring(shape: tuple[int, ...], columns: int) -> None:
    x, w = random_words(*shape), random_words(shape[-1], columns)
    outcome = run_words(by_weight, (x, 12), parameters=[Parameter("w", w, 14)])
    assert outcome.results[0].frac == 26
    assert torch.equal(total(outcome.results), torch.matmul(x, w))
    assert outcome.plan.ledger.rounds == [((("", "", ""), 8 * x.numel()),)]
    assert sum(outcome.plan.dealer_bytes) == 8 * x.numel() // shape[-1] * columns


def test_consumers_of_one_wire_open_it_once() -> None:
    def build(s: list[Secret], model: Model) -> Protocol[list[Secret]]:
        jobs = [linear(s[0], model.weights[name]) for name in "qkv"]
        jobs += [multiply(s[0], s[0]), secret_matmul(s[0], s[0], transpose=True)]
        return (yield from parallel(*jobs))

    x = random_words(6, 5)
    parameters = [Parameter(name, random_words(5, 4)) for name in "qkv"]
    outcome = run_words(build, (x, 0), parameters=parameters)
    assert (outcome.plan.rounds, outcome.plan.server_bytes) == (1, 8 * 30)
    results = [total([r[i] for r in outcome.results]) for i in range(5)]
    for parameter, value in zip(parameters, results, strict=False):
        assert torch.equal(value, x @ parameter.words)
    assert torch.equal(results[3], x * x) and torch.equal(results[4], x @ x.T)


def test_a_second_product_with_the_same_weight_is_exact_too() -> None:
    def build(s: list[Secret], model: Model) -> Protocol[Secret]:
        once = yield from linear(s[0], model.weights["w"])
        return (yield from linear(once, model.weights["w"]))

    x, w = random_words(3, 6), random_words(6, 6)
    outcome = run_words(build, (x, 0), parameters=[Parameter("w", w)])
    assert torch.equal(total(outcome.results), x @ w @ w)
    assert outcome.plan.rounds == 2


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (4, 6, 5), (1, 9, 2), (7, 3, 16)])
@pytest.mark.parametrize("transpose", [False, True])
def test_secret_matmul_is_exact_in_the_ring(
    batch: tuple[int, ...], m: int, k: int, n: int, transpose: bool
) -> None:
    x = random_words(*batch, m, k)
    y = random_words(*batch, n, k) if transpose else random_words(*batch, k, n)
    outcome = run_words(lambda s, _: secret_matmul(*s, transpose=transpose), (x, 3), (y, 4))
    want = torch.matmul(x, y.transpose(-1, -2) if transpose else y)
    assert outcome.results[0].frac == 7
    assert torch.equal(total(outcome.results), want)
    assert (outcome.plan.rounds, outcome.plan.server_bytes) == (1, 8 * (x.numel() + y.numel()))
    assert sum(outcome.plan.dealer_bytes) == 8 * want.numel()


def test_secrets_and_weights_do_not_print_themselves() -> None:
    x = random_words(2, 2)
    outcome = run_words(by_weight, (x, 0), parameters=[Parameter("w", x)])
    weight = Weight("w", (2, 2), 3, None, None)  # type: ignore[arg-type]
    assert repr(outcome.results[0]) == "Secret(shape=(2, 2), frac=0, ring=64)"
    assert repr(weight) == "Weight(w, shape=(2, 2), frac=3)"
