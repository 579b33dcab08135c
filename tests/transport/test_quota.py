"""One caller cannot have all calls of a party, nor keep one open for ever."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2

from secformer_rt.errors import PeerLostError, PeerUnreachableError
from secformer_rt.transport import wire_pb2
from secformer_rt.transport.channel import health_check, open_channel
from secformer_rt.transport.link import Link
from secformer_rt.transport.quota import Quota, caller_of
from tests.transport.conftest import MakePair
from tests.transport.harness import beside, call, echo, eventually


class Context:
    """What a call knows of its caller."""

    def __init__(self, peer: str, *certificates: bytes) -> None:
        self._peer, self._shown = peer, certificates

    def peer(self) -> str:
        return self._peer

    def auth_context(self) -> dict[str, tuple[bytes, ...]]:
        return {"x509_pem_cert": self._shown} if self._shown else {}


def test_a_quota_is_each_callers_own() -> None:
    quota = Quota(2)
    assert [quota.take("a") for _ in range(3)] == [True, True, False]
    assert quota.take("b")
    quota.give("a")
    assert [quota.take("a") for _ in range(2)] == [True, False]


def test_callers_are_told_apart_by_certificate_or_host() -> None:
    def name(*arguments: object) -> str:
        return caller_of(Context(*arguments))  # type: ignore[arg-type]

    assert name("ipv4:192.0.2.1:5", b"one") == name("ipv4:192.0.2.9:7", b"one")
    assert name("ipv4:192.0.2.1:5", b"one") != name("ipv4:192.0.2.1:5", b"two")
    assert name("ipv4:192.0.2.1:5") == name("ipv4:192.0.2.1:6") != name("ipv4:192.0.2.2:5")
    assert name("ipv6:%5B2001:db8::1%5D:5") == name("ipv6:%5B2001:db8::1%5D:6") != name("ipv6:%5B::1%5D:5")


def test_one_host_in_plain_text_has_its_quota_over_all_connections(running) -> None:
    release = threading.Event()

    def hold(link: Link, caller: object) -> None:
        link.send(0)
        release.wait(30)

    server, first = running({"Infer": hold, "Peer": echo}, max_streams=8, max_streams_each=2)
    second = open_channel(f"127.0.0.1:{server.port}")
    held = [call(first, "Infer"), call(second, "Infer")]
    for link in held:
        link.receive(0, 0)
    for channel in (first, second):
        with (
            pytest.raises(PeerUnreachableError, match="as many calls open there as one may") as caught,
            call(channel, "Infer") as third,
        ):
            third.receive(0, 0)
        assert caught.value.exit_code == 21
    assert server.refused == 2
    release.set()
    for link in held:
        link.finish()
        link.close()
    assert eventually(lambda: not server._runs)  # its places are free again
    with call(second, "Peer") as link:
        link.send(0, b"ping")
        link.receive(1, 4)
        link.finish()
    second.close()


def test_what_is_no_clients_is_not_limited(running) -> None:
    release = threading.Event()

    def hold(link: Link, caller: object) -> None:
        link.send(0)
        release.wait(30)

    server, channel = running({"Peer": hold}, max_streams_each=1, limited=lambda rpc, role: rpc != "Peer")
    links = [call(channel) for _ in range(4)]
    for link in links:
        link.receive(0, 0)
    release.set()
    for link in links:
        link.finish()
        link.close()
    assert server.refused == 0


def test_a_connection_that_says_nothing_is_closed(running) -> None:
    server, _ = running({"Peer": echo}, handshake_s=0.5)
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:
        while raw.recv(1 << 16):
            pass  # it ends, instead of timing out


def test_a_health_check_that_asks_nothing_is_ended(running) -> None:
    server, channel = running({"Peer": echo}, handshake_s=0.5)
    release = threading.Event()

    def nothing() -> Iterator[health_pb2.HealthCheckRequest]:
        release.wait(60)
        yield from ()

    silent = [
        open_channel(f"127.0.0.1:{server.port}").stream_stream(
            "/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest.SerializeToString
        )(nothing(), timeout=60)
        for _ in range(40)
    ]
    codes = {_code(each) for each in silent}
    assert codes <= {grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED}
    release.set()
    assert health_check(channel)(health_pb2.HealthCheckRequest(), timeout=30).status
    with pytest.raises(grpc.RpcError) as caught:
        health_check(channel)(health_pb2.HealthCheckRequest(service="no such"), timeout=30)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]


def _code(responses: grpc.CallIterator[bytes]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        next(responses)
    code: grpc.StatusCode = caught.value.code()  # type: ignore[attr-defined]
    return code


def test_health_cannot_be_watched(running) -> None:
    _, channel = running({"Peer": echo})
    watch = channel.unary_stream(
        "/grpc.health.v1.Health/Watch", health_pb2.HealthCheckRequest.SerializeToString
    )
    assert _code(watch(health_pb2.HealthCheckRequest(), timeout=30)) is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("waiting", ["receive", "receive_control", "finish", "send"])
def test_signs_of_life_do_not_extend_a_limit(make_pair: MakePair, waiting: str) -> None:
    """A peer that does nothing but live is waited for until the limit, and no longer."""
    with make_pair(window_bytes=1 << 20) as (ours, theirs):
        works = {
            "receive": lambda: ours.receive(0, 4),
            "receive_control": lambda: ours.receive_control(wire_pb2.Seed),
            "finish": ours.finish,
            "send": lambda: [ours.send(number, bytes(1 << 20)) for number in range(1000)],
        }
        ours.limit(0.5)
        over = threading.Event()
        living = beside(lambda: [theirs.progress() for _ in iter(lambda: over.wait(0.02), True)])
        with pytest.raises(PeerLostError, match=r"has not ended its run within 0\.5 s"):
            works[waiting]()
        over.set()
        living.result()
