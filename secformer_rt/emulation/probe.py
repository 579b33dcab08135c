"""What a link does, measured with plain sockets at its ends."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from statistics import median

from secformer_rt.emulation.namespaces import Place
from secformer_rt.errors import SecformerError
from secformer_rt.scheduler.network import Network

PINGS = 60
STREAM_S = 1.0
STREAM_ROUND_TRIPS = 12  # and as many more, since a connection needs some to reach its rate
BLOCK = 256 << 10


def measure_link(name: str, first: Place, second: Place, rtt_ms: float) -> Network:
    """Round trip and rate of what lies between two places, which should be about ``rtt_ms`` long.

    The rate is the payload of one TCP connection, once it runs, in the slower direction.
    """
    stream_s = STREAM_S + STREAM_ROUND_TRIPS * rtt_ms / 1e3
    return Network(
        name=name,
        rtt_ms=1e3 * round_trip_s(first, second),
        mbit=min(rate_mbit(first, second, stream_s), rate_mbit(second, first, stream_s)),
    )


def round_trip_s(first: Place, second: Place) -> float:
    """The median of echoing single bytes over one connection."""
    with _connected(first, second) as (near, far), _background(partial(_echo, far)):
        seconds = []
        for _ in range(PINGS):
            began = time.perf_counter()
            near.sendall(b"\0")
            near.recv(1)
            seconds.append(time.perf_counter() - began)
        near.shutdown(socket.SHUT_WR)
    return median(seconds)


def rate_mbit(sender: Place, receiver: Place, seconds: float) -> float:
    """10^6 bits a second that arrive in the second half of a stream of ``seconds``.

    Raises:
        SecformerError: nothing does.
    """
    with _connected(sender, receiver) as (near, far), _background(partial(_stream, near)):
        buffer = bytearray(BLOCK)
        counted = 0
        began = counted_from = counted_to = time.perf_counter()
        while (now := time.perf_counter()) - began < seconds:
            size = far.recv_into(buffer)
            if now - began < seconds / 2:
                counted_from = time.perf_counter()
            else:
                counted, counted_to = counted + size, time.perf_counter()
        far.close()  # so that the sender gives up, and what it has queued is forgotten
    if not counted:
        raise SecformerError("A link is too slow to be measured: give it a higher rate.")
    return 8e-6 * counted / (counted_to - counted_from)


def _echo(far: socket.socket) -> None:
    while far.recv(1):
        far.sendall(b"\0")


def _stream(near: socket.socket) -> None:
    block = bytes(BLOCK)
    with suppress(ConnectionError):
        while True:
            near.sendall(block)


@contextmanager
def _background(work: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield
    thread.join()


@contextmanager
def _connected(first: Place, second: Place) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of one TCP connection; each stays where it was made."""
    with second.call(lambda: socket.create_server((second.address, 0))) as listener:
        near = first.call(lambda: socket.create_connection(listener.getsockname()[:2], timeout=10))
        far, _ = listener.accept()
    with near, far:
        for end in (near, far):
            end.settimeout(30)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield near, far
