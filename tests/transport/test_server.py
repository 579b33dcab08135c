"""Listening: handlers, limits, ports, and leaving nothing behind."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time

import grpc
import pytest

from secformer_rt.errors import (
    BadConfigError,
    DesyncError,
    MismatchError,
    PeerLostError,
    PeerUnreachableError,
    PortInUseError,
    SecformerError,
)
from secformer_rt.transport.channel import open_channel, wait_ready
from secformer_rt.transport.grpc_link import SERVICE, CallerStream
from secformer_rt.transport.server import serve
from tests.transport.harness import beside, call, echo, eventually


def test_a_handler_that_returns_has_finished(running):
    _, channel = running({"Peer": echo})
    for _ in range(3):
        with call(channel) as link:
            link.send(0, b"ping")
            assert bytes(link.receive(1, 4)) == b"ping"
            link.finish()


def test_several_links_share_a_channel(running):
    _, channel = running({"Peer": echo, "Supply": echo})
    links = [call(channel, rpc) for rpc in ("Peer", "Supply") * 3]
    for link in links:
        link.send(0, b"ping")
    for link in links:
        assert bytes(link.receive(1, 4)) == b"ping"
        link.finish()
        link.close()


def test_a_handler_that_raises_aborts(running):
    def refuse(link, caller):
        raise MismatchError("the presets differ")

    _, channel = running({"Peer": refuse})
    with (
        pytest.raises(MismatchError, match="server0 stopped the run: the presets differ"),
        call(channel) as link,
    ):
        link.receive(0, 4)


def test_an_unexpected_exception_keeps_its_text(running, caplog):
    def stumble(link, caller):
        raise ValueError("secret share 1234")

    _, channel = running({"Peer": stumble})
    caplog.set_level(logging.DEBUG)
    with pytest.raises(SecformerError, match="it failed unexpectedly"), call(channel) as link:
        link.receive(0, 4)
    assert "The handler of Peer failed (ValueError)." in caplog.text
    assert "1234" not in caplog.text


def test_the_handler_learns_of_an_abort(running):
    heard = []

    def listen(link, caller):
        try:
            link.receive(0, 4)
        except SecformerError as error:
            heard.append(error)
            raise

    _, channel = running({"Infer": listen})
    with call(channel, "Infer") as link:
        link.abort(MismatchError("never mind"))
    assert eventually(lambda: heard)
    assert isinstance(heard[0], MismatchError)
    assert str(heard[0]) == "the caller of Infer stopped the run: never mind"


def test_too_many_streams_are_turned_away(running):
    release = threading.Event()
    _, channel = running({"Peer": lambda link, caller: (link.send(0), release.wait(10))}, max_streams=2)
    links = [call(channel) for _ in range(2)]
    for link in links:
        link.receive(0, 0)
    with (
        pytest.raises(PeerUnreachableError, match="as many streams open as it takes"),
        call(channel) as third,
    ):
        third.receive(0, 0)
    release.set()
    for link in links:
        link.finish()
        link.close()
    with call(channel) as again:
        again.receive(0, 0)
        again.finish()


def test_a_storm_of_streams_is_turned_away(running):
    release = threading.Event()
    server, channel = running({"Peer": lambda link, caller: release.wait(10)}, max_streams=1)
    links = [call(channel) for _ in range(20)]
    outcomes = [beside(lambda link=link: link.receive(0, 0)) for link in links]
    refused = sum(1 for outcome in outcomes if eventually(lambda o=outcome: o.results, 2.0))
    assert refused == 19
    for outcome in outcomes:
        if outcome.results:
            assert isinstance(outcome.results[0], PeerUnreachableError)
    release.set()
    for link in links:
        link.close()
    assert server.port


def test_a_call_that_the_peer_does_not_offer(running):
    _, channel = running({"Peer": echo})
    with pytest.raises(MismatchError, match="does not offer this call"), call(channel, "Supply") as link:
        link.receive(0, 4)


def test_a_call_that_does_not_exist(running):
    _, channel = running({"Peer": echo})
    with pytest.raises(BadConfigError, match="'Gossip' is no call"):
        call(channel, "Gossip")
    with pytest.raises(BadConfigError, match="'Gossip' is no call"):
        serve("127.0.0.1:0", {"Gossip": echo}, role="server0")


def test_an_oversize_message_is_refused_by_the_listener(running):
    _, channel = running({"Peer": echo})
    raw = CallerStream(
        grpc.insecure_channel(f"127.0.0.1:{running({'Peer': echo})[0].port}").stream_stream(
            f"/{SERVICE}/Peer", request_serializer=None, response_deserializer=None
        )
    )
    frame = bytes(3 << 20)
    raw.outbox.put(frame, len(frame))
    with pytest.raises(Exception, match="larger than the protocol allows") as caught:
        raw.receive()
    assert caught.value.error is DesyncError
    raw.cancel()
    with call(channel) as link:
        link.send(0, b"ping")
        link.receive(1, 4)
        link.finish()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_a_port_that_is_taken(running, host):
    server, _ = running({"Peer": echo})
    with pytest.raises(PortInUseError, match=rf"{host}:{server.port} is taken"):
        serve(f"{host}:{server.port}", {"Peer": echo}, role="server1")


def test_a_port_that_a_stranger_has_taken():
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        bind = f"127.0.0.1:{stranger.getsockname()[1]}"
        with pytest.raises(PortInUseError, match="is taken"):
            serve(bind, {"Peer": echo}, role="server1")


@pytest.mark.parametrize("bind", ["192.0.2.1:0", "no.such.host.invalid:7100"])
def test_an_address_of_another_machine(bind):
    with pytest.raises(BadConfigError, match="cannot listen on"):
        serve(bind, {"Peer": echo}, role="server1")


def test_stopping_tells_the_callers_why(running):
    server, channel = running({"Peer": lambda link, caller: link.receive(0, 4)})
    link = call(channel)
    waiting = beside(lambda: link.receive(0, 4))
    assert eventually(lambda: server._runs)
    server.stop(2.0, SecformerError("server0 is being stopped"))
    with pytest.raises(SecformerError, match="server0 stopped the run: server0 is being stopped"):
        waiting.result()
    link.close()


def test_stopping_without_a_reason_loses_the_callers(running):
    lost = []

    def wait(link, caller):
        try:
            link.receive(0, 4)
        except SecformerError as error:
            lost.append(error)

    server, channel = running({"Peer": wait})
    link = call(channel)
    assert eventually(lambda: server._runs)
    server.stop(0)
    with pytest.raises(PeerLostError):
        link.receive(0, 4)
    link.close()
    assert isinstance(lost[0], PeerLostError)


def test_stopping_does_not_wait_for_a_handler_that_is_held_back(running):
    entered = threading.Event()
    release = threading.Event()

    def busy(link, caller):
        entered.set()
        release.wait(20)

    server, channel = running({"Peer": busy}, window_bytes=1 << 20)
    link = call(channel)
    link.send(0, bytes(8 << 20))
    assert entered.wait(10)
    stopping = beside(lambda: server.stop(0.2))
    assert eventually(lambda: stopping.results, 5.0)
    release.set()
    link.close()


def test_nothing_is_left_behind():
    before = set(threading.enumerate())
    server = serve("127.0.0.1:0", {"Peer": echo}, role="server0")
    channel = open_channel(f"127.0.0.1:{server.port}")
    wait_ready(channel, "server0", f"127.0.0.1:{server.port}", 5.0)
    for ending in ("finish", "abort", "close", "error"):
        link = call(channel)
        link.send(0, b"ping")
        link.receive(1, 4)
        if ending == "finish":
            link.finish()
        elif ending == "abort":
            link.abort(MismatchError("no"))
        elif ending == "error":
            with pytest.raises(DesyncError):
                link.receive(1, 4)
        link.close()
    channel.close()
    server.stop(1.0)
    assert eventually(lambda: set(threading.enumerate()) <= before), set(threading.enumerate()) - before


def test_a_killed_peer_is_lost_at_once():
    program = (
        "import sys; from secformer_rt.transport.server import serve\n"
        "server = serve('127.0.0.1:0', {'Peer': lambda link, caller: link.receive(0, 4)}, role='server0')\n"
        "print(server.port, flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert process.stdin
    assert process.stdout
    address = f"127.0.0.1:{int(process.stdout.readline())}"
    channel = open_channel(address)
    wait_ready(channel, "server0", address, 10.0)
    link = call(channel)
    waiting = beside(lambda: link.receive(0, 4))
    time.sleep(0.1)
    process.kill()
    with pytest.raises(PeerLostError, match="connection to server0 broke"):
        waiting.result()
    link.close()
    channel.close()
    process.communicate()
