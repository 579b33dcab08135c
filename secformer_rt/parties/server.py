"""A compute server: holds shares of models, and runs inferences with its peer."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf

import torch
from torch import Tensor

from secformer_rt.errors import MismatchError, PeerLostError
from secformer_rt.parties.admission import admit
from secformer_rt.parties.checkup import Checkup
from secformer_rt.parties.dealt import dealt, dealt_seed
from secformer_rt.parties.heartbeat import heartbeat
from secformer_rt.parties.idle import Aim, Idle, Turn
from secformer_rt.parties.journal import inferred
from secformer_rt.parties.kept import Kept
from secformer_rt.parties.logs import RUN_DIGITS, note, say, short
from secformer_rt.parties.manifest import (
    Manifest,
    Purpose,
    Request,
    check_run_id,
    compare,
    json_of,
    make_hello,
    parse,
)
from secformer_rt.parties.offline import seed_tensor, stored_bytes
from secformer_rt.parties.plans import PlanCache
from secformer_rt.parties.preparation import prepare
from secformer_rt.parties.profile import Laps, Unprofiled, profiling
from secformer_rt.parties.rendezvous import Visit
from secformer_rt.parties.report import OperationReport, PartyReport
from secformer_rt.parties.room import Room
from secformer_rt.parties.session import Neighbours, Session, open_session
from secformer_rt.parties.shares import SharesIn, receive_words, send_words, tell_masks
from secformer_rt.parties.teller import teller
from secformer_rt.protocols.core import Secret
from secformer_rt.protocols.lowering import Lowering
from secformer_rt.protocols.model import Model
from secformer_rt.ring.prg import SecretSeed
from secformer_rt.ring.slab import Slab
from secformer_rt.scheduler.engine import Engine
from secformer_rt.scheduler.ledger import Ledger
from secformer_rt.scheduler.online import ServerBackend
from secformer_rt.scheduler.plan import Plan
from secformer_rt.scheduler.provisioning import add_parameter, is_masked, masked_share
from secformer_rt.scheduler.transcript import Transcript
from secformer_rt.transport import wire_pb2
from secformer_rt.transport.aborts import RemoteAbort
from secformer_rt.transport.link import Link
from secformer_rt.transport.server import Caller, Handler

logger = logging.getLogger(__name__)

CLIENTS = ("model-owner", "data-owner")
NAME_DIGITS = 16  # of a run's randomness, in the log


@dataclass(slots=True, eq=False)
class _Provisioned:
    """A model as this server holds it."""

    manifest: Manifest
    model: Model
    plans: PlanCache = field(default_factory=PlanCache)


class ComputeServer:
    """Server 0 or server 1: both run this."""

    def __init__(self, around: Neighbours) -> None:
        self._around = around
        self._lock = threading.Lock()
        self._models: dict[str, _Provisioned] = {}
        self._kept = Kept(around.role, around.settings.store)
        self._idle = Idle(around.index, around.role, self._kept.stock, Room(around.settings.expand_gb * 1e9))
        with torch.inference_mode():
            for model_id, manifest, model in self._kept.load_models(around.index):
                self._models[model_id] = _Provisioned(manifest, model)
        self._idle.begin(self._oldest)

    def _oldest(self) -> Aim | None:
        """What the oldest prepared inference is for: after a start, nothing tells what will be asked for."""
        about = None if self._kept.stock is None else self._kept.stock.oldest()
        provisioned = None if about is None else self._models.get(about.model_id)
        if about is None or provisioned is None:
            return None
        shape = about.model_dump(include={"model_id", "batch", "tokens", "masked"})
        _, plan = provisioned.plans.get(provisioned.manifest, Request(**shape))
        return about.model_id, plan

    def handlers(self) -> dict[str, Handler]:
        """What this server answers. Only server 0 is called by its peer."""
        checkup = Checkup(self._around.role, self._around.settings.timeouts.handshake_s)
        handlers = {"Provision": self._provision, "Infer": self._infer, **checkup.handlers()}
        if self._around.peer is None:
            handlers["Peer"] = self._visit
        return handlers

    def close(self) -> None:
        """Stop what is done while idle, and let go of what is kept on disk."""
        self._idle.close()
        self._kept.close()

    def plans(self) -> list[PlanCache]:
        """The plans of each model held."""
        with self._lock:
            return [provisioned.plans for provisioned in self._models.values()]

    def _visit(self, link: Link, caller: Caller) -> None:
        """The peer's stream for a run waits here until the client's request for that run takes it."""
        hello = link.receive_hello(self._around.settings.timeouts.handshake_s)
        link.peer = admit(caller, hello, self._around.role, self._around.peer_role)
        note(run=short(hello.run_id), operation="peer")
        self._around.visits.offer(Visit(link, hello), self._around.settings.timeouts.progress_s)

    def _provision(self, client: Link, caller: Caller) -> None:
        hello, description = self._greet(client, caller, "model-owner")
        manifest = parse(Manifest, description, client.peer)
        mine = self._agree(client, hello, "provision", manifest, "model-owner")
        with (
            self._idle.halted(client),
            open_session(self._around, client, mine, description) as session,
            torch.inference_mode(),
        ):
            seed = SecretSeed(session.dealer.receive_control(wire_pb2.Seed).seed)
            with self._kept.keeping_model(hello.run_id.hex(), manifest) as keep:
                model = self._receive_model(session, manifest, seed, keep)
                session.dealer.finish()  # a model whose dealer has gone is of no use
            with self._lock:
                if hello.run_id.hex() in self._models:
                    raise MismatchError("This model has been provisioned before: take a new run id.")
                self._models[hello.run_id.hex()] = _Provisioned(manifest, model)
            self._report(session, PartyReport.of(self._around.role, session.traffic(self._around.peer_role)))

    def _infer(self, client: Link, caller: Caller) -> None:
        hello, description = self._greet(client, caller, *CLIENTS)
        if hello.purpose == "describe":
            self._describe(client, to_data_owner=hello.role == "data-owner")
            return
        if hello.purpose != "prepare":
            admit(caller, hello, self._around.role, "data-owner")
        request = parse(Request, description, client.peer)
        note(model=request.model_id[:RUN_DIGITS], batch=request.batch, tokens=request.tokens)
        provisioned = self._models.get(request.model_id)
        if provisioned is None:
            raise MismatchError(f"{self._around.role} holds no model {request.model_id}: provision it again.")
        with heartbeat([client]):
            lowering, plan = provisioned.plans.get(provisioned.manifest, request)
        more = hello.purpose == "prepare" and request.wanted > 1
        with self._idle.halted(client, (request.model_id, plan), more=more) as turn:
            if hello.purpose != "prepare":
                self._answer(client, hello, request, provisioned, lowering, plan, turn)
                return
            stock = self._kept.room_for(request.wanted * stored_bytes(plan, self._around.index))
            mine = self._agree(client, hello, "prepare", provisioned.manifest, client.peer, plan.digest())
            turn.make_room()
            prepare(self._around, stock, client, mine, request, provisioned.manifest, provisioned.model, plan)

    def _answer(
        self,
        client: Link,
        hello: wire_pb2.Hello,
        request: Request,
        provisioned: _Provisioned,
        lowering: Lowering,
        plan: Plan,
        turn: Turn,
    ) -> None:
        mine = self._agree(client, hello, "infer", provisioned.manifest, "data-owner", plan.digest())
        ahead = self._kept.ahead(request.model_id, plan, turn)
        description = request.model_dump_json().encode()
        began = time.perf_counter()
        with (
            open_session(self._around, client, mine, description, ahead) as session,
            torch.inference_mode(),
            profiling(request.profiled) as laps,
        ):
            slab = turn.grant(plan.expanded_bytes(inf))
            self._run(session, lowering, plan, provisioned.model, slab, began, laps)

    def _greet(self, client: Link, caller: Caller, *roles: str) -> tuple[wire_pb2.Hello, bytes]:
        timeouts = self._around.settings.timeouts
        client.limit(timeouts.run_s)
        hello = client.receive_hello(timeouts.handshake_s)
        client.peer = admit(caller, hello, self._around.role, *roles)
        check_run_id(hello)
        note(run=short(hello.run_id), operation=hello.purpose)
        return hello, json_of(client.receive_control(wire_pb2.Manifest, timeouts.handshake_s))

    def _agree(
        self,
        client: Link,
        hello: wire_pb2.Hello,
        purpose: Purpose,
        manifest: Manifest,
        role: str,
        plan: bytes = b"",
    ) -> wire_pb2.Hello:
        say(logger, "started", caller=client.peer, preset=manifest.preset.name)
        mine = make_hello(self._around.role, hello.run_id, purpose, manifest, plan)
        client.send_hello(mine)
        compare(mine, hello, role)
        self._kept.runs.burn(hello.run_id)
        return mine

    def _describe(self, client: Link, *, to_data_owner: bool) -> None:
        """Tell a client which models there are: everything about them but the weights.

        A model owner is not told whether anybody asks.
        """
        with self._lock:
            models = {key: p.manifest.model_dump(mode="json") for key, p in self._models.items()}
        told = {"models": models, "at_rest": to_data_owner and self._idle.at_rest()}
        client.send_control(wire_pb2.Report(json=json.dumps(told).encode()))

    def _receive_model(
        self, session: Session, manifest: Manifest, seed: SecretSeed, keep: Callable[[Tensor], None]
    ) -> Model:
        """Take the client's shares, and open the masked weights with the peer."""
        keep(seed_tensor(seed))
        server, bits = self._around.index, manifest.preset.fixed_point
        lowering, model, transcript = manifest.provisioning(), Model(), Transcript()
        graph, rings = lowering.graph, lowering.rings
        shares = SharesIn(session.client, server)
        tell = teller(session.client, "provision", len(graph.parameters))
        for number, parameter in enumerate(graph.parameters):
            share = shares.receive(number, parameter.name, parameter.shape)
            keep(share)
            public = None
            if is_masked(parameter):
                mine = masked_share(parameter, share, seed)
                tag = transcript.tag(number)
                send_words(session.peer, tag, mine)
                other = receive_words(session.peer, tag, parameter.shape)
                for sender, words in ((server, mine), (1 - server, other)):
                    transcript.add(sender, words.contiguous().numpy())
                public = mine + other
                keep(public)
            add_parameter(
                model, server, graph, parameter, share, public, seed, bits, rings.weight(parameter.name)
            )
            tell(number + 1)
        session.peer.send(transcript.tag(len(graph.parameters)))
        session.peer.receive(transcript.tag(len(graph.parameters)), 0)
        return model

    def _run(
        self,
        session: Session,
        lowering: Lowering,
        plan: Plan,
        model: Model,
        slab: Slab,
        began: float,
        laps: Laps | Unprofiled,
    ) -> None:
        """One inference: offline with the dealer, unless it is prepared, and online with the peer."""
        server, graph = self._around.index, lowering.graph
        if session.taken is None:
            began = time.perf_counter()
            seed = dealt_seed(session)
            tell_masks(session.client, graph, plan, seed)
            offline = dealt(session, seed, plan, server, model, slab)
        else:
            offline = session.taken.offline
            tell_masks(session.client, graph, plan, offline.seed)
            offline.material.expand(slab)
        backend = ServerBackend(
            plan, offline.material, session.peer, teller(session.client, "online", plan.rounds)
        )
        inputs = _inputs(SharesIn(session.client, server), server, lowering, plan, backend)
        # Neither server starts the clock of the online phase before the other is ready for it.
        session.peer.send_control(wire_pb2.Accepted())
        session.peer.receive_control(wire_pb2.Accepted)
        ready = time.perf_counter()
        laps.end("offline", ready - began)
        # The name tells whether randomness was ever used twice, and nothing else.
        name = offline.seed.derive("name").reveal().hex()[:NAME_DIGITS]
        dealer_bytes = 0 if offline.dealer is None else offline.received
        say(logger, "offline done", seconds=ready - began, dealer_bytes=dealer_bytes, randomness=name)
        engine = Engine(backend)
        with _located(backend.ledger, plan.rounds):
            outputs = engine.run_graph(lowering, model, inputs)
            backend.conclude()
        done = time.perf_counter()
        laps.end("online", done - ready)
        report = PartyReport.of(self._around.role, session.traffic(self._around.peer_role))
        report.rounds, report.planned_rounds = len(backend.ledger.rounds), plan.rounds
        report.offline_s, report.online_s = ready - began, done - ready
        assert plan.memory is not None
        report.planned_tensor_bytes = plan.memory[server].total - plan.memory[server].weights
        report.planned_tensor_bytes += plan.expanded_bytes(slab.nbytes)
        held = offline.received + offline.material.prepared_bytes + offline.material.expanded_bytes
        report.tensor_bytes = held + engine.peak_wire_bytes
        report.operations = _operations(backend.ledger)
        report.profile, report.quickest = laps.found, laps.quickest
        report.prepared = offline.dealer is None
        report.others = [] if offline.dealer is None else [offline.dealer]
        inferred(report)
        self._report(session, report)
        for number, wire in enumerate(graph.outputs):
            send_words(session.client, number, outputs[wire].share)

    def _report(self, session: Session, report: PartyReport) -> None:
        session.client.send_control(wire_pb2.Report(json=report.model_dump_json().encode()))


