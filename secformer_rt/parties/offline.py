"""What the offline phase of one inference leaves on one server, and how it is kept on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from secformer_rt.parties.report import PartyReport
from secformer_rt.parties.sealed import CHECKSUM_BYTES, HEADER_BYTES
from secformer_rt.ring.buffers import as_bytes
from secformer_rt.ring.prg import SEED_BYTES, SecretSeed
from secformer_rt.scheduler.plan import Plan
from secformer_rt.scheduler.randomness import Material


@dataclass(frozen=True, slots=True, eq=False)
class Offline:
    """One server's share of the randomness of one inference, ready to be used.

    Attributes:
        seed: In common with the dealer.
        material: Everything.
        received: Bytes of corrections in it.
        dealer: The dealer's report; None if it was prepared ahead.
    """

    seed: SecretSeed
    material: Material
    received: int
    dealer: PartyReport | None

    def tensors(self) -> list[Tensor]:
        """All of it, to be kept: see :func:`restored`."""
        return [seed_tensor(self.seed), *self.material.kept()]


def restored(plan: Plan, server: int, tensors: Sequence[Tensor]) -> Offline:
    """What was kept of :meth:`Offline.tensors`."""
    seed, *rest = tensors
    secret = SecretSeed(bytes(as_bytes(seed)))
    return Offline(secret, Material.restored(plan, server, secret, rest), rest[-1].numel(), None)


def stored_bytes(plan: Plan, server: int) -> int:
    """Bytes of one prepared inference on a server's disk."""
    assert plan.memory is not None
    memory = plan.memory[server]
    return HEADER_BYTES + SEED_BYTES + memory.prepared + memory.received + CHECKSUM_BYTES


def seed_tensor(seed: SecretSeed) -> Tensor:
    """A seed as files hold it."""
    return torch.frombuffer(bytearray(seed.reveal()), dtype=torch.uint8)
