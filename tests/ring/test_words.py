from __future__ import annotations

import pytest
import torch

from secformer_rt.ring.words import (
    add,
    add_chosen,
    add_raised,
    row_squares,
    truncated,
    upper_bit_clear,
)
from tests.ring.helpers import BACKENDS, using, words


def test_sums_broadcast_and_wrap() -> None:
    x, y, half = words(1, 3, 5), words(2, 5), torch.arange(5, dtype=torch.int32)
    assert torch.equal(add(x, y), x + y)
    assert torch.equal(add(x.T, y[:3]), x.T + y[:3])
    assert torch.equal(add(x, half), x + half)
    assert add(x, y).is_contiguous() and add(x, half).dtype == torch.int64
    assert add(x.to("meta"), y.to("meta")).shape == (3, 5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_sums_with_what_is_chosen_or_raised(backend: str) -> None:
    x, y, z = (words(seed, 4, 6).T for seed in range(3))
    clear = 1 - ((z >> 19) & 1)
    with using(backend):
        assert torch.equal(upper_bit_clear(z, 20), clear)
        assert torch.equal(add_chosen(x, y, z, 20), x + clear * y)
        assert torch.equal(add_raised(x, y, 13), x + (y << 13))
        assert add_chosen(*(t.to("meta") for t in (x, y, z)), 20).shape == x.shape
        assert add_raised(x.to("meta"), y.to("meta"), 13).shape == x.shape


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("server", [0, 1])
def test_a_share_of_what_a_truncation_opened(backend: str, server: int) -> None:
    public, mask, bit = words(1, 4, 6).T & 0xFFFFF, words(2, 4, 6).T, words(3, 4, 6).T
    plain = (public if server == 0 else 0) - mask
    with using(backend):
        assert torch.equal(truncated(public, mask, None, ring=20, server=server), plain)
        found = truncated(public, mask, bit, ring=20, server=server)
        assert truncated(*(t.to("meta") for t in (public, mask, bit)), ring=20, server=0).shape == (6, 4)
    assert torch.equal(found, plain + (((1 - (public >> 19)) * bit) << 20))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("server", [0, 1])
@pytest.mark.parametrize(("ring", "crosses"), [(20, True), (40, True), (33, False)])
def test_squares_of_rows(backend: str, server: int, ring: int, crosses: bool) -> None:
    p, r, bit, product = (words(seed, 2, 3, 7) for seed in range(4))
    wrap = 1 - ((p >> (ring - 1)) & 1)
    with using(backend):
        found = row_squares(p, r, (bit, product) if crosses else None, ring=ring, server=server)
    expected = -2 * p * r + (p * p if server == 0 else 0)
    if crosses:
        expected = expected + wrap * ((p * bit - product) * 2 ** (ring + 1))
        if 2 * ring < 64:
            expected = expected + wrap * bit * 2 ** (2 * ring)
    assert found.shape == (2, 3, 1)
    assert torch.equal(found[..., 0], expected.sum(-1))


def test_shapes_that_differ_are_refused() -> None:
    x, y = words(1, 3, 5), words(2, 5)
    with pytest.raises(ValueError, match="shapes differ"):
        add_chosen(x, x, y, 20)
    with pytest.raises(ValueError, match="shapes differ"):
        add_raised(x, y, 1)
    with pytest.raises(ValueError, match="shapes differ"):
        truncated(x, y, None, ring=20, server=0)
    with pytest.raises(ValueError, match="shapes differ"):
        row_squares(x, y, None, ring=20, server=0)
