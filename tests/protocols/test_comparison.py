from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from secformer_rt.protocols.bits import arithmetic, bit_products
from secformer_rt.protocols.comparison import borrow, less_than
from secformer_rt.protocols.core import Bits, Opened, Protocol, Secret
from secformer_rt.protocols.masking import open_masked
from secformer_rt.protocols.model import Model
from secformer_rt.protocols.truncation import evaluate, truncate
from secformer_rt.ring.bit_planes import pack_bits, unpack_bits
from tests.protocols.common import plain, random_words, run_words, signed, total
from tests.support import Outcome, fresh_prg


def opened_bits(outcome: Outcome, shape: tuple[int, ...]) -> Tensor:
    a, b = outcome.results
    assert a.shape == b.shape == shape
    return unpack_bits(a.planes ^ b.planes, shape).bool()


def compared(
    x: Tensor, thresholds: tuple[int, ...], ring: int = 64, bits: int | None = None, drop: int = 0
) -> tuple[Tensor, Outcome]:
    def build(s: list[Secret], _: Model) -> Protocol[Bits]:
        opened = yield from open_masked(s[0])
        return (yield from less_than(opened, thresholds, bits=bits, drop=drop))

    outcome = run_words(build, (x, 0, ring))
    return opened_bits(outcome, (len(thresholds), *x.shape)), outcome


def around(t: int, bits: int) -> list[int]:
    """Values next to a threshold and at both ends of what it can be compared with."""
    end = 1 << (bits - 1)
    return [v for v in (t - 1, t, t + 1, t - end, t - end + 1, t + end - 2, t + end - 1) if abs(v) < 2**63]


@pytest.mark.parametrize("chunks", range(1, 17))
@pytest.mark.parametrize("size", [5, 24])
def test_exact_for_every_number_of_chunks(chunks: int, size: int) -> None:
    bits = min(64, 4 * chunks + 1)
    for t in (0, 1, -3):
        random = (random_words(200, bits=min(bits, 63)) + t).tolist()
        values = [v for v in around(t, bits) + random if -(1 << (bits - 1)) <= v - t < 1 << (bits - 1)]
        x = plain(*values)[: 8 * (len(values) // 8)]
        x = x if size == 24 else x[:-3]  # a multiple of 8, and none
        found, outcome = compared(x, (t,), bits=bits)
        assert torch.equal(found[0], x < t)
        assert outcome.plan.rounds == 1 + (0 if chunks == 1 else 1 if chunks <= 6 else 2)


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 7, 8, 11, 24, 26, 31, 33, 63])
def test_chunks_that_are_not_full(bits: int) -> None:
    x = torch.cat([random_words(100, bits=bits), plain(0, -1, (1 << (bits - 1)) - 1, -(1 << (bits - 1)))])
    assert torch.equal(compared(x, (0,), bits=bits)[0][0], x < 0)


@settings(deadline=None, max_examples=25)
@given(
    values=st.lists(st.integers(-(2**20), 2**20 - 1), min_size=1, max_size=21),
    thresholds=st.lists(st.integers(-(2**20), 2**20), min_size=1, max_size=5),
    ring=st.sampled_from([24, 32, 64]),
)
def test_several_thresholds(values: list[int], thresholds: list[int], ring: int) -> None:
    x = plain(*values, *(t + d for t in thresholds for d in (-1, 0, 1)))
    found, outcome = compared(x, tuple(thresholds), ring=ring)
    assert torch.equal(found, torch.stack([x < t for t in thresholds]))
    tables = [d for d in outcome.plan.deals if type(d.correlation).__name__ == "ChunkTables"]
    assert len(tables) == 1  # one set for all thresholds


@pytest.mark.parametrize("shape", [(1,), (7,), (8,), (9,), (3, 5), (2, 2, 2), (2, 1, 3)])
def test_shapes_and_partial_bytes(shape: tuple[int, ...]) -> None:
    x = random_words(*shape, bits=20)
    thresholds = (-1000, 0, 3000)
    assert torch.equal(compared(x, thresholds, ring=24)[0], torch.stack([x < t for t in thresholds]))


@pytest.mark.parametrize("drop", [1, 4, 8, 11])
def test_dropped_bits_blur_the_threshold_and_nothing_else(drop: int) -> None:
    x = torch.cat([torch.arange(-(3 << drop), 3 << drop), random_words(500, bits=23)])
    for t in (0, 777):
        found, _ = compared(x + t, (t,), ring=24, drop=drop)
        sure = x.abs() > 1 << drop
        assert torch.equal(found[0][sure], (x < 0)[sure])
    assert bool((x.abs() <= 1 << drop).any())


