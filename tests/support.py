"""Two servers and a dealer in one process, for tests of what is computed. Nothing here is timed."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from secformer_rt.parties.sealed import body_size, layout_of
from secformer_rt.protocols.core import Protocol, Secret
from secformer_rt.protocols.lowering import Lowering
from secformer_rt.protocols.model import Model
from secformer_rt.ring.fixed_point import decode, encode
from secformer_rt.ring.prg import Prg, SecretSeed
from secformer_rt.ring.sharing import share
from secformer_rt.ring.slab import Slab
from secformer_rt.scheduler.dealing import corrections
from secformer_rt.scheduler.engine import Engine, Label
from secformer_rt.scheduler.online import ServerBackend
from secformer_rt.scheduler.plan import Plan, plan_graph, plan_protocol
from secformer_rt.scheduler.provisioning import (
    add_parameter,
    encode_input,
    encode_parameter,
    is_masked,
    mask_input,
    masked_share,
)
from secformer_rt.scheduler.randomness import Material, parameter_mask, stream_key

EXPANDED = 300_000  # bytes of shares that a server expands ahead: some, and not all


@dataclass
class QueueLink:
    """One end of a pair of queues; remembers everything that was sent."""

    outbox: queue.Queue[tuple[int, bytes]]
    inbox: queue.Queue[tuple[int, bytes]]
    sent: list[bytes] = field(default_factory=list)

    def send(self, tag: int, *buffers: memoryview) -> None:
        message = b"".join(buffers)
        self.sent.append(message)
        self.outbox.put((tag, message))

    def receive(self, tag: int, nbytes: int) -> memoryview:
        got, message = self.inbox.get(timeout=60)
        assert (got, len(message)) == (tag, nbytes)
        return memoryview(bytearray(message))


def link_pair() -> tuple[QueueLink, QueueLink]:
    a: queue.Queue[tuple[int, bytes]] = queue.Queue()
    b: queue.Queue[tuple[int, bytes]] = queue.Queue()
    return QueueLink(a, b), QueueLink(b, a)


@dataclass
class Outcome:
    """What both servers ended with."""

    results: list[Any]
    plan: Plan
    backends: list[ServerBackend]
    links: tuple[QueueLink, QueueLink]
    dealt: list[Tensor]

    def value(self, pick: Callable[[Any], Secret] = lambda result: result) -> Tensor:
        return reconstruct([pick(result) for result in self.results])


def reconstruct(secrets: Sequence[Secret]) -> Tensor:
    a, b = secrets
    assert (a.frac, a.ring) == (b.frac, b.ring)
    total = a.share + b.share
    if a.ring < 64:
        shift = 64 - a.ring
        total = (total << shift) >> shift
    return decode(total, a.frac)


def fresh_prg() -> Prg:
    return Prg(SecretSeed.fresh(), "test")


def both(work: Callable[[int], Any]) -> list[Any]:
    """Run ``work(0)`` and ``work(1)`` at the same time; raise what either raised."""
    results: list[Any] = [None, None]
    errors: list[BaseException] = []

    def run(server: int) -> None:
        try:
            results[server] = work(server)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(server,)) for server in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def _deal(plan: Plan, parameter: Callable[[str], Tensor]) -> tuple[list[SecretSeed], list[Tensor]]:
    seeds = (SecretSeed.fresh(), SecretSeed.fresh())
    streams: list[list[Tensor]] = [[torch.empty(0, dtype=torch.uint8)] for _ in range(2)]
    for server, part in corrections(plan, seeds, parameter):
        streams[server].append(torch.from_numpy(part))
    dealt = [torch.cat(stream) for stream in streams]
    assert [len(stream) for stream in dealt] == plan.dealer_bytes
    return list(seeds), dealt


def run_protocol(
    build: Callable[[int, list[Secret]], Protocol[Any]], *values: tuple[Tensor, int] | tuple[Tensor, int, int]
) -> Outcome:
    """Share float tensors (value, fraction bits[, ring]), run a protocol, check it against its plan."""
    meta = [
        Secret(0, torch.empty(v[0].shape, dtype=torch.int64, device="meta"), v[1], *v[2:]) for v in values
    ]
    plan = plan_protocol(build(0, meta))
    prg = fresh_prg()
    shares = [share(encode(v[0], v[1]), prg) for v in values]
    seeds, dealt = _deal(plan, lambda name: torch.empty(0))
    links = link_pair()
    backends: list[Any] = [None, None]

    def work(server: int) -> Any:
        material = Material(plan, server, seeds[server], dealt[server])
        backends[server] = ServerBackend(plan, material, links[server])
        inputs = [Secret(server, s[server], v[1], *v[2:]) for s, v in zip(shares, values, strict=True)]
        return Engine(backends[server]).run(build(server, inputs), Label("", "", ""))

    results = both(work)
    outcome = Outcome(results, plan, backends, links, dealt)
    check_costs(outcome)
    return outcome


def check_costs(outcome: Outcome) -> None:
    """Planned rounds and bytes are what ran."""
    for backend, link in zip(outcome.backends, outcome.links, strict=True):
        assert backend.ledger.rounds == outcome.plan.ledger.rounds
        assert [len(m) for m in link.sent] == [
            sum(size for _, size in record) for record in outcome.plan.ledger.rounds
        ]


@dataclass
class LocalModel:
    """A provisioned model on both servers, and the dealer's view of it."""

    lowering: Lowering
    models: list[Model]
    seeds: list[SecretSeed]

    def mask(self, name: str) -> Tensor:
        shape = next(p.shape for p in self.lowering.graph.parameters if p.name == name)
        a, b = (parameter_mask(seed, name, shape) for seed in self.seeds)
        return a + b


