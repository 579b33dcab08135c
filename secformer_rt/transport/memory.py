"""Two ends of a link inside one process, for tests: the same frames, without a network."""

from __future__ import annotations

import threading

from secformer_rt.transport.byte_queue import ByteQueue
from secformer_rt.transport.link import DEFAULT_TIMEOUT_S, DEFAULT_WINDOW_BYTES, Link
from secformer_rt.transport.raw import StreamBroken


class MemoryStream:
    """One end of an in-process stream: each end reads what the outbox of the other holds."""

    def __init__(
        self, outbox: ByteQueue[bytes], inbound: ByteQueue[bytes], cancelled: threading.Event
    ) -> None:
        self.outbox = outbox
        self._inbound = inbound
        self._cancelled = cancelled

    def receive(self) -> bytes | None:
        """Block for the next frame; see `RawStream`."""
        frame = self._inbound.get()
        if frame is None and self._cancelled.is_set():
            raise StreamBroken("it was cancelled.")
        return frame

    def cancel(self) -> None:
        """Tear down both directions at both ends."""
        self._cancelled.set()
        self.outbox.close(drop=True)
        self._inbound.close(drop=True)


def memory_streams() -> tuple[MemoryStream, MemoryStream]:
    """Make both ends of an in-process stream."""
    forth: ByteQueue[bytes] = ByteQueue()
    back: ByteQueue[bytes] = ByteQueue()
    cancelled = threading.Event()
    return MemoryStream(forth, back, cancelled), MemoryStream(back, forth, cancelled)


def memory_links(
    party_a: str,
    party_b: str,
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    window_bytes: int = DEFAULT_WINDOW_BYTES,
) -> tuple[Link, Link]:
    """Make both ends of a link.

    Args:
        party_a: The role that holds the first end.
        party_b: The role that holds the second end.
        timeout_s: How long an end waits without any progress.
        window_bytes: How far an end may run ahead of the other.

    Returns:
        The end of `party_a`, whose peer is `party_b`, and the other way round.
    """
    stream_a, stream_b = memory_streams()
    return (
        Link(party_b, stream_a, role=party_a, timeout_s=timeout_s, window_bytes=window_bytes),
        Link(party_a, stream_b, role=party_b, timeout_s=timeout_s, window_bytes=window_bytes),
    )
