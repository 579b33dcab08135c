"""When packets leave an emulated link: rate, delay and a queue with an end. Knows no clock and no device."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from secformer_rt.scheduler.network import Network

# What a queue holds beside two bandwidth-delay products, which are small where the round trip is short.
HEADROOM_S = 0.01
HEADROOM_BYTES = 64 << 10


@dataclass(slots=True, eq=False)
class Direction:
    """One direction of a link: packets pass one after the other at the rate, and then travel.

    A packet is delivered whole, when its last byte would have arrived. All travel for the same time, so they
    arrive in the order in which they came.

    ``delay_s`` is one way, ``bytes_per_s`` None is no limit, and a packet that finds more than
    ``limit_bytes`` waiting is dropped.
    """

    delay_s: float
    bytes_per_s: float | None
    limit_bytes: float
    _free_at: float = 0.0  # when the last byte so far will have been sent
    _travelling: deque[tuple[float, bytes]] = field(default_factory=deque)

    @classmethod
    def of(cls, network: Network) -> Direction:
        """Half of the round trip, and a queue of two bandwidth-delay products, which TCP likes to fill."""
        if network.mbit is None:
            return cls(network.rtt_s / 2, None, 0.0)
        rate = network.mbit * 1e6 / 8
        return cls(network.rtt_s / 2, rate, rate * (2 * network.rtt_s + HEADROOM_S) + HEADROOM_BYTES)

    def push(self, packet: bytes, size: int, now: float) -> bool:
        """Take a packet that occupies the link for ``size`` bytes; False if it is dropped."""
        if self.bytes_per_s is None:
            self._travelling.append((now + self.delay_s, packet))
            return True
        starts = max(self._free_at, now)
        if (starts - now) * self.bytes_per_s > self.limit_bytes:
            return False
        self._free_at = starts + size / self.bytes_per_s
        self._travelling.append((self._free_at + self.delay_s, packet))
        return True

    def next_at(self) -> float | None:
        """When the next packet arrives."""
        return self._travelling[0][0] if self._travelling else None

    def pop(self, now: float) -> bytes | None:
        """The next packet, if it has arrived."""
        if self._travelling and self._travelling[0][0] <= now:
            return self._travelling.popleft()[1]
        return None
