from __future__ import annotations

from math import ceil, log2, prod
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from secformer_rt.protocols.bits import arithmetic, bit_planes
from secformer_rt.protocols.comparison import less_than
from secformer_rt.protocols.core import Bits, Protocol, Secret
from secformer_rt.protocols.masking import open_masked
from secformer_rt.protocols.model import Model
from secformer_rt.protocols.truncation import evaluate, truncate
from secformer_rt.ring.bit_planes import pack_bits, unpack_bits
from tests.protocols.common import Build, plain, plan_words, random_words, run_words, total
from tests.protocols.test_comparison import around, opened_bits
from tests.protocols.test_uniformity import check_fresh, check_uniform, joint, openings, uniform
from tests.support import Outcome


def adder(thresholds: tuple[int, ...], bits: int | None = None, drop: int = 0) -> Build:
    def build(s: list[Secret], _: Model) -> Protocol[Bits]:
        opened = yield from open_masked(s[0])
        return (yield from less_than(opened, thresholds, bits=bits, drop=drop, method="adder"))

    return build


def compared(
    x: Tensor, thresholds: tuple[int, ...], ring: int = 64, bits: int | None = None, drop: int = 0
) -> Tensor:
    outcome = run_words(adder(thresholds, bits, drop), (x, 0, ring))
    return opened_bits(outcome, (len(thresholds), *x.shape))


