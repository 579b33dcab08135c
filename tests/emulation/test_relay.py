"""Packets from device to device; sockets stand in for devices."""

from __future__ import annotations

import os
import socket
import struct
import threading

import pytest

from secformer_rt.emulation.pacing import Direction
from secformer_rt.emulation.relay import SPIN_S, Hop, link_hops, next_timeout, relay
from secformer_rt.emulation.tun import wire_size
from secformer_rt.scheduler.network import Network


def packet(payload: int, segment: int) -> bytes:
    """IPv4 and TCP with 12 bytes of options, as a device hands it over; ``segment`` 0 is a whole packet."""
    offloads = struct.pack("=BBHHHH", 1, 1 if segment else 0, 52, segment, 20, 16)
    return offloads + bytes(20) + bytes(12) + bytes([8 << 4]) + bytes(19) + bytes(payload)


@pytest.mark.parametrize(
    ("payload", "segment", "packets"),
    [(0, 0, 1), (1448, 0, 1), (1448, 1448, 1), (1449, 1448, 2), (14480, 1448, 10)],
)
def test_every_packet_of_a_segmented_one_has_headers(payload: int, segment: int, packets: int) -> None:
    assert wire_size(packet(payload, segment)) == payload + 52 * packets


def test_both_directions_are_carried_until_the_input_ends() -> None:
    near, first = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    far, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    stop, alive = os.pipe()
    with near, first, far, second:
        for device in (first, second):
            device.setblocking(False)
        hops = link_hops(first.fileno(), second.fileno(), Network(name="x", rtt_ms=0))
        carrying = threading.Thread(target=relay, args=(hops, stop, lambda: 0.0))
        carrying.start()
        for here, there in ((near, far), (far, near)):
            sent = [packet(n, 0) for n in range(40)]
            there.settimeout(60)
            for one in sent:
                here.send(one)
                assert there.recv(2000) == one
        os.close(alive)
        carrying.join()
    os.close(stop)


def test_the_next_packet_of_all_ends_the_wait() -> None:
    hops = [Hop(0, 0, Direction(delay, None, 0.0)) for delay in (3.0, 2.0, 9.0)]
    assert next_timeout(hops, 0.0) is None
    for hop in hops:
        hop.direction.push(b"", 1, 0.0)
    assert next_timeout(hops, 0.5) == pytest.approx(1.5 - SPIN_S)
    assert next_timeout(hops, 2.0 - SPIN_S / 2) == 0.0
    assert next_timeout(hops, 5.0) == 0.0
