"""The dealer: walks the plan of a run and streams what the servers cannot expand themselves."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from secformer_rt.errors import MismatchError
from secformer_rt.graph.ir import Shape
from secformer_rt.parties.admission import admit
from secformer_rt.parties.checkup import Checkup
from secformer_rt.parties.heartbeat import heartbeat
from secformer_rt.parties.kept import Kept
from secformer_rt.parties.logs import note, say, short
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
from secformer_rt.parties.memory import given_back
from secformer_rt.parties.plans import PlanCache
from secformer_rt.parties.rendezvous import Rendezvous, Visit
from secformer_rt.parties.report import PartyReport
from secformer_rt.parties.settings import Role, Settings
from secformer_rt.protocols.linear import HALF
from secformer_rt.protocols.rings import Rings
from secformer_rt.ring.buffers import as_bytes
from secformer_rt.ring.jit import empty
from secformer_rt.ring.packing import Stream
from secformer_rt.ring.prg import SecretSeed
from secformer_rt.scheduler.dealing import corrections
from secformer_rt.scheduler.randomness import parameter_mask
from secformer_rt.transport import wire_pb2
from secformer_rt.transport.link import Link
from secformer_rt.transport.server import Caller, Handler

logger = logging.getLogger(__name__)

SERVERS: tuple[Role, Role] = ("server0", "server1")
BLOCK = 4 << 20  # bytes of corrections in one message


@dataclass(slots=True, eq=False)
class _Model:
    """What the dealer keeps of a provisioned model: its description, the masks' seeds, and masks in use."""

    manifest: Manifest
    seeds: tuple[SecretSeed, SecretSeed]
    plans: PlanCache = field(default_factory=PlanCache)
    shapes: dict[str, Shape] = field(init=False)
    masks: dict[str, Tensor] = field(init=False, default_factory=dict)
    rings: Rings = field(init=False)

    def __post_init__(self) -> None:
        lowering = self.manifest.provisioning()
        self.shapes = {p.name: p.shape for p in lowering.graph.parameters}
        self.rings = lowering.rings

    def mask(self, name: str) -> Tensor:
        """The mask of a parameter, in the clear. Those of narrow rings are kept, being half as large."""
        if name in self.masks:
            return self.masks[name]
        first, second = (parameter_mask(seed, name, self.shapes[name]) for seed in self.seeds)
        mask = first.add_(second)
        if self.rings.weight(name) == HALF:
            mask = self.masks[name] = mask.to(torch.int32)
        return mask


class Dealer:
    """Serves the two compute servers, and nobody else."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._models: dict[bytes, _Model] = {}
        self._kept = Kept("dealer", settings.store)
        self._first = Rendezvous()

    def handlers(self) -> dict[str, Handler]:
        """What the dealer answers."""
        checkup = Checkup("dealer", self._settings.timeouts.handshake_s)
        return {"Supply": self._supply, **checkup.handlers()}

    def plans(self) -> list[PlanCache]:
        """The plans of each model known."""
        with self._lock:
            return [model.plans for model in self._models.values()]

    def close(self) -> None:
        """Let go of what is kept on disk."""
        self._kept.close()

    def _supply(self, link: Link, caller: Caller) -> None:
        handshake_s = self._settings.timeouts.handshake_s
        hello = link.receive_hello(handshake_s)
        link.peer = admit(caller, hello, "dealer", *SERVERS)
        check_run_id(hello)
        note(run=short(hello.run_id), operation=hello.purpose)
        say(logger, "started", caller=link.peer)
        description = json_of(link.receive_control(wire_pb2.Manifest, handshake_s))
        self._kept.runs.burn(hello.run_id, hello.role)
        if hello.purpose == "provision":
            self._provision(link, hello, parse(Manifest, description, link.peer))
        else:
            self._infer(link, hello, parse(Request, description, link.peer))

    def _provision(self, link: Link, hello: wire_pb2.Hello, manifest: Manifest) -> None:
        with self._lock:
            model = self._models.setdefault(
                hello.run_id, _Model(manifest, (SecretSeed.fresh(), SecretSeed.fresh()))
            )
        mine = make_hello("dealer", hello.run_id, "provision", model.manifest)
        link.send_hello(mine)
        compare(mine, hello, link.peer)
        link.send_control(wire_pb2.Seed(seed=model.seeds[SERVERS.index(link.peer)].reveal()))

    def _infer(self, link: Link, hello: wire_pb2.Hello, request: Request) -> None:
        model = self._models.get(bytes.fromhex(request.model_id))
        if model is None:
            raise MismatchError("The dealer does not know this model: provision it again.")
        with heartbeat([link]):
            _, plan = model.plans.get(model.manifest, request)
        purpose: Purpose = "prepare" if hello.purpose == "prepare" else "infer"
        mine = make_hello("dealer", hello.run_id, purpose, model.manifest, plan.digest())
        link.send_hello(mine)
        compare(mine, hello, link.peer)
        # Server 0's stream waits here for server 1's, whose thread deals to both.
        if link.peer == SERVERS[0]:
            self._first.offer(Visit(link, hello), self._settings.timeouts.progress_s)
            return
        visit = self._first.claim(hello.run_id, SERVERS[0], self._settings.timeouts.progress_s)
        links = (visit.link, link)
        try:
            compare(mine, visit.hello, SERVERS[0])  # they may have asked for different things
            with given_back(), heartbeat(links):
                seeds = (SecretSeed.fresh(), SecretSeed.fresh())
                for i in (0, 1):
                    links[i].send_control(wire_pb2.Seed(seed=seeds[i].reveal()))
                buffers = (_Blocks(links[0]), _Blocks(links[1]))
                with torch.inference_mode():
                    for server, part in corrections(plan, seeds, model.mask, self._settings.threads + 1):
                        buffers[server].add(part)
                for i in (0, 1):
                    buffers[i].flush()
                    report = PartyReport.of("dealer", {links[i].peer: links[i].traffic})
                    links[i].send_control(wire_pb2.Report(json=report.model_dump_json().encode()))
        except BaseException as error:
            visit.link.abort(error)
            visit.failure = error
            raise
        finally:
            visit.release()


class _Blocks:
    """Joins corrections into messages of :data:`BLOCK` bytes, and one shorter last message."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._parts: list[Stream] = []
        self._size = 0
        self._number = 0

    def add(self, part: Stream) -> None:
        """Queue bytes."""
        while part.size:
            room = BLOCK - self._size
            self._parts.append(part[:room])
            self._size += self._parts[-1].size
            part = part[room:]
            if self._size == BLOCK:
                self.flush()

    def flush(self) -> None:
        """Send what is queued."""
        if self._size:
            self._link.send(self._number, *(part.data for part in self._parts))
            self._number += 1
            self._parts, self._size = [], 0


class Incoming:
    """A server's end of :class:`_Blocks`.

    Attributes:
        received: everything that the dealer sends for one run (uint8), as far as it has arrived.
    """

    def __init__(self, link: Link, total: int, tell: Callable[[int], None]) -> None:
        """``tell`` is called with the bytes so far after every block."""
        self.received = empty((total,), torch.uint8)
        self._target = as_bytes(self.received)
        self._link, self._tell = link, tell
        self._number = 0

    def arrive(self, wanted: int) -> None:
        """Wait until so many bytes are there."""
        while (start := self._number * BLOCK) < wanted:
            part = self._target[start : start + BLOCK]
            self._link.receive_into(self._number, part)
            self._number += 1
            self._tell(start + part.nbytes)