def costs(bits: int) -> tuple[int, int, int]:
    """Rounds, bits opened and bits dealt for an element, as the docstring has them."""
    groups = bits - 1
    rounds, opened, dealt = 1, 2 * groups, groups
    while groups > 1:
        pairs = groups // 2
        rounds, opened, dealt = rounds + 1, opened + 3 * pairs - 1, dealt + 2 * pairs - 1
        groups -= pairs
    return rounds, opened, dealt


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8, 9, 17, 18, 24, 31, 32, 33, 34, 47, 63, 64])
@pytest.mark.parametrize("size", [5, 24])
def test_exact_for_every_width(bits: int, size: int) -> None:
    for t in (0, 1, -3):
        end = 1 << (bits - 1)
        random = (random_words(100, bits=min(bits, 63)) + t).tolist()
        x = plain(*(v for v in around(t, bits) + random if -end <= v - t < end))
        x = x[: 8 * (len(x) // 8)] if size == 24 else x[: 8 * (len(x) // 8) - 3]
        assert torch.equal(compared(x, (t,), bits=bits)[0], x < t)


def test_carries_run_through_all_bits() -> None:
    powers = torch.tensor([1 << i for i in range(62)])
    x = torch.cat([powers, -powers, powers - 1, 1 - powers, plain(2**63 - 1, -(2**63), 0, -1)])
    for _ in range(3):  # other shares
        assert torch.equal(compared(x, (0,))[0], x < 0)


@settings(deadline=None, max_examples=20)
@given(
    values=st.lists(st.integers(-(2**20), 2**20 - 1), min_size=1, max_size=21),
    thresholds=st.lists(st.integers(-(2**20), 2**20), min_size=1, max_size=5),
    ring=st.sampled_from([24, 32, 64]),
)
def test_several_thresholds(values: list[int], thresholds: list[int], ring: int) -> None:
    x = plain(*values, *(t + d for t in thresholds for d in (-1, 0, 1)))
    assert torch.equal(compared(x, tuple(thresholds), ring=ring), torch.stack([x < t for t in thresholds]))


@pytest.mark.parametrize("shape", [(1,), (7,), (8,), (9,), (3, 5), (2, 1, 3)])
def test_shapes_and_partial_bytes(shape: tuple[int, ...]) -> None:
    x = random_words(*shape, bits=20)
    thresholds = (-1000, 0, 3000)
    assert torch.equal(compared(x, thresholds, ring=24), torch.stack([x < t for t in thresholds]))


def test_no_bit_is_dropped() -> None:
    x = torch.arange(-300, 300)
    assert torch.equal(compared(x, (7,), ring=24, drop=8)[0], x < 7)


@pytest.mark.parametrize("ring", [32, 64])
@pytest.mark.parametrize("shift", [1, 12, 20])
def test_a_truncated_value_is_compared_as_it_is(ring: int, shift: int) -> None:
    def build(s: list[Secret], _: Model) -> Protocol[tuple[Secret, Bits]]:
        x = yield from truncate(s[0], 20 - shift)
        assert x.truncated is not None
        return x, (yield from less_than(x.truncated, (-5, 0, 5), method="adder"))

    small = torch.arange(-8 << shift, 8 << shift, max(1, (16 << shift) // 500))
    outcome = run_words(build, (torch.cat([small, random_words(300, bits=ring - 2)]), 20, ring))
    x = total([secret for secret, _ in outcome.results])
    a, b = (bits for _, bits in outcome.results)
    found = unpack_bits(a.planes ^ b.planes, a.shape).bool()
    assert torch.equal(found, torch.stack([x < t for t in (-5, 0, 5)]))


def test_the_result_becomes_words() -> None:
    def build(s: list[Secret], m: Model) -> Protocol[Secret]:
        flags = yield from adder((0,))(s, m)
        return evaluate((yield from arithmetic(s[0].server, flags)))

    x = random_words(13)
    assert torch.equal(total(run_words(build, (x, 0)).results)[0], (x < 0).to(torch.int64))


@pytest.mark.parametrize("bits", [2, 3, 4, 9, 20, 24, 33, 64])
@pytest.mark.parametrize("thresholds", [1, 3])
@pytest.mark.parametrize("shape", [(8,), (24, 2), (3, 5, 8)])
def test_costs(shape: tuple[int, ...], thresholds: int, bits: int) -> None:
    words = torch.empty(shape, dtype=torch.int64)
    plan = plan_words(adder(tuple(range(thresholds)), bits), (words, 0))
    rounds, opened, dealt = costs(bits)
    assert rounds == 1 + ceil(log2(bits - 1))
    n = prod(shape)
    assert plan.rounds == 1 + rounds
    assert plan.server_bytes == 8 * n + thresholds * n * opened // 8
    assert sum(plan.dealer_bytes) == thresholds * n * dealt // 8


def test_the_costs_that_the_docstring_names() -> None:
    assert (costs(64), costs(24)) == ((7, 306, 181), (6, 107, 62))


@pytest.mark.parametrize("bits", [1, 7, 8, 9, 24, 63, 64])
@pytest.mark.parametrize("shape", [(1,), (8,), (3, 7), (100,)])
def test_bit_planes(shape: tuple[int, ...], bits: int) -> None:
    words = random_words(*shape)
    planes = bit_planes(words, bits)
    want = [pack_bits(((words >> i) & 1).to(torch.uint8)) for i in range(bits)]
    assert torch.equal(planes, torch.stack(want))
    assert bit_planes(torch.empty(shape, dtype=torch.int64, device="meta"), bits).shape == planes.shape


def test_bit_planes_of_a_view() -> None:
    words = random_words(6, 10)
    assert torch.equal(bit_planes(words.T, 64), bit_planes(words.T.contiguous(), 64))


def run(value: int, bits: int, size: int = 2560) -> Outcome:
    return run_words(adder((0, 5), bits), (torch.full((size,), value, dtype=torch.int64), 0))


@pytest.mark.parametrize("value", [0, 1 << 40, -1])
def test_every_opening_is_uniform_and_fresh(value: int) -> None:
    outcome = run(value, 64)
    check_uniform(outcome)
    check_fresh(outcome, run(value, 64))


@pytest.mark.parametrize("value", [0, -1])
def test_planes_opened_together_are_independent(value: int) -> None:
    seen: list[Any] = openings(run(value, 9, 16000))[1:]
    assert [len(public) for *_, public in seen] == [2, 2, 3, 2, 3, 2]  # factors of each AND
    for _, xor, *parts in seen:
        assert xor
        for planes in parts:
            assert uniform(joint(list(planes)), 1 << len(planes))