def _inputs(
    shares: SharesIn, server: int, lowering: Lowering, plan: Plan, backend: ServerBackend
) -> dict[str, Secret]:
    """What the client sends."""
    found, masks = {}, plan.input_masks()
    for number, wire in enumerate(lowering.graph.inputs):
        if wire.name in masks:
            _, mask = masks[wire.name]
            words = backend.masked_input(shares.receive_masked(number, mask), mask)
        else:
            words = shares.receive(number, wire.name, wire.shape)
        found[wire.name] = lowering.input(wire, server, words)
    return found


@contextmanager
def _located(ledger: Ledger, planned: int) -> Iterator[None]:
    """Say in which round a peer was lost, unless the peer says where it lost another."""
    try:
        yield
    except PeerLostError as error:
        if not ledger.rounds or isinstance(error.__cause__, RemoteAbort):
            raise
        label, _ = ledger.rounds[-1][0]
        note(layer=label.layer, op=label.op)
        where = f"in round {len(ledger.rounds)} of {planned}, {label.op} of {label.layer}"
        raise PeerLostError(f"{str(error).rstrip('.')}, {where}.") from error


def _operations(ledger: Ledger) -> list[OperationReport]:
    return [
        OperationReport(layer=layer, op=op, rounds=cost.rounds, bytes=2 * cost.bytes, seconds=cost.seconds)
        for (layer, op), cost in ledger.summary().items()
    ]
