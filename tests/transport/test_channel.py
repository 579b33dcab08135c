"""Reaching a peer: addresses, waiting, health."""

from __future__ import annotations

import socket
import threading

import pytest

from secformer_rt.errors import (
    BadConfigError,
    PeerLostError,
    PeerUnreachableError,
)
from secformer_rt.transport.channel import READY, open_channel, parse_address, wait_ready
from secformer_rt.transport.server import serve
from tests.transport.harness import beside, call, echo


def test_nobody_answers():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    channel = open_channel(address)
    waits = []
    with pytest.raises(
        PeerUnreachableError, match=rf"dealer at {address} could not be reached within 0\.5 s"
    ):
        wait_ready(
            channel, "dealer", address, 0.5, lambda elapsed_s, reason: waits.append((elapsed_s, reason))
        )
    assert waits
    assert all(reason == "Connection refused" or "refused" in reason for _, reason in waits), waits
    with pytest.raises(PeerLostError, match="the connection was lost"), call(channel) as link:
        link.receive(0, 4)
    channel.close()


def test_a_listener_that_never_speaks_is_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        channel = open_channel(address)
        with pytest.raises(PeerUnreachableError, match=address):
            wait_ready(channel, "dealer", address, 0.5)
        channel.close()


def test_waiting_ends_when_the_peer_comes_up():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    channel = open_channel(address)
    waits = threading.Event()
    waiting = beside(lambda: wait_ready(channel, "server0", address, 20.0, lambda *_: waits.set()))
    assert waits.wait(10)
    server = serve(address, {"Peer": echo}, role="server0")
    waiting.result()
    channel.close()
    server.stop(0)


def test_health_tells_alive_from_ready(running):
    server, channel = running({"Peer": echo})
    address = f"127.0.0.1:{server.port}"
    wait_ready(channel, "server0", address, 5.0)
    with pytest.raises(PeerUnreachableError, match="it answers, but is not ready yet"):
        wait_ready(channel, "server0", address, 0.1, service=READY)
    server.set_ready(True)
    wait_ready(channel, "server0", address, 5.0, service=READY)
    server.set_ready(False)
    with pytest.raises(PeerUnreachableError):
        wait_ready(channel, "server0", address, 0.1, service=READY)


@pytest.mark.parametrize(
    "address",
    ["", "host", "host:", ":7100", "host:port", "host:70000", "a b:1", "http://host:1", "::1:7100", "h:0"],
)
def test_addresses_that_are_none(address):
    with pytest.raises(BadConfigError, match="is no address"):
        open_channel(address)
    if address != "h:0":
        with pytest.raises(BadConfigError, match="is no address"):
            serve(address, {"Peer": echo}, role="server1")


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("server-0.local:65535", ("server-0.local", 65535)),
        ("[::1]:1", ("::1", 1)),
    ],
)
def test_addresses_that_are_some(address, parts):
    assert parse_address(address) == parts
