"""Whoever can reach a party's port may send anything: the party lives on, and others are served meanwhile."""

from __future__ import annotations

import os
import queue
import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import product
from pathlib import Path

import grpc
import psutil
import pytest

from secformer_rt.clients.connection import Servers
from secformer_rt.errors import SecformerError
from secformer_rt.parties.access import Access
from secformer_rt.parties.manifest import make_hello
from secformer_rt.parties.settings import ROLES, Role
from secformer_rt.transport import wire_pb2
from secformer_rt.transport.channel import health_check
from secformer_rt.transport.frames import Kind, encode_frame
from secformer_rt.transport.grpc_link import SERVICE, connect
from tests.clients.deployment import Small
from tests.parties.inprocess import Parties, clients, parties
from tests.transport.certificates import expire, replace
from tests.transport.harness import eventually

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
STREAMS = 6  # that a party takes at once in these tests


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    timeouts = {"progress_s": 10.0, "handshake_s": 1.0, "connect_s": 20.0}
    with parties(tmp_path_factory.mktemp("certs"), timeouts=timeouts, streams=STREAMS) as running:
        yield running


@pytest.fixture(scope="module")
def servers(found: Parties) -> Iterator[Servers]:
    with clients(found) as connected:
        yield connected


def certs(found: Parties) -> Path:
    assert found.settings.tls is not None
    return found.settings.tls.directory


def dial(found: Parties, role: Role) -> socket.socket:
    host, port = found.settings.endpoint(role).address.split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def tls(found: Parties, role: Role, holder: str | None = "data-owner") -> ssl.SSLSocket:
    """An encrypted connection for HTTP/2, with somebody's certificate or with none."""
    context = ssl.create_default_context(cafile=str(certs(found) / "ca.crt"))
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    if holder is not None:
        context.load_cert_chain(certs(found) / f"{holder}.crt", certs(found) / f"{holder}.key")
    return context.wrap_socket(dial(found, role), server_hostname=f"{role}.secformer-rt")


def header(length: int, kind: int, flags: int = 0, stream: int = 0) -> bytes:
    return length.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")


def send_all(raw: socket.socket, *parts: bytes) -> None:
    """Send until it is done or the party has had enough."""
    with suppress(OSError):
        for part in parts:
            raw.sendall(part)


RAW: dict[str, bytes] = {
    "noise": os.urandom(1 << 16),
    "plain HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 100,
    "plain HTTP/2": PREFACE + SETTINGS,
    "half a TLS hello": bytes.fromhex("16030102000100"),
    "a TLS hello of no sense": bytes.fromhex("160301ffff0100fffb0303") + os.urandom(1 << 15),
    "nothing": b"",
}
HTTP: dict[str, list[bytes]] = {
    "noise": [os.urandom(1 << 15)],
    "oversize frame": [PREFACE, SETTINGS, header((1 << 24) - 1, 0, 0, 1), bytes(1 << 20)],
    "headers without end": [PREFACE, SETTINGS, header(16, 1, 0, 1), bytes(16)]
    + [header(16000, 9, 0, 1) + os.urandom(16000)] * 64,
    "settings": [PREFACE] + [SETTINGS] * 20000,
    "pings": [PREFACE, SETTINGS] + [header(8, 6) + bytes(8)] * 20000,
    "streams that are reset": [PREFACE, SETTINGS]
    + [header(1, 1, 4, 1 + 2 * n) + b"\x82" + header(4, 3, 0, 1 + 2 * n) + bytes(4) for n in range(5000)],
    "an unknown frame": [PREFACE, SETTINGS, header(100, 77) + bytes(100)],
}


@contextmanager
def unharmed(model: Small, servers: Servers, model_id: str) -> Iterator[None]:
    """Requests are answered while the block lasts and afterwards, and no connection is left behind."""
    model.check(servers, model_id)
    before = psutil.Process().num_fds()
    yield
    model.check(servers, model_id)
    assert eventually(lambda: psutil.Process().num_fds() <= before, 20.0)


def test_before_tls(found: Parties, model: Small, servers: Servers, model_id: str) -> None:
    with unharmed(model, servers, model_id), ExitStack() as stack:
        for role, _, data in product(ROLES, range(5), RAW.values()):
            raw = stack.enter_context(dial(found, role))
            send_all(raw, data)
        model.check(servers, model_id)


def test_within_tls(found: Parties, model: Small, servers: Servers, model_id: str) -> None:
    with unharmed(model, servers, model_id), ExitStack() as stack:
        for role, parts in product(ROLES, HTTP.values()):
            raw = stack.enter_context(tls(found, role))
            send_all(raw, *parts)
        model.check(servers, model_id)


def test_a_slow_trickle(found: Parties, model: Small, servers: Servers, model_id: str) -> None:
    """Many connections that say a little now and then hold nobody up."""
    with unharmed(model, servers, model_id), ExitStack() as stack:
        slow = [stack.enter_context(tls(found, role)) for role in ROLES for _ in range(10)]
        for byte in PREFACE:
            for raw in slow:
                send_all(raw, bytes([byte]))
            if byte in b"*/":
                model.check(servers, model_id)


def test_without_a_certificate_nothing_is_answered(found: Parties) -> None:
    for role in ROLES:
        with tls(found, role, None) as raw:
            send_all(raw, PREFACE, SETTINGS)
            heard = b""
            with suppress(OSError):  # it is told so, or cut off
                while data := raw.recv(1 << 16):
                    heard += data
            assert not heard


