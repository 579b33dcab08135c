"""Rate, delay and queue of an emulated link, by a clock that only tests move."""

from __future__ import annotations

import pytest

from secformer_rt.emulation.pacing import HEADROOM_BYTES, HEADROOM_S, Direction
from secformer_rt.scheduler.network import Network


def arrivals(direction: Direction) -> list[tuple[float, bytes]]:
    """All packets on their way, each with the moment at which it arrives and not before."""
    found = []
    while (at := direction.next_at()) is not None:
        assert direction.pop(at - 1e-9) is None
        packet = direction.pop(at)
        assert packet is not None
        found.append((at, packet))
    return found


def test_a_packet_takes_its_size_by_the_rate_and_the_delay() -> None:
    direction = Direction(delay_s=0.5, bytes_per_s=1000.0, limit_bytes=1e6)
    assert direction.next_at() is None
    assert direction.push(b"a", 250, now=10.0)
    assert arrivals(direction) == [(pytest.approx(10.75), b"a")]


def test_packets_pass_one_after_the_other_and_travel_together() -> None:
    direction = Direction(delay_s=7.0, bytes_per_s=1000.0, limit_bytes=1e6)
    for packet in (b"a", b"b", b"c"):
        direction.push(packet, 500, now=0.0)
    assert arrivals(direction) == [
        (pytest.approx(7.5), b"a"),
        (pytest.approx(8.0), b"b"),
        (pytest.approx(8.5), b"c"),
    ]


def test_an_idle_link_saves_nothing_up() -> None:
    direction = Direction(delay_s=0.0, bytes_per_s=1000.0, limit_bytes=1e6)
    direction.push(b"a", 1000, now=0.0)
    direction.push(b"b", 1000, now=100.0)
    direction.push(b"c", 1000, now=100.0)
    assert [at for at, _ in arrivals(direction)] == [pytest.approx(t) for t in (1.0, 101.0, 102.0)]


def test_a_full_queue_drops_the_last_and_recovers() -> None:
    direction = Direction(delay_s=0.0, bytes_per_s=1000.0, limit_bytes=1500.0)
    assert [direction.push(b"x", 1000, now=0.0) for _ in range(4)] == [True, True, False, False]
    assert direction.push(b"y", 1000, now=1.0)
    assert [packet for _, packet in arrivals(direction)] == [b"x", b"x", b"y"]


def test_without_a_rate_there_is_delay_only() -> None:
    direction = Direction.of(Network(name="x", rtt_ms=30))
    assert all(direction.push(b"x", 10**9, now=1.0) for _ in range(3))
    assert [at for at, _ in arrivals(direction)] == [pytest.approx(1.015)] * 3


def test_a_network_is_half_a_round_trip_each_way() -> None:
    direction = Direction.of(Network(name="x", rtt_ms=40, mbit=200))
    assert direction.delay_s == pytest.approx(0.02)
    assert direction.bytes_per_s == pytest.approx(25e6)
    assert direction.limit_bytes == pytest.approx(2e6 + 25e6 * HEADROOM_S + HEADROOM_BYTES)


def test_a_stream_keeps_the_rate() -> None:
    direction = Direction.of(Network(name="x", rtt_ms=4, mbit=80))
    sent = sum(direction.push(b"", 1500, now=number / 1e4) for number in range(10_000))
    last = max(at for at, _ in arrivals(direction))
    assert 1500 * sent / (last - direction.delay_s) == pytest.approx(10e6)
    assert sent < 10_000  # it was offered 15e6 bytes a second
