from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secformer_rt.ring.prg import Prg, SecretSeed
from secformer_rt.ring.sharing import reconstruct, reconstruct_xor, share, share_xor
from tests.ring.helpers import EXTREMES, wrapped

SEED = SecretSeed(bytes(32))


def prg() -> Prg:
    return Prg(SEED, "share")


@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.sampled_from(EXTREMES), max_size=20))
def test_additive_shares(values: list[int]) -> None:
    x = torch.tensor(values, dtype=torch.int64)
    a, b = share(x, prg())
    assert torch.equal(a, prg().words((len(values),)))
    assert [wrapped(p + q) for p, q in zip(a.tolist(), b.tolist(), strict=True)] == values
    assert torch.equal(reconstruct(a, b), x)


@given(st.lists(st.integers(0, 255), max_size=20))
def test_xor_shares(values: list[int]) -> None:
    x = torch.tensor(values, dtype=torch.uint8)
    a, b = share_xor(x, prg())
    assert torch.equal(a, prg().planes((len(values),)))
    assert [p ^ q for p, q in zip(a.tolist(), b.tolist(), strict=True)] == values
    assert torch.equal(reconstruct_xor(a, b), x)


@pytest.mark.parametrize("shape", [(), (0,), (2, 3), (2, 0, 3)])
def test_shapes(shape: tuple[int, ...]) -> None:
    for x in (torch.ones(shape, dtype=torch.int64), torch.ones(3, 2, dtype=torch.int64).T):
        assert torch.equal(reconstruct(*share(x, prg())), x)
        y = x.to(torch.uint8)
        assert torch.equal(reconstruct_xor(*share_xor(y, prg())), y)


def test_wrong_arguments() -> None:
    with pytest.raises(TypeError):
        share(torch.zeros(2), prg())
    with pytest.raises(TypeError):
        share_xor(torch.zeros(2, dtype=torch.int64), prg())
    with pytest.raises(TypeError):
        reconstruct(torch.zeros(2), torch.zeros(2))
    with pytest.raises(ValueError, match="shapes"):
        reconstruct(torch.zeros(2, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))


def test_meta_takes_no_randomness() -> None:
    source = prg()
    x = torch.empty(2, 3, dtype=torch.int64, device="meta")
    y = x.to(torch.uint8)
    for parts in (share(x, source), share_xor(y, source)):
        assert all(p.is_meta and p.shape == (2, 3) for p in parts)
    real = torch.zeros(2, 3, dtype=torch.int64)
    assert reconstruct(x, real).is_meta and reconstruct_xor(real.to(torch.uint8), y).is_meta
    assert reconstruct(x, real).dtype == torch.int64
    assert torch.equal(source.bytes(8), prg().bytes(8))