@pytest.mark.parametrize("ring", [32, 64])
@pytest.mark.parametrize("shift", [1, 12, 20])
def test_a_truncated_value_is_compared_as_it_is(ring: int, shift: int) -> None:
    def build(s: list[Secret], _: Model) -> Protocol[tuple[Secret, Bits]]:
        x = yield from truncate(s[0], 20 - shift)
        assert x.truncated is not None
        return x, (yield from less_than(x.truncated, (-5, 0, 5)))

    small = torch.arange(-8 << shift, 8 << shift, max(1, (16 << shift) // 500))
    words = torch.cat([small, random_words(300, bits=ring - 2)])
    outcome = run_words(build, (words, 20, ring))
    x = total([secret for secret, _ in outcome.results])
    a, b = (bits for _, bits in outcome.results)
    found = unpack_bits(a.planes ^ b.planes, a.shape).bool()
    assert torch.equal(found, torch.stack([x < t for t in (-5, 0, 5)]))


@pytest.mark.parametrize(("bits", "drop"), [(4, 0), (16, 8), (13, 3), (24, 0), (40, 12), (63, 0)])
@pytest.mark.parametrize("size", [16, 21])
def test_borrow(bits: int, drop: int, size: int) -> None:
    def build(s: list[Secret], _: Model) -> Protocol[tuple[Opened, Bits]]:
        opened = yield from open_masked(s[0])
        return opened, (yield from borrow(opened, bits=bits, drop=drop))

    # A small value, so that public and mask mostly agree in their upper chunks.
    outcome = run_words(build, (torch.arange(size) - size // 2, 0))
    (a, left), (b, right) = outcome.results
    low = (1 << bits) - 1
    public, mask = ((v & low) >> drop for v in (a.public, a.share + b.share))
    found = unpack_bits(left.planes ^ right.planes, left.shape).bool()
    assert torch.equal(found, public < mask)


@pytest.mark.parametrize("ring", [24, 64])
@pytest.mark.parametrize("size", [1, 8, 13, 100])
def test_arithmetic_turns_bits_into_words(ring: int, size: int) -> None:
    def build(s: list[Secret], _: Model) -> Protocol[Secret]:
        opened = yield from open_masked(s[0])
        flags = yield from less_than(opened, (0,))
        return evaluate((yield from arithmetic(s[0].server, flags, ring)))

    x = random_words(size)
    outcome = run_words(build, (x, 0))
    a, b = outcome.results
    assert a.ring == ring
    assert torch.equal(signed(a.share + b.share, ring)[0], (x < 0).to(torch.int64))


@settings(deadline=None, max_examples=30)
@given(data=st.data(), factors=st.integers(2, 6), size=st.integers(1, 9))
def test_bit_products(data: st.DataObject, factors: int, size: int) -> None:
    subsets = [c for k in range(1, factors + 1) for c in combinations(range(factors), k)]
    terms = tuple(data.draw(st.lists(st.sampled_from(subsets), min_size=1, max_size=5)))
    terms = (*terms, (0, 1))
    bits = fresh_prg().planes((factors, size))
    share_0 = fresh_prg().planes((factors, size))
    shares = [share_0, bits ^ share_0]

    def build(s: list[Secret], _: Model) -> Protocol[list[Tensor]]:
        meta = s[0].share.is_meta
        mine = torch.empty(factors, size, dtype=torch.uint8, device="meta") if meta else shares[s[0].server]
        return (yield from bit_products(s[0].server, mine, terms))

    outcome = run_words(build, (plain(0), 0))
    assert (outcome.plan.rounds, outcome.plan.server_bytes) == (1, factors * size)
    asked = {s for t in terms for k in range(2, len(t) + 1) for s in combinations(t, k)}
    assert sum(outcome.plan.dealer_bytes) == len(asked) * size
    for term, a, b in zip(terms, *outcome.results, strict=True):
        want = bits[term[0]]
        for index in term[1:]:
            want = want & bits[index]
        assert torch.equal(a ^ b, want)


def test_planes_end_in_zeros_or_not_but_count_right() -> None:
    """The bits that fill up a plane's last byte stay out of the result."""
    x = plain(-1, 1, -1)
    found, outcome = compared(x, (0,), bits=5)
    assert found.tolist() == [[True, False, True]]
    a, b = outcome.results
    assert int((a.planes ^ b.planes)[0]) >> 5 == int(pack_bits(found[0].to(torch.uint8))[0]) >> 5
