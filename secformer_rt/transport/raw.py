"""The little that a link needs of whatever carries its frames."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from secformer_rt.errors import PeerLostError, SecformerError
from secformer_rt.transport.byte_queue import ByteQueue


class StreamBroken(Exception):  # noqa: N818 - an event between two rooms, turned into an error by the link
    """A stream ended otherwise than its peer meant it to; the text says how, as the end of a sentence."""

    def __init__(self, reason: str, error: type[SecformerError] = PeerLostError) -> None:
        super().__init__(reason)
        self.reason = reason
        self.error = error


class RawStream(Protocol):
    """Ordered, reliable frames in both directions.

    `outbox` holds the frames that are still to be sent; the carrier drains it, and closing it ends our
    direction once it is empty.
    """

    outbox: ByteQueue[bytes]

    def receive(self) -> bytes | None:
        """Block for the next frame; None when the peer has ended its direction in good order.

        Raises:
            StreamBroken: The stream ended in any other way, `cancel` included.
        """

    def cancel(self) -> None:
        """Tear the stream down now, in both directions, and release `receive`."""


def drain(outbox: ByteQueue[bytes]) -> Iterator[bytes]:
    """Yield the frames of an outbox until it is closed; closes it when the carrier stops asking."""
    try:
        while (frame := outbox.get()) is not None:
            yield frame
    finally:
        outbox.close(drop=True)
