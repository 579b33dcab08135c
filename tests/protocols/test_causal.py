"""The causal mask: later keys have no weight at all, and nothing is paid for that."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from secformer_rt.graph.causal import hidden_scores, without_future
from secformer_rt.graph.iterations import Iteration
from secformer_rt.graph.preset import ExactSoftmax, TwoQuad
from secformer_rt.graph.ranges import iteration
from secformer_rt.protocols.causal import hide_future
from secformer_rt.protocols.core import Protocol, Secret
from secformer_rt.protocols.softmax import exact_attend, two_quad_attend
from secformer_rt.ring.fixed_point import encode
from tests.protocols.common import preset
from tests.support import Outcome, reconstruct, run_protocol

BITS = preset("exact").fixed_point
REACH = 12.0
BOUNDS = (0.1, 2.0**12)
SCORES = torch.empty(2, 2, 7, 7).uniform_(-REACH, REACH, generator=torch.Generator().manual_seed(3))


def test_hiding_is_local_and_exact() -> None:
    hidden = hidden_scores(preset("exact").softmax, REACH)

    def build(server: int, s: list[Secret]) -> Protocol[Secret]:
        return hide_future(s[0], hidden)
        yield

    outcome = run_protocol(build, (SCORES.double(), 26))
    assert (outcome.plan.rounds, outcome.plan.server_bytes, outcome.plan.dealer_bytes) == (0, 0, [0, 0])
    past = torch.ones(7, 7).tril().bool()
    expected = torch.where(past, SCORES.double() + hidden.shift, hidden.future)
    torch.testing.assert_close(outcome.value(), expected, rtol=0, atol=2.0**-26)
    assert expected.abs().max() <= hidden.reach


def attend(name: str, scores: Tensor, values: Tensor) -> Outcome:
    choice = preset(name).softmax
    hidden = hidden_scores(choice, REACH)

    def build(server: int, s: list[Secret]) -> Protocol[Any]:
        known = hide_future(s[0], hidden)
        found: Iteration | None
        if isinstance(choice, TwoQuad):
            found = iteration(choice.division, BOUNDS, "reciprocal")
            return two_quad_attend(known, s[1], None, choice, found, BOUNDS, BITS)
        assert isinstance(choice, ExactSoftmax)
        found = iteration(choice.division, (1.0, 7.0), "reciprocal")
        return exact_attend(known, s[1], None, choice, found, BITS, "tables", hidden.reach)

    return run_protocol(build, (scores, 26), (values, 20))


@pytest.mark.parametrize("name", ["exact", "secformer", "puma", "crypten"])
def test_later_keys_have_no_weight(name: str) -> None:
    """Key j has the value 2^(2 j): however little of a later one would outweigh all that a query may see."""
    scores = SCORES.double()
    values = (4.0 ** torch.arange(7, dtype=torch.float64))[:, None].expand(2, 2, 7, 4).contiguous()
    choice = preset(name).softmax
    weights = without_future(scores, choice)
    weights = (
        (weights + 5).square() if isinstance(choice, TwoQuad) else (weights - weights.amax(-1, True)).exp()
    )
    expected = weights / weights.sum(-1, keepdim=True) @ values
    found = attend(name, scores, values).value()
    assert float(((found - expected) / values).abs().max()) < 5e-2
    # A row that may see one key takes its value whole, in spite of scores that are far higher.
    high = scores.clone()
    high[:, :, 0, 0], high[:, :, 0, 1:] = -REACH + 1, REACH
    assert float((attend(name, high, values).value()[:, :, 0] - 1).abs().max()) < 2e-3


def test_encoded_numbers_fit_where_scores_have_most_fraction_bits() -> None:
    hidden = hidden_scores(preset("exact").softmax, 512.0)
    ends = torch.tensor([hidden.future, 512 + hidden.shift], dtype=torch.float64)
    assert torch.equal(
        reconstruct([Secret(0, encode(ends, 52), 52), Secret(1, torch.zeros(2).long(), 52)]), ends
    )
    assert float(ends.abs().max()) < 1024  # which a truncation asks for
