"""Ways to stand two ends of a link up inside one test process."""

from __future__ import annotations

import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from secformer_rt.transport.certificates import role_host
from secformer_rt.transport.channel import open_channel
from secformer_rt.transport.frames import Kind, encode_frame
from secformer_rt.transport.grpc_link import SERVICE, CallerStream, ListenerStream, connect
from secformer_rt.transport.identity import Identity, load_identity
from secformer_rt.transport.link import Link
from secformer_rt.transport.memory import memory_links, memory_streams
from secformer_rt.transport.raw import RawStream, drain
from secformer_rt.transport.server import Caller, serve
from tests.transport.certificates import deployment

TIMEOUT_S = 20.0
ROLES = ("server1", "server0")


@contextmanager
def memory_pair(timeout_s: float = TIMEOUT_S, window_bytes: int = 1 << 28) -> Iterator[tuple[Link, Link]]:
    a, b = memory_links(*ROLES, timeout_s=timeout_s, window_bytes=window_bytes)
    yield a, b
    a.close()
    b.close()


@contextmanager
def tls_pair(timeout_s: float = TIMEOUT_S, window_bytes: int = 1 << 28) -> Iterator[tuple[Link, Link]]:
    with tempfile.TemporaryDirectory() as name:
        certs = deployment(Path(name))
        a, b = (load_identity(certs, role) for role in ROLES)
        with grpc_pair(timeout_s, window_bytes, a, b) as links:
            yield links


@contextmanager
def grpc_pair(
    timeout_s: float = TIMEOUT_S,
    window_bytes: int = 1 << 28,
    caller: Identity | None = None,
    called: Identity | None = None,
) -> Iterator[tuple[Link, Link]]:
    accepted: queue.Queue[Link] = queue.Queue()
    done = threading.Event()

    def handler(link: Link, _: Caller) -> None:
        link.peer = ROLES[0]
        accepted.put(link)
        done.wait()

    settings = {"timeout_s": timeout_s, "window_bytes": window_bytes}
    server = serve("127.0.0.1:0", {"Peer": handler}, role=ROLES[1], identity=called, **settings)
    credentials = caller.for_calling(ROLES[1]) if caller else None
    channel = open_channel(f"127.0.0.1:{server.port}", credentials, server_name=role_host(ROLES[1]))
    a = connect(channel, "Peer", role=ROLES[0], peer=ROLES[1], **settings)
    b = accepted.get(timeout=10)
    yield a, b
    a.close()
    b.close()
    done.set()
    channel.close()
    server.stop(1.0)


@contextmanager
def memory_rigged(timeout_s: float = TIMEOUT_S) -> Iterator[tuple[Link, RawStream]]:
    stream, rigged = memory_streams()
    link = Link("server0", stream, role="server1", timeout_s=timeout_s)
    yield link, rigged
    link.close()


@contextmanager
def rigged_caller(timeout_s: float = TIMEOUT_S) -> Iterator[tuple[Link, RawStream]]:
    """A link that was called, by somebody who may send anything."""
    accepted: queue.Queue[Link] = queue.Queue()
    done = threading.Event()

    def handler(link: Link, caller: Caller) -> None:
        link.peer = "server0"
        accepted.put(link)
        done.wait()

    server = serve("127.0.0.1:0", {"Peer": handler}, role="server1", timeout_s=timeout_s)
    # Without the limits of a well-behaved channel.
    channel = grpc.insecure_channel(f"127.0.0.1:{server.port}")
    raw = CallerStream(
        channel.stream_stream(f"/{SERVICE}/Peer", request_serializer=None, response_deserializer=None)
    )
    link = accepted.get(timeout=10)
    yield link, raw
    link.close()
    done.set()
    raw.cancel()
    channel.close()
    server.stop(1.0)


@contextmanager
def rigged_listener(timeout_s: float = TIMEOUT_S) -> Iterator[tuple[Link, RawStream]]:
    """A link that called, and was answered by somebody who may send anything."""
    accepted: queue.Queue[ListenerStream] = queue.Queue()

    def accept(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        stream = ListenerStream(requests, context)
        accepted.put(stream)
        return drain(stream.outbox)

    pool = ThreadPoolExecutor(2)
    server = grpc.server(pool)
    methods = {"Peer": grpc.stream_stream_rpc_method_handler(accept)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    channel = open_channel(f"127.0.0.1:{port}")
    link = connect(channel, "Peer", role="server1", peer="server0", timeout_s=timeout_s)
    stream = accepted.get(timeout=10)
    yield link, stream
    link.close()
    stream.cancel()
    channel.close()
    server.stop(0).wait()
    pool.shutdown()


PAIRS = {"memory": memory_pair, "grpc": grpc_pair, "tls": tls_pair}
RIGGED = {"memory": memory_rigged, "grpc-caller": rigged_caller, "grpc-listener": rigged_listener}


def push(raw: RawStream, *frames: bytes) -> None:
    """Send raw frames, as they are."""
    for frame in frames:
        assert raw.outbox.put(frame, len(frame))


def data_frame(sequence: int, tag: int, payload: bytes, total: int | None = None) -> bytes:
    return encode_frame(sequence, Kind.DATA, tag, len(payload) if total is None else total, payload)


@dataclass
class Background:
    """Something that runs beside the test and hands its result or its exception back."""

    thread: threading.Thread
    results: list[object]

    def result(self, timeout_s: float = 30.0) -> object:
        self.thread.join(timeout_s)
        assert not self.thread.is_alive(), "still running"
        result = self.results[0]
        if isinstance(result, BaseException):
            raise result
        return result


def beside(work: Callable[[], object]) -> Background:
    results: list[object] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run, name="beside", daemon=True)
    thread.start()
    return Background(thread, results)


def eventually(condition: Callable[[], object], within_s: float = 10.0) -> bool:
    ends_at = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > ends_at:
            return False
        time.sleep(0.01)
    return True


def abort_heard(link: Link) -> bool:
    """Whether an abort has been heard in full: the frames that wait to be sent are dropped last."""
    return eventually(lambda: link._raw.outbox._closed)


def call(channel: grpc.Channel, rpc: str = "Peer", **settings: float) -> Link:
    return connect(channel, rpc, role="server1", peer="server0", **settings)


def echo(link: Link, caller: Caller) -> None:
    link.send(1, link.receive(0, 4))
