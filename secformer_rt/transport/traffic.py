"""What went over a link, in bytes."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from secformer_rt.transport.frames import GRPC_PREFIX_BYTES


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes over one link, or over several, as one end of it sees them.

    Payload counts the DATA messages alone, as the plan does. Wire counts every frame of every kind as
    serialised, with gRPC's prefix; HTTP/2, TLS and TCP come on top.
    """

    payload_sent: int = 0
    payload_received: int = 0
    wire_sent: int = 0
    wire_received: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.payload_sent + other.payload_sent,
            self.payload_received + other.payload_received,
            self.wire_sent + other.wire_sent,
            self.wire_received + other.wire_received,
        )

    def __sub__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.payload_sent - other.payload_sent,
            self.payload_received - other.payload_received,
            self.wire_sent - other.wire_sent,
            self.wire_received - other.wire_received,
        )


class Meter:
    """Counts frames as they are handed over, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._payload_sent = self._payload_received = 0
        self._wire_sent = self._wire_received = 0

    def sent(self, frame_bytes: int, payload_bytes: int = 0) -> None:
        """Count a frame that was queued for the peer."""
        with self._lock:
            self._wire_sent += frame_bytes + GRPC_PREFIX_BYTES
            self._payload_sent += payload_bytes

    def received(self, frame_bytes: int, payload_bytes: int = 0) -> None:
        """Count a frame of the peer that was taken."""
        with self._lock:
            self._wire_received += frame_bytes + GRPC_PREFIX_BYTES
            self._payload_received += payload_bytes

    def read(self) -> Traffic:
        """Take all four counts at one moment."""
        with self._lock:
            return Traffic(self._payload_sent, self._payload_received, self._wire_sent, self._wire_received)
