from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from secformer_rt.protocols.bits import arithmetic
from secformer_rt.protocols.comparison import less_than
from secformer_rt.protocols.core import Bits, Protocol, Secret, parallel
from secformer_rt.protocols.masking import open_elementwise, open_masked
from secformer_rt.protocols.model import Model
from secformer_rt.protocols.product import multiply, product
from secformer_rt.protocols.truncation import evaluate, truncate
from tests.protocols.common import plain, random_words, result, run_words, signed, total

WORDS = st.integers(-(2**63), 2**63 - 1)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=20))
def test_a_plain_product_is_exact_in_the_ring(pairs: list[tuple[int, int]]) -> None:
    x, y = (plain(*column) for column in zip(*pairs, strict=True))
    outcome = run_words(lambda s, _: multiply(*s), (x, 12), (y, 14))
    assert outcome.results[0].frac == 26
    assert torch.equal(total(outcome.results), x * y)


@pytest.mark.parametrize(("left", "right"), [((3, 1), (1, 5)), ((4,), (2, 3, 4)), ((2, 3), ()), ((1,), (7,))])
def test_shapes_broadcast(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    x, y = random_words(*left), random_words(*right)
    outcome = run_words(lambda s, _: multiply(*s), (x, 0), (y, 0))
    assert torch.equal(total(outcome.results), x * y)
    assert outcome.plan.server_bytes == 8 * (x.numel() + y.numel())
    assert sum(outcome.plan.dealer_bytes) == 8 * (x * y).numel()


@pytest.mark.parametrize("shape", [(5, 3), (9, 70)])
@pytest.mark.parametrize("factors", [1, 2, 3])
def test_shares_are_added_on_the_way(shape: tuple[int, int], factors: int) -> None:
    x, row = random_words(*shape), random_words(shape[1])

    def build(s: list[Secret], _: Model) -> Protocol[Secret]:
        form = (yield from open_masked(s[0])).form
        return (yield from product(*[form] * factors, plus=s[1].share))

    outcome = run_words(build, (x, 2), (row, 2 * factors))
    assert outcome.results[0].frac == 2 * factors
    assert torch.equal(total(outcome.results), x**factors + row)


def test_a_square_opens_once() -> None:
    x = random_words(50)
    outcome = run_words(lambda s, _: multiply(s[0], s[0]), (x, 3))
    assert (outcome.plan.rounds, outcome.plan.server_bytes) == (1, 400)
    assert torch.equal(total(outcome.results), x * x)


@pytest.mark.parametrize("ring", [24, 32, 40])
def test_small_rings(ring: int) -> None:
    x, y = random_words(60, bits=ring), random_words(60, bits=ring)
    assert torch.equal(result(lambda s, _: multiply(*s), (x, 0, ring), (y, 0, ring)), signed(x * y, ring))
    mixed = run_words(lambda s, _: multiply(*s), (x, 0, ring), (random_words(60), 0))
    assert mixed.results[0].ring == ring


def powers(secrets: list[Secret], count: int, shift: int) -> Protocol[list[Secret]]:
    x = yield from truncate(secrets[0], secrets[0].frac - shift)
    form = (yield from open_elementwise(x)).form
    return [x, (yield from product(*[form] * count))]


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("shift", [1, 8, 20, 33, 45, 62])
def test_powers_of_a_truncated_value_are_those_of_the_value(count: int, shift: int) -> None:
    outcome = run_words(lambda s, _: powers(s, count, shift), (random_words(300, bits=63) // 2, 62))
    base, power = (total([results[i] for results in outcome.results]) for i in (0, 1))
    assert outcome.plan.rounds == 1
    assert torch.equal(power, base**count)


@pytest.mark.parametrize("rings", [(64, 64), (64, 32), (32, 32)])
@pytest.mark.parametrize("shifts", [(8, 20), (25, 3), (14, 14)])
def test_a_product_of_truncated_values(rings: tuple[int, int], shifts: tuple[int, int]) -> None:
    def build(s: list[Secret], _: Model) -> Protocol[list[Secret]]:
        factors = yield from parallel(*(truncate(x, x.frac - d) for x, d in zip(s, shifts, strict=True)))
        return [*factors, (yield from multiply(*factors))]

    values = [(random_words(300, bits=ring - 2), 40, ring) for ring in rings]
    outcome = run_words(build, *values)
    x, y, z = (total([results[i] for results in outcome.results]) for i in range(3))
    assert outcome.plan.rounds == 1
    assert torch.equal(z, x * y)


def test_a_truncated_value_times_a_plain_one_and_itself() -> None:
    def build(s: list[Secret], _: Model) -> Protocol[list[Secret]]:
        a = yield from truncate(s[0], 10)
        opened = yield from open_masked(s[1])
        form = (yield from open_elementwise(a)).form
        return [a, (yield from product(form, opened.form, form))]

    y = random_words(200)
    outcome = run_words(build, (random_words(200, bits=60), 30), (y, 0))
    a, z = (total([results[i] for results in outcome.results]) for i in (0, 1))
    assert torch.equal(z, a * a * y)


@pytest.mark.parametrize("truncated", [False, True])
def test_a_bit_times_a_value(truncated: bool) -> None:
    def build(s: list[Secret], _: Model) -> Protocol[list[Secret]]:
        x = s[0]
        if truncated:
            x = yield from truncate(x, 8)
            opened = x.truncated
            assert opened is not None
        else:
            opened = yield from open_masked(x)
        bits = yield from less_than(opened, (0, 1 << 20))
        form = yield from arithmetic(x.server, bits)
        flags = evaluate(form)
        # A bit is its own square.
        return [x, flags, (yield from product(form, opened.form)), (yield from product(form, form))]

    outcome = run_words(build, (random_words(300, bits=61 if truncated else 63), 20))
    x, flags, selected, squares = (total([r[i] for r in outcome.results]) for i in range(4))
    assert torch.equal(flags, torch.stack([x < 0, x < 1 << 20]).to(torch.int64))
    assert torch.equal(selected, flags * x)
    assert torch.equal(squares, flags)


def test_forms_are_scaled_and_shifted_by_public_numbers() -> None:
    factor = random_words(40)

    def build(s: list[Secret], _: Model) -> Protocol[Secret]:
        opened = yield from open_masked(s[0])
        # A plan has shapes only, so a public tensor is one of them there.
        public = torch.empty(40, dtype=torch.int64, device="meta") if opened.public.is_meta else factor
        form = opened.form.scaled(public, 3).plus(77)
        assert form.frac == 7
        return (yield from product(form, form.scaled(-1)))

    x = random_words(40)
    assert torch.equal(result(build, (x, 4)), -((factor * x + 77) ** 2))


def dealt_words(shifts: tuple[int, ...]) -> float:
    """Dealer's bytes an element for the product of values truncated by these shifts."""

    def build(s: list[Secret], _: Model) -> Protocol[Secret]:
        forms = []
        for x, shift in zip(s, shifts, strict=True):
            reduced = yield from truncate(x, 40 - shift)
            forms.append((yield from open_elementwise(reduced)).form)
        return (yield from product(*forms))

    alone = [run_words(lambda s, _, d=d: truncate(s[0], 40 - d), (plain(1), 40)) for d in shifts]
    whole = run_words(build, *((plain(5), 40) for _ in shifts))
    return sum(whole.plan.dealer_bytes) - sum(sum(a.plan.dealer_bytes) for a in alone)


def test_monomials_that_vanish_are_not_dealt() -> None:
    # r r', r b', b r'; b b' has 2^(64-20) 2^(64-20), which is 0 modulo 2^64.
    assert dealt_words((20, 20)) == 8 + 3 + 3
    # With 2^(64-40) twice, 16 bits of b b' survive.
    assert dealt_words((40, 40)) == 8 + 5 + 5 + 2


def test_bits_in_a_small_ring_select_in_it() -> None:
    def build(s: list[Secret], _: Model) -> Protocol[Secret]:
        opened = yield from open_masked(s[0])
        bits = yield from less_than(opened, (0,))
        form = yield from arithmetic(s[0].server, Bits(bits.planes, s[0].shape), 24)
        return (yield from product(form, opened.form))

    x = random_words(100, bits=23)
    assert torch.equal(result(build, (x, 0, 24)), x.clamp(max=0))


@settings(deadline=None, max_examples=15)
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=10), st.integers(4, 14))
def test_fixed_point_products_approximate_real_ones(values: list[float], frac: int) -> None:
    real = torch.tensor(values, dtype=torch.float64)
    words: Tensor = (real * 2.0**30).round().to(torch.int64)
    outcome = run_words(lambda s, _: powers(s, 3, 30 - frac), (words, 30))
    cube = outcome.value(lambda results: results[1])
    step = math.ldexp(1, -frac)
    assert bool(((cube - real**3).abs() <= 3 * (real.abs() + step) ** 2 * step + 1e-6).all())
