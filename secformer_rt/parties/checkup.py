"""What a party answers to whoever examines the link to it: who it is, what it runs, and how fast.

Nothing of it is secret, and nothing of it depends on runs. The bytes of a checkup are fixed, and a party
does a few at a time.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Final

from secformer_rt import __version__
from secformer_rt.errors import PeerUnreachableError, SecformerError
from secformer_rt.graph.architecture import Architecture
from secformer_rt.graph.preset import (
    ExactSoftmax,
    FourierErf,
    FourierTanh,
    Goldschmidt,
    LayerNormChoice,
    Preset,
    Seeded,
)
from secformer_rt.parties.admission import admit
from secformer_rt.parties.heartbeat import heartbeat
from secformer_rt.parties.manifest import PROTOCOL_VERSION, Manifest, make_hello
from secformer_rt.scheduler.plan import plan_graph
from secformer_rt.transport.aborts import RemoteAbort
from secformer_rt.transport.certificates import HOLDERS
from secformer_rt.transport.link import Link
from secformer_rt.transport.server import Caller, Handler

RPC: Final = "Diagnose"
PINGS: Final = 9
PING_BYTES: Final = 8
BULK_BYTES: Final = 4 << 20  # in each direction: there, back, and both ways at once
AT_ONCE: Final = 4
LIMIT_S: Final = 120.0  # for all of it
_TIME: Final = struct.Struct("<d")

assert _TIME.size == PING_BYTES


class Checkup:
    """One party's side. What it says of itself can be given, so that tests can make it differ."""

    def __init__(
        self,
        role: str,
        handshake_s: float,
        *,
        version: str = __version__,
        protocol_version: int = PROTOCOL_VERSION,
        clock: Callable[[], float] = time.time,
        digest: Callable[[], bytes] | None = None,
    ) -> None:
        self._role, self._handshake_s = role, handshake_s
        self._version, self._protocol_version = version, protocol_version
        self._clock, self._digest = clock, digest or reference_digest
        self._free = threading.Semaphore(AT_ONCE)

    def handlers(self) -> dict[str, Handler]:
        """What is answered."""
        return {RPC: self._answer}

    def _answer(self, link: Link, caller: Caller) -> None:
        link.limit(LIMIT_S)
        theirs = link.receive_hello(self._handshake_s)
        link.peer = admit(caller, theirs, self._role, *HOLDERS)
        if not self._free.acquire(blocking=False):
            raise PeerUnreachableError(f"{self._role} is being examined by others; try again in a moment.")
        try:
            self._examined(link, theirs.run_id)
        except SecformerError as error:
            if not isinstance(error.__cause__, RemoteAbort):  # a caller that has seen enough is no failure
                raise
        finally:
            self._free.release()

    def _examined(self, link: Link, run_id: bytes) -> None:
        with heartbeat([link]):
            digest = self._digest()
        hello = make_hello(self._role, run_id, "diagnose", plan=digest)
        hello.package_version, hello.protocol_version = self._version, self._protocol_version
        link.send_hello(hello)
        for number in range(PINGS):
            link.receive(number, PING_BYTES)
            link.send(number, pong(self._clock()))
        link.receive(PINGS, BULK_BYTES)
        link.send(PINGS, pong(self._clock()))
        link.send(PINGS + 1, bytes(BULK_BYTES))
        link.receive(PINGS + 2, PING_BYTES)
        link.send(PINGS + 3, bytes(BULK_BYTES))
        link.receive(PINGS + 3, BULK_BYTES)


def pong(seconds: float) -> bytes:
    """The answer to a ping: this machine's clock, in seconds since 1970."""
    return _TIME.pack(seconds)


def clock_of(pong: memoryview) -> float:
    """What `pong` has packed."""
    seconds: float = _TIME.unpack(pong)[0]
    return seconds


@cache
def reference_digest() -> bytes:
    """The SHA-256 of a small plan that every installation derives for itself.

    It differs where the code, or what its numerical libraries make of a series or an iteration, does.
    """
    return plan_graph(_reference().lowering(1, 4, masked=True)).digest()


def _reference() -> Manifest:
    seeded = Seeded(protocol="seeded")
    preset = Preset(
        name="reference",
        description="",
        gelu=FourierErf(protocol="fourier", period=16.0, cut=4.5, terms=8),
        softmax=ExactSoftmax(protocol="exact", division=seeded),
        layernorm=LayerNormChoice(rsqrt=Goldschmidt(protocol="goldschmidt", iterations=40)),
        tanh=FourierTanh(protocol="fourier", period=16.0, cut=6.0, terms=14),
    )
    architecture = Architecture(
        hidden=8, layers=1, heads=2, intermediate=16, vocabulary=16, positions=8, head="classifier", labels=2
    )
    return Manifest(
        model="reference",
        architecture=architecture,
        preset=preset,
        calibration=None,
        embedding="private",
    )
