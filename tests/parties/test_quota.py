"""One bad client does not stop another's request, and does not hold on to what it has."""

from __future__ import annotations

import itertools
import os
import queue
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message
from torch import Tensor

from secformer_rt.clients.cluster import loopback_settings
from secformer_rt.clients.connection import Servers, await_report
from secformer_rt.errors import BadConfigError, PeerLostError, PeerUnreachableError
from secformer_rt.parties.access import Access
from secformer_rt.parties.admission import is_client
from secformer_rt.parties.manifest import make_hello
from secformer_rt.parties.server import CLIENTS
from secformer_rt.parties.settings import Settings
from secformer_rt.parties.shares import SharesOut
from secformer_rt.transport.certificates import HOLDERS
from secformer_rt.transport.frames import Kind, encode_frame
from secformer_rt.transport.grpc_link import SERVICE, connect
from secformer_rt.transport.link import Link
from tests.clients.deployment import Small
from tests.parties.inprocess import Parties, clients, parties
from tests.transport.certificates import replace
from tests.transport.harness import beside, eventually

STREAMS, EACH = 8, 3  # that a party takes, and from one client
CALLS = 30  # of a flood, on each connection


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    # Nobody is sent away for being slow: what holds nobody up here is the quota alone.
    timeouts = {"progress_s": 30.0, "handshake_s": 60.0, "connect_s": 20.0}
    with parties(tmp_path_factory.mktemp("certs"), timeouts=timeouts, streams=STREAMS) as running:
        yield running


@pytest.fixture(scope="module")
def servers(found: Parties) -> Iterator[Servers]:
    with clients(found) as connected:
        yield connected


@pytest.fixture
def stranger(found: Parties, tmp_path: Path) -> Settings:
    """What another data owner has: a certificate of its own."""
    assert found.settings.tls is not None
    copy = shutil.copytree(found.settings.tls.directory, tmp_path / "certs")
    replace(copy, "data-owner")
    tls = found.settings.tls.model_copy(update={"directory": copy})
    return found.settings.model_copy(update={"tls": tls})


@contextmanager
def held(channel: grpc.Channel, count: int) -> Iterator[list[grpc.CallIterator[bytes]]]:
    """So many calls, which say nothing while the block lasts."""
    frames: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    calls = [
        channel.stream_stream(f"/{SERVICE}/Infer")(iter(frames.get, b""), timeout=120) for _ in range(count)
    ]
    try:
        yield calls
    finally:
        for call in calls:
            call.cancel()  # type: ignore[no-untyped-call]
            frames.put(b"")


def refused(calls: Sequence[grpc.CallIterator[bytes]]) -> int:
    return sum(call.done() for call in calls)  # type: ignore[attr-defined]


def greeted(settings: Settings, server: str) -> None:
    """Open a stream, and hear a refusal if there is one."""
    with (
        Access(settings, "data-owner").open(server) as channel,  # type: ignore[arg-type]
        connect(channel, "Infer", role="data-owner", peer=server, timeout_s=20.0) as link,
    ):
        link.send_hello(make_hello("data-owner", os.urandom(16), "describe"))
        link.receive_hello()


def test_a_client_has_its_share_of_streams_and_others_theirs(
    found: Parties, stranger: Settings, model: Small, servers: Servers, model_id: str
) -> None:
    """The other's request is answered at the first attempt, while streams are held and many refused."""
    assert found.settings.client_streams() == EACH
    with ExitStack() as stack:
        for server in ("server0", "server1"):
            for room in (EACH, 0, 0):  # by connection
                channel = stack.enter_context(Access(stranger, "data-owner").open(server))  # type: ignore[arg-type]
                calls = stack.enter_context(held(channel, CALLS))
                assert eventually(lambda calls=calls, room=room: refused(calls) == CALLS - room)  # type: ignore[misc]
            with pytest.raises(PeerUnreachableError, match="as many calls open there as one may"):
                greeted(stranger, server)
        model.check(servers, model_id)
    model.check(servers, model_id)


