"""Inputs that their owner masks, under a mask of which each server has told it its share."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from secformer_rt.graph.bert import MASK, ONE_HOT
from secformer_rt.protocols.core import Masked, Protocol, Secret
from secformer_rt.protocols.masking import Mask, open_masked
from secformer_rt.ring.packing import unpack_words
from secformer_rt.scheduler.plan import plan_graph, plan_protocol
from secformer_rt.scheduler.provisioning import mask_input
from secformer_rt.scheduler.randomness import expand, stream_key
from tests.protocols.common import fresh_seeds
from tests.scheduler.conftest import lowered


@pytest.mark.parametrize("bits", [18, 40, 64])
def test_what_is_sent_is_the_input_under_both_shares_of_the_mask(bits: int) -> None:
    words, mask = torch.arange(-30, 30).reshape(3, 20), Mask((3, 20), bits, "x")
    seeds = fresh_seeds()
    sent = mask_input(words, mask, [stream_key(seed, 5, 0) for seed in seeds])
    shares = [expand(seed, 5, 0, mask.fields[0]) for seed in seeds]
    opened = unpack_words(sent, mask.shape, bits) - shares[0] - shares[1]
    assert bool((((opened - words) << (64 - bits)) == 0).all())


def test_a_key_opens_one_mask_and_nothing_else() -> None:
    (seed, _), mask = fresh_seeds(), Mask((64,), 64, "x")
    streams = [expand(seed, deal, 0, mask.fields[0]) for deal in (5, 6)]
    of_key = mask_input(torch.zeros(64, dtype=torch.int64), mask, [stream_key(seed, 5, 0)] * 2)
    twice = unpack_words(of_key, mask.shape, 64)
    assert torch.equal(twice, 2 * streams[0]) and not torch.equal(twice, 2 * streams[1])
    assert stream_key(seed, 5, 0) not in (seed, stream_key(seed, 6, 0), stream_key(seed, 5, 1))


@pytest.mark.parametrize("name", ["exact", "swift"])
def test_only_what_a_table_is_multiplied_with_is_masked(name: str) -> None:
    lowering = lowered(name)
    plan = plan_graph(lowering)
    assert {wire.name for wire in lowering.graph.inputs} > {ONE_HOT, MASK}
    ((wire, (index, mask)),) = plan.input_masks().items()
    assert wire == ONE_HOT and plan.deals[index].correlation == mask
    # Nobody else's correlation is made of this mask but the table's product.
    readers = [deal for deal in plan.deals if any(ref.deal == index for ref in deal.correlation.refs)]
    assert [type(deal.correlation).__name__ for deal in readers] == ["WeightProduct"]


def test_an_input_has_one_mask() -> None:
    nothing = torch.empty(4, dtype=torch.int64, device="meta")

    def twice() -> Protocol[None]:
        x = Secret(0, nothing, 0, masked=Masked("x", nothing))
        yield from open_masked(x, 20)
        yield from open_masked(x, 18)
        assert x.opened is not None and x.opened.public is nothing
        yield from open_masked(replace(x), 21)

    with pytest.raises(ValueError, match="one mask"):
        plan_protocol(twice())
