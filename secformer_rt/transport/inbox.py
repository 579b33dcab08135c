"""The receiving half of a link: a thread that reads ahead, within bounds, and notices how a stream ends."""

from __future__ import annotations

import threading
import time

from secformer_rt.errors import DesyncError, PeerLostError, SecformerError
from secformer_rt.transport.aborts import decode_abort
from secformer_rt.transport.byte_queue import ByteQueue, Patience
from secformer_rt.transport.frames import Frame, Kind, decode_frame
from secformer_rt.transport.raw import RawStream, StreamBroken
from secformer_rt.transport.traffic import Meter


class Inbox:
    """Frames of the peer in the order in which it sent them, and why there will be no more.

    Attributes:
        peer: The role at the other end, as error sentences name it.
        arrived_at: When the last frame came in, on the monotonic clock.
    """

    def __init__(self, peer: str, raw: RawStream, meter: Meter, limit_bytes: int) -> None:
        self.peer = peer
        self.arrived_at = time.monotonic()
        self._raw = raw
        self._meter = meter
        self._limit_bytes = limit_bytes
        self._frames: ByteQueue[Frame] = ByteQueue()
        self._failure: SecformerError | None = None
        self._failure_lock = threading.Lock()
        self._sequence = 0
        self._reader = threading.Thread(target=self._read, name=f"link-reader-{peer}", daemon=True)
        self._reader.start()

    def take(self, patience: Patience) -> Frame:
        """Take the next frame.

        Raises:
            TimeoutError: The patience ran out.
            SecformerError: There are no more frames, for this reason.
        """
        frame = self._frames.get(patience)
        if frame is None:
            raise self.settled_failure(0)
        self._meter.received(frame.wire_bytes, len(frame.payload) if frame.kind is Kind.DATA else 0)
        return frame

    def fail(self, error: SecformerError) -> None:
        """Drop what has come and let every taker fail; the first failure of an inbox is the one it keeps."""
        self._keep(error)
        self._frames.close(drop=True)

    def settled_failure(self, timeout_s: float) -> SecformerError:
        """Why there will be no more frames, as an error of its own for every thread that raises it.

        Args:
            timeout_s: How long the reader may take to find out; the sending side may have noticed first.
        """
        if self._failure is None:
            self.join(timeout_s)
        error = self._failure or PeerLostError(f"{self.peer} has closed the connection.")
        fresh = type(error)(*error.args)
        fresh.__cause__ = error.__cause__
        return fresh

    def join(self, timeout_s: float) -> None:
        """Wait until the stream has ended and the reader with it."""
        self._reader.join(timeout_s)

    def _read(self) -> None:
        try:
            # What comes after a failure is read and forgotten: the peer must be able to get to its end.
            while (data := self._raw.receive()) is not None:
                self.arrived_at = time.monotonic()
                if self._failure is None:
                    self._accept(data)
            failure: SecformerError = PeerLostError(f"{self.peer} has closed the connection.")
        except StreamBroken as broken:
            failure = broken.error(f"The connection to {self.peer} broke: {broken.reason}")
        except Exception as error:
            failure = PeerLostError(f"Reading from {self.peer} failed ({type(error).__name__}).")
        self._keep(failure)
        self._frames.close()
        self._raw.outbox.close(drop=True)

    def _accept(self, data: bytes) -> None:
        try:
            frame = decode_frame(data)
            if frame.kind is not Kind.ABORT and frame.sequence != self._sequence:
                raise DesyncError(f"Frame {self._sequence} was due, and frame {frame.sequence} came.")
        except DesyncError as error:
            self._keep(DesyncError(f"{self.peer} broke the protocol: {error}"))
            self._frames.close()
            return
        self._sequence += 1
        if frame.kind is Kind.ABORT:
            # Whatever came before it has lost its meaning, so it is heard at once.
            self._meter.received(frame.wire_bytes)
            self.fail(decode_abort(frame.payload, self.peer))
            self._raw.outbox.close(drop=True)
        elif frame.kind is Kind.PROGRESS:
            self._meter.received(frame.wire_bytes)
        elif self._frames.wait_below(self._limit_bytes):
            self._frames.put(frame, len(frame.payload))

    def _keep(self, error: SecformerError) -> None:
        with self._failure_lock:
            if self._failure is None:
                self._failure = error