def expired(directory: Path) -> None:
    expire(directory, "data-owner")


def other_role(directory: Path) -> None:
    replace(directory, "data-owner", "model-owner")


@pytest.mark.parametrize("spoil", [expired, other_role])
def test_certificates_that_are_of_no_use(
    found: Parties, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    """Neither reaches a run; the caller looks at nothing that a rogue one would not."""
    copy = shutil.copytree(certs(found), tmp_path / "certs")
    spoil(copy)
    files = [(copy / name).read_bytes() for name in ("ca.crt", "data-owner.key", "data-owner.crt")]
    options = (("grpc.ssl_target_name_override", "server0.secformer-rt"),)
    credentials = grpc.ssl_channel_credentials(*files)
    with (
        grpc.secure_channel(found.settings.server0.address, credentials, options=options) as channel,
        pytest.raises(SecformerError, match=r"TLS failed|connection|its certificate is that of model-owner"),
        connect(channel, "Infer", role="data-owner", peer="server0", timeout_s=5.0) as link,
    ):
        link.send_hello(make_hello("data-owner", os.urandom(16), "infer"))
        link.send_control(wire_pb2.Manifest(json=b"{}"))
        link.receive_hello()


def test_a_flood_of_streams(found: Parties, model: Small, servers: Servers, model_id: str) -> None:
    """A client that opens streams and says nothing is sent away soon; others find room again."""
    with unharmed(model, servers, model_id), Access(found.settings, "data-owner").open("server0") as bad:
        frames: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        calls = [
            bad.stream_stream(f"/{SERVICE}/Infer")(iter(frames.get, b""), timeout=30.0)
            for _ in range(20 * STREAMS)
        ]
        ended = [threading.Event() for _ in calls]
        for call, event in zip(calls, ended, strict=True):
            if not call.add_callback(event.set):
                event.set()
        answered = threading.Thread(target=_until_answered, args=(lambda: model.check(servers, model_id),))
        answered.start()
        answered.join(60)
        assert not answered.is_alive()
        for call in calls:
            call.cancel()  # type: ignore[no-untyped-call]
        for _ in calls:
            frames.put(b"")
        assert all(event.wait(20) for event in ended)


def _until_answered(check: Callable[[], None]) -> None:
    while True:
        try:
            return check()
        except SecformerError:
            continue


HELLO = wire_pb2.Hello(protocol_version=1, role="data-owner", run_id=bytes(16), purpose="infer")


def frames_of(kind: str) -> list[bytes]:
    hello = HELLO.SerializeToString()
    first = encode_frame(0, Kind.HELLO, 0, len(hello), hello)
    return {
        "a hello twice": [first, first],
        "data before a hello": [encode_frame(0, Kind.DATA, 0, 8, bytes(8))],
        "an end at once": [encode_frame(0, Kind.END, 0, 0)],
        "a hello of another length": [encode_frame(0, Kind.HELLO, 0, len(hello) + 1, hello)],
        "data instead of a request": [first, encode_frame(1, Kind.DATA, 0, 8, bytes(8))],
        "an empty request": [first, encode_frame(1, Kind.CONTROL, 0, 2, b"\x0a\x00")],
        "an endless message": [first, *(encode_frame(n, Kind.CONTROL, 0, 1 << 40, b"x") for n in (1, 2, 3))],
        "a replayed frame": [first, encode_frame(0, Kind.CONTROL, 0, 2, b"\x0a\x00")],
        "signs of life alone": [encode_frame(n, Kind.PROGRESS, 0, 0) for n in range(5000)],
        "an abort": [encode_frame(9, Kind.ABORT, 0, 3, b"\xff\xfe\xfd")],
    }[kind]


ORDERS = (
    "a hello twice",
    "data before a hello",
    "an end at once",
    "a hello of another length",
    "data instead of a request",
    "an empty request",
    "an endless message",
    "a replayed frame",
    "signs of life alone",
    "an abort",
)


@pytest.mark.parametrize("name", ORDERS)
def test_frames_out_of_order(
    found: Parties, model: Small, servers: Servers, model_id: str, name: str
) -> None:
    """With a client's certificate: the stream ends with an abort or is gone, and nothing else happens."""
    for role, rpc in (("server0", "Infer"), ("server1", "Infer"), ("dealer", "Supply")):
        with Access(found.settings, "data-owner").open(role) as channel:  # type: ignore[arg-type]
            frames: queue.SimpleQueue[bytes] = queue.SimpleQueue()
            for frame in frames_of(name):
                frames.put(frame)
            call = channel.stream_stream(f"/{SERVICE}/{rpc}")(iter(frames.get, b""), timeout=20.0)
            heard: list[bytes] = []
            try:
                for data in call:
                    heard.append(data)
                    frames.put(b"")
            except grpc.RpcError as error:
                assert error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
            assert all(b"unexpected" not in data for data in heard)
    model.check(servers, model_id)


def test_health_is_all_that_any_role_may_ask(found: Parties) -> None:
    with Access(found.settings, "model-owner").open("dealer") as channel:
        check = health_check(channel)
        assert check(wire_health(), timeout=10).status
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(f"/{SERVICE}/Infer")(b"", timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED  # type: ignore[attr-defined]


def wire_health() -> object:
    from grpc_health.v1 import health_pb2

    return health_pb2.HealthCheckRequest(service="")
