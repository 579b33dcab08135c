"""The process that carries packets between devices: ``python -m secformer_rt.emulation.relay``.

Its arguments, in JSON, are the network that every link is, and the two descriptors of each. It ends when its
standard input does.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from secformer_rt.emulation.pacing import Direction
from secformer_rt.emulation.tun import MAX_PACKET, wire_size
from secformer_rt.scheduler.network import Network

READS = 16  # from one device before the others have their turn
SPIN_S = 60e-6  # before a packet arrives: what a processor takes to wake up


@dataclass(frozen=True, slots=True, eq=False)
class Hop:
    """One direction of a link, and the devices at its ends."""

    source: int
    target: int
    direction: Direction

    def take(self, now: Callable[[], float]) -> None:
        """Read what the source has sent."""
        with suppress(BlockingIOError):
            for _ in range(READS):
                packet = os.read(self.source, MAX_PACKET)
                self.direction.push(packet, wire_size(packet), now())

    def deliver(self, now: float) -> None:
        """Write what has arrived."""
        while (packet := self.direction.pop(now)) is not None:
            # A device that takes no more drops, as a network card would.
            with suppress(BlockingIOError):
                os.write(self.target, packet)


def next_timeout(hops: Sequence[Hop], now: float) -> float | None:
    """Seconds to sleep before a packet arrives somewhere, or None if none is on its way."""
    times = [at for hop in hops if (at := hop.direction.next_at()) is not None]
    return max(0.0, min(times) - now - SPIN_S) if times else None


def relay(hops: Sequence[Hop], stop: int, now: Callable[[], float] = time.monotonic) -> None:
    """Carry packets until the descriptor ``stop`` is readable."""
    sources = {hop.source: hop for hop in hops}
    while True:
        # select, since poll and epoll wait in whole milliseconds.
        readable, _, _ = select.select([stop, *sources], [], [], next_timeout(hops, now()))
        if stop in readable:
            return
        for source in readable:
            sources[source].take(now)
        for hop in hops:
            hop.deliver(now())


def link_hops(first: int, second: int, network: Network) -> tuple[Hop, Hop]:
    """Both directions between two devices."""
    return (
        Hop(first, second, Direction.of(network)),
        Hop(second, first, Direction.of(network)),
    )


def main() -> None:
    """Carry packets between the devices of the command line."""
    network, links = Network.model_validate_json(sys.argv[1]), json.loads(sys.argv[2])
    # A network does not wait for the processors of those that it connects. Where that is not allowed,
    # packets are late when parties compute.
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    relay([hop for first, second in links for hop in link_hops(first, second, network)], sys.stdin.fileno())


if __name__ == "__main__":
    main()
