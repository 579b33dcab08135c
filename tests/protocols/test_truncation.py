from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from secformer_rt.protocols.truncation import truncate, truncate_many
from tests.protocols.common import plain, random_words, run_words, total


def check(x: Tensor, shifts: tuple[int, ...], ring: int) -> None:
    frac = max(shifts)
    fracs = tuple(frac - shift for shift in shifts)
    outcome = run_words(lambda s, _: truncate_many(s[0], fracs), (x, frac, ring))
    assert outcome.plan.rounds == 1
    for position, shift in enumerate(shifts):
        secrets = [results[position] for results in outcome.results]
        assert secrets[0].ring == 64
        off = total(secrets) - (x >> shift)
        assert set(off.tolist()) <= {0, 1}, shift
        whole = (x & ((1 << shift) - 1)) == 0
        assert not off[whole].any()  # exact if nothing is cut off


def hostile(ring: int) -> Tensor:
    top = (1 << (ring - 2)) - 1
    few = plain(0, 1, -1, 2, -2, top, -top, top - 1, 1 - top, top // 2, -top // 2, -top - 1)
    return few.repeat(20)


@pytest.mark.parametrize("ring", [64, 32, 24])
def test_every_shift_of_hostile_and_random_values(ring: int) -> None:
    x = torch.cat([hostile(ring), random_words(200, bits=ring - 1)])
    for shift in range(1, ring - 1):
        check(x, (shift,), ring)


@settings(deadline=None, max_examples=40)
@given(data=st.data(), ring=st.sampled_from([32, 40, 64]))
def test_several_fractions_from_one_opening(data: st.DataObject, ring: int) -> None:
    shifts = data.draw(st.lists(st.integers(1, ring - 2), min_size=1, max_size=4, unique=True))
    limit = (1 << (ring - 2)) - 1
    values = data.draw(st.lists(st.integers(-limit, limit), min_size=1, max_size=30))
    check(plain(*values), tuple(shifts), ring)


def test_it_has_no_bias() -> None:
    x = random_words(20000, bits=30)
    outcome = run_words(lambda s, _: truncate(s[0], 12), (x, 24))
    error = (total(outcome.results) * 4096 - x) / 4096.0
    assert bool((error.abs() < 1).all())
    # Its mean has a standard deviation of at most 1/2 in one element: 8 of them.
    assert abs(float(error.mean())) < 8 * 0.5 / 20000**0.5


def test_fewer_bits_than_asked_for_cost_nothing() -> None:
    x = random_words(9, bits=30)
    outcome = run_words(lambda s, _: truncate(s[0], 20), (x, 12))
    assert (outcome.plan.rounds, outcome.plan.dealer_bytes) == (0, [0, 0])
    assert outcome.results[0].frac == 20
    assert torch.equal(total(outcome.results), x << 8)


def test_a_truncation_must_remove_bits() -> None:
    with pytest.raises(ValueError, match="must remove"):
        run_words(lambda s, _: truncate_many(s[0], (12, 20)), (plain(1), 20))


@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 1, 7)])
def test_shapes_are_kept(shape: tuple[int, ...]) -> None:
    x = random_words(*shape, bits=50)
    outcome = run_words(lambda s, _: truncate(s[0], 4), (x, 14))
    assert outcome.results[0].shape == shape
    assert set((total(outcome.results) - (x >> 10)).flatten().tolist()) <= {0, 1}


def test_the_opened_view_of_the_result_is_the_result() -> None:
    """``public - mask + wrap bit 2^ring`` over the integers: what a series and a comparison build on."""
    x = random_words(400, bits=61)
    outcome = run_words(lambda s, _: truncate(s[0], 0), (x, 10))
    views = [secret.truncated for secret in outcome.results]
    assert torch.equal(views[0].public, views[1].public) and torch.equal(views[0].wrap, views[1].wrap)
    assert views[0].ring == 54
    mask = views[0].share + views[1].share
    assert int(mask.min()) >= 0 and int(mask.max()) < 1 << 54
    bits = [secret.truncated.form.terms[2].share for secret in outcome.results]
    bit = (bits[0] + bits[1]) & 1
    assert torch.equal(views[0].public - mask + views[0].wrap * bit * (1 << 54), total(outcome.results))
