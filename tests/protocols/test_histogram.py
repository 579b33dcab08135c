from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from secformer_rt.graph import approximations
from secformer_rt.graph.preset import Comparison, ExactSoftmax
from secformer_rt.protocols.core import Protocol, Secret
from secformer_rt.protocols.histogram import GROUP, highest_bucket
from secformer_rt.protocols.masking import open_masked
from secformer_rt.protocols.model import Model
from secformer_rt.protocols.softmax import MOST_BUCKETS, buckets_for, exact_attend
from secformer_rt.ring.fixed_point import encode
from tests.protocols.common import plan_words, preset, run_words, total

FRAC, LOW, COUNT = 12, 13, 64  # buckets of 2, from 0 to 128
BITS = preset("exact").fixed_point
CHOICE = preset("exact").softmax


def numbers(x: Tensor, comparison: Comparison = "tables") -> Any:
    def build(s: list[Secret], _: Model) -> Protocol[Secret]:
        opened = yield from open_masked(s[0])
        return (yield from highest_bucket(opened, low=LOW, count=COUNT, ring=24, comparison=comparison))

    return run_words(build, (x, FRAC, 24))


@pytest.mark.parametrize("comparison", ["tables", "adder"])
@pytest.mark.parametrize("columns", [1, 2, 7, 128, 129, 300])
def test_the_maximum_lies_in_the_bucket_or_the_one_below(columns: int, comparison: Comparison) -> None:
    generator = torch.Generator().manual_seed(columns)
    x = torch.randint(0, (COUNT - 1) << LOW, (12, columns), generator=generator)
    x[0], x[1], x[2] = 0, ((COUNT - 1) << LOW) - 1, (5 << LOW) - 1  # both ends, and an edge
    found, highest = total(numbers(x, comparison).results)[:, 0], x.amax(-1)
    assert bool((((found - 1) << LOW) <= highest).all())
    assert bool((highest < ((found + 1) << LOW)).all())


@pytest.mark.parametrize("columns", [1, 16, 128, 256])
def test_costs(columns: int) -> None:
    rows, groups = 8, max(1, columns // GROUP)
    plan = numbers(torch.zeros(rows, columns, dtype=torch.int64)).plan
    entries = rows * groups * (COUNT - 1)
    assert plan.rounds == 1 + 3
    assert plan.server_bytes == 3 * rows * columns + entries + 3 * entries // 8
    # One-hot tables; two chunk tables, the top bit and one product of bits; the words of the conversion.
    dealt = rows * columns * COUNT + entries * 4 + 2 * entries // 8 + 3 * entries
    products = 3 * entries // groups
    assert sum(plan.dealer_bytes) == dealt + products * (groups - 1)


def attention(scores: Tensor, values: Tensor, mask: Tensor | None, reach: float) -> Any:
    assert isinstance(CHOICE, ExactSoftmax)

    def build(s: list[Secret], _: Model) -> Protocol[Secret]:
        keys = None if mask is None else s[2]
        return exact_attend(s[0], s[1], keys, CHOICE, None, BITS, "tables", reach)

    words = [(encode(scores, 52), 52), (encode(values, 26), 26)]
    return run_words(build, *words, *([] if mask is None else [(mask, 0)]))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("tokens", [1, 3, 16, 40, 130])
@pytest.mark.parametrize("reach", [7.0, 25.0, 60.0, 120.0])
def test_softmax(tokens: int, masked: bool, reach: float) -> None:
    generator = torch.Generator().manual_seed(tokens)
    scores = (2 * torch.rand(2, 2, tokens, tokens, dtype=torch.float64, generator=generator) - 1) * reach
    scores[0, 0, 0] = reach - 0.001  # a row of maxima
    scores[0, 0, -1] = -reach
    values = torch.randn(2, 2, tokens, 4, dtype=torch.float64, generator=generator)
    mask = None
    if masked:
        mask = (torch.arange(tokens) < torch.tensor([[max(1, tokens // 2)], [tokens]])).to(torch.int64)
    outcome = attention(scores, values, mask, reach)
    want = approximations.softmax(scores, mask) @ values
    assert float((outcome.value() - want).abs().max()) < 3e-3
    assert outcome.results[0].frac <= 38  # what the next matrix takes without a truncation
    assert isinstance(CHOICE, ExactSoftmax)
    if buckets_for(CHOICE, reach, masked=masked):
        assert outcome.plan.rounds <= (14 if masked else 13)


def test_a_range_too_wide_takes_the_tournament() -> None:
    assert isinstance(CHOICE, ExactSoftmax)
    assert buckets_for(CHOICE, 62.0, masked=False).count == 128  # type: ignore[union-attr]
    assert buckets_for(CHOICE, 250.0, masked=False).count == MOST_BUCKETS  # type: ignore[union-attr]
    assert buckets_for(CHOICE, 250.0, masked=True) is None
    assert buckets_for(CHOICE, 512.0, masked=False) is None
    empty = torch.empty((1, 2, 128, 128), dtype=torch.int64, device="meta")
    few = torch.empty((1, 2, 128, 4), dtype=torch.int64, device="meta")
    plan = plan_words(lambda s, _: exact_attend(s[0], s[1], None, CHOICE, None, BITS), (empty, 52), (few, 26))  # type: ignore[arg-type]
    assert plan.rounds == 3 * 7 + 9
