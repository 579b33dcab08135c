"""Products are counted by the bytes that are kept of them."""

from __future__ import annotations

from collections import Counter

import torch

from secformer_rt.protocols.core import Secret
from secformer_rt.protocols.linear import HALF, Weight, linear, secret_matmul
from secformer_rt.ring.kernels import pack
from secformer_rt.scheduler.plan import plan_protocol
from secformer_rt.scheduler.products import products


def secret(*shape: int) -> Secret:
    return Secret(0, torch.empty(shape, dtype=torch.int64, device="meta"), 12)


def weight(ring: int) -> Weight:
    dtype = torch.int32 if ring <= HALF else torch.int64
    packed = pack(torch.empty((5, 7), dtype=dtype, device="meta"))
    return Weight("w", (5, 7), 12, packed, packed)


def test_with_a_weight() -> None:
    for ring, width in ((18, 24), (30, 32), (32, 32), (33, 40), (64, 64)):
        found = products(plan_protocol(linear(secret(2, 3, 5), weight(ring), ring)))
        assert found.online == found.offline == found.dealer == Counter({width: 2 * 3 * 5 * 7})


def test_between_secrets() -> None:
    for ring, width in ((24, 24), (39, 40), (64, 64)):
        found = products(plan_protocol(secret_matmul(secret(2, 3, 5), secret(2, 5, 7), ring=ring)))
        assert found.online == Counter({width: 2 * 2 * 3 * 5 * 7})
        assert found.dealer == Counter({width: 2 * 3 * 5 * 7})
        assert found.offline.total() == 0
