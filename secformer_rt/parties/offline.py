"""The offline phase of one inference: what needs no input, from the dealer or from what was prepared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from secformer_rt.parties.dealer import Incoming
from secformer_rt.parties.manifest import json_of, parse
from secformer_rt.parties.report import PartyReport
from secformer_rt.parties.sealed import CHECKSUM_BYTES, HEADER_BYTES
from secformer_rt.parties.session import Session
from secformer_rt.parties.teller import teller
from secformer_rt.protocols.model import Model
from secformer_rt.ring.buffers import as_bytes
from secformer_rt.ring.prg import SEED_BYTES, SecretSeed
from secformer_rt.ring.slab import Slab
from secformer_rt.scheduler.plan import Plan
from secformer_rt.scheduler.randomness import Material
from secformer_rt.transport import wire_pb2


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


def dealt_seed(session: Session) -> SecretSeed:
    """What the dealer gives first: the seed that it has in common with this server, in this run."""
    return SecretSeed(session.dealer.receive_control(wire_pb2.Seed).seed)


def dealt(
    session: Session, seed: SecretSeed, plan: Plan, server: int, model: Model, slab: Slab | None = None
) -> Offline:
    """Have it all; as corrections arrive, expand shares in a slab, and do the products without input."""
    tell = teller(session.client, "offline", plan.dealer_bytes[server])
    incoming = Incoming(session.dealer, plan.dealer_bytes[server], tell)
    received = incoming.received
    material = Material(plan, server, seed, received)
    material.prepare(model, slab, incoming.arrive)
    dealer = parse(PartyReport, json_of(session.dealer.receive_control(wire_pb2.Report)), "dealer")
    session.dealer.finish()  # it has done its part, and is not needed online
    return Offline(seed, material, received.numel(), dealer)


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
