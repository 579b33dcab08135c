"""A relay passes bytes on, and breaks in the ways that trials need."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from secformer_rt.trials.relay import Relay


@pytest.fixture
def relay() -> Iterator[Relay]:
    """In front of somebody who sends everything back."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def echo(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                while data := connection.recv(1 << 16):
                    connection.sendall(data)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        made = Relay(listener.getsockname()[1])
        yield made
        made.close()
        listener.shutdown(socket.SHUT_RDWR)


def dial(relay: Relay) -> socket.socket:
    return socket.create_connection(("127.0.0.1", relay.port), timeout=20)


def echoed(raw: socket.socket, data: bytes) -> bytes:
    raw.sendall(data)
    found = b""
    while len(found) < len(data):
        part = raw.recv(1 << 16)
        if not part:
            raise ConnectionError
        found += part
    return found


def test_it_passes_everything_on(relay: Relay) -> None:
    data = bytes(range(256)) * 4096
    with dial(relay) as one, dial(relay) as two:
        assert echoed(one, b"one") == b"one"
        sender = threading.Thread(target=two.sendall, args=(data,))
        sender.start()
        found = bytearray()
        while len(found) < len(data):
            found += two.recv(1 << 16)
        sender.join()
        assert found == data


def test_it_is_tripped_before_the_byte_is_passed_on(relay: Relay) -> None:
    seen: list[bytes] = []
    with dial(relay) as raw:
        assert echoed(raw, b"12345") == b"12345"
        relay.trip("out", 10, lambda: seen.append(b"tripped"))
        assert echoed(raw, b"123456789") == b"123456789"
        assert not seen
        relay.trip("back", 1, relay.cut)
        with pytest.raises(OSError):
            echoed(raw, b"x")


def test_a_cut_ends_connections_until_it_is_healed(relay: Relay) -> None:
    with dial(relay) as raw:
        assert echoed(raw, b"x") == b"x"
        relay.cut()
        with pytest.raises(OSError):
            echoed(raw, b"x")
        with dial(relay) as refused, pytest.raises(OSError):
            echoed(refused, b"x")
        relay.heal()
        with dial(relay) as again:
            assert echoed(again, b"x") == b"x"


@pytest.mark.parametrize("direction", ["out", "back"])
def test_what_is_swallowed_never_comes(relay: Relay, direction: str) -> None:
    with dial(relay) as raw:
        assert echoed(raw, b"x") == b"x"
        passed = threading.Event()
        relay.swallow(direction)  # type: ignore[arg-type]
        relay.trip(direction, 1, passed.set)  # type: ignore[arg-type]
        raw.sendall(b"lost")
        assert passed.wait(20)
        relay.heal()  # a connection that has lost bytes ends
        with suppress(ConnectionError):
            assert raw.recv(10) == b""


def test_what_is_held_comes_later(relay: Relay) -> None:
    with dial(relay) as raw:
        relay.hold("back")
        raw.sendall(b"later")
        raw.settimeout(0.2)
        with pytest.raises(TimeoutError):
            raw.recv(10)
        raw.settimeout(20)
        relay.release()
        assert raw.recv(10) == b"later"