def test_places_are_free_again(stranger: Settings, model: Small, model_id: str) -> None:
    with Access(stranger, "data-owner").open("server0") as channel, Servers(stranger, ("data-owner",)) as own:
        with held(channel, EACH + 1) as calls:
            assert eventually(lambda: refused(calls) == 1)
            with pytest.raises(PeerUnreachableError):
                model.check(own, model_id)
        assert eventually(lambda: answered(lambda: model.check(own, model_id)))


def answered(check: Callable[[], None]) -> bool:
    try:
        check()
    except PeerUnreachableError:
        return False
    return True


def test_parties_are_not_clients() -> None:
    for rpc in ("Provision", "Infer", "Diagnose", "Peer", "Supply"):
        proved = [role for role in HOLDERS if is_client(rpc, role)]
        assert proved == [role for role in HOLDERS if role.endswith("-owner")]
    assert [rpc for rpc in ("Provision", "Infer", "Diagnose", "Peer", "Supply") if is_client(rpc, None)] == [
        "Provision",
        "Infer",
        "Diagnose",
    ]


def test_how_many_streams_a_client_has() -> None:
    assert loopback_settings(insecure=True).client_streams() == 6
    assert loopback_settings(insecure=True, streams=2).client_streams() == 1
    assert loopback_settings(["streams_per_client=4"], insecure=True).client_streams() == 4
    with pytest.raises(BadConfigError, match="streams_per_client"):
        loopback_settings(["streams_per_client=0"], insecure=True)


@contextmanager
def living(links: Sequence[Link]) -> Iterator[None]:
    """Show signs of life while the block lasts."""
    over = threading.Event()

    def live() -> None:
        while not over.wait(0.02):
            for link in links:
                link.progress()

    thread = beside(live)
    try:
        yield
    finally:
        over.set()
        thread.result()


def stall(out: SharesOut, number: int, name: str, words: Tensor) -> None:
    """Instead of sending shares, live on until somebody has had enough."""
    with living(out._servers):
        await_report(out._servers[0])


def linger(link: Link) -> None:
    """Instead of ending a client's run, live on."""
    if link._role in CLIENTS:
        with living((link,)):
            while True:
                link._inbox.take(link._patience())
    FINISH(link)


FINISH = Link.finish
PHASES: dict[str, tuple[type, str, Callable[..., None]]] = {
    "provision": (SharesOut, "send", stall),
    "infer": (SharesOut, "send", stall),
    "end": (Link, "finish", linger),
}


@pytest.mark.parametrize("phase", PHASES)
def test_signs_of_life_keep_no_run_open(
    monkeypatch: pytest.MonkeyPatch, model: Small, servers: Servers, model_id: str, phase: str
) -> None:
    """A client that never goes on is waited for until the limit of a run."""
    given: set[float] = set()
    limit = Link.limit

    def limited(link: Link, seconds: float) -> None:
        given.add(seconds)
        limit(link, 2.0)

    with monkeypatch.context() as patch:
        patch.setattr(Link, "limit", limited)
        patch.setattr(*PHASES[phase])
        with pytest.raises(PeerLostError, match="-owner has not ended its run within 2 s"):
            model.provision(servers) if phase == "provision" else model.check(servers, model_id)
    assert given == {3600.0}  # the default
    model.check(servers, model_id)


def test_a_request_that_never_ends_is_not_waited_for(found: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is one whose bytes come one at a time: the limit is for all of it."""
    hello = make_hello("data-owner", os.urandom(16), "infer").SerializeToString()
    receive = Link.receive_control

    def impatient(link: Link, expected: type[Message], timeout_s: float | None = None) -> Message:
        assert timeout_s == 60.0
        return receive(link, expected, 1.0)

    over = threading.Event()

    def said() -> Iterator[bytes]:
        yield encode_frame(0, Kind.HELLO, 0, len(hello), hello)
        for number in itertools.count(1):
            yield encode_frame(number, Kind.CONTROL, 0, 1 << 20, b"x")
            if over.wait(0.02):
                return

    monkeypatch.setattr(Link, "receive_control", impatient)
    with Access(found.settings, "data-owner").open("server0") as channel:
        call = channel.stream_stream(f"/{SERVICE}/Infer")(said(), timeout=60)
        heard = next(call)  # it is told so, and not cut off by the call's own deadline
        over.set()
        assert b"has shown no progress for 1 s" in heard
        call.cancel()  # type: ignore[no-untyped-call]