def provision(lowering: Lowering, parameters: dict[str, Tensor]) -> LocalModel:
    prg = fresh_prg()
    seeds = [SecretSeed.fresh(), SecretSeed.fresh()]
    models = [Model(), Model()]
    bits = lowering.preset.fixed_point
    for parameter in lowering.graph.parameters:
        words = encode_parameter(lowering, parameter, parameters)
        shares = share(words, prg)
        public = None
        if is_masked(parameter):
            public = sum(masked_share(parameter, shares[i], seeds[i]) for i in (0, 1))
        for i in (0, 1):
            add_parameter(
                models[i],
                i,
                lowering.graph,
                parameter,
                shares[i],
                public,
                seeds[i],
                bits,
                lowering.rings.weight(parameter.name),
            )
    return LocalModel(lowering, models, seeds)


def run_model(local: LocalModel, inputs: dict[str, Tensor], keep: bool = False) -> Outcome:
    """One inference; every wire is kept if ``keep``. Results are dicts of secrets by wire."""
    lowering = local.lowering
    plan = plan_graph(lowering)
    prg = fresh_prg()
    seeds, dealt = _deal(plan, local.mask)
    masks, sent = plan.input_masks(), {}
    for wire in lowering.graph.inputs:
        words = encode_input(wire, inputs[wire.name], lowering.preset.fixed_point)
        if wire.name in masks:
            index, mask = masks[wire.name]
            sent[wire.name] = [mask_input(words, mask, [stream_key(seed, index, 0) for seed in seeds])] * 2
        else:
            sent[wire.name] = share(words, prg)
    links = link_pair()
    backends: list[Any] = [None, None]

    def work(server: int) -> dict[str, Secret]:
        material = Material(plan, server, seeds[server], dealt[server])
        material.prepare(local.models[server], Slab(EXPANDED))
        assert plan.memory is not None
        kept = plan.memory[server].prepared + plan.memory[server].received
        assert body_size(layout_of(material.kept())) == kept  # before it is taken
        backends[server] = ServerBackend(plan, material, links[server])
        secrets = {}
        for wire in lowering.graph.inputs:
            words = sent[wire.name][server]
            if wire.name in masks:
                words = backends[server].masked_input(words, masks[wire.name][1])
            secrets[wire.name] = lowering.input(wire, server, words)
        engine = Engine(backends[server])
        outputs = engine.run_graph(lowering, local.models[server], secrets, keep)
        assert material.prepared_bytes == plan.memory[server].prepared
        assert material.expanded_bytes == plan.expanded_bytes(EXPANDED) <= EXPANDED
        assert keep or engine.peak_wire_bytes == plan.memory[server].wires
        return outputs

    outcome = Outcome(both(work), plan, backends, links, dealt)
    check_costs(outcome)
    return outcome
