"""The offline phase of one inference, with the dealer: what needs no input."""

from __future__ import annotations

from secformer_rt.parties.dealer import Incoming
from secformer_rt.parties.manifest import json_of, parse
from secformer_rt.parties.offline import Offline
from secformer_rt.parties.report import PartyReport
from secformer_rt.parties.session import Session
from secformer_rt.parties.teller import teller
from secformer_rt.protocols.model import Model
from secformer_rt.ring.prg import SecretSeed
from secformer_rt.ring.slab import Slab
from secformer_rt.scheduler.plan import Plan
from secformer_rt.scheduler.randomness import Material
from secformer_rt.transport import wire_pb2


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
