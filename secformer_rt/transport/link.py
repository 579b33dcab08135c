"""A link: one ordered, duplex connection to one peer for one run, in whole messages."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Final, Self

import numpy as np
from google.protobuf.message import Message

from secformer_rt.errors import DesyncError, DivergedError, PeerLostError
from secformer_rt.transport import wire_pb2
from secformer_rt.transport.aborts import encode_abort
from secformer_rt.transport.byte_queue import Patience
from secformer_rt.transport.chunks import as_bytes, cut
from secformer_rt.transport.control import MAX_CONTROL_BYTES, MAX_HELLO_BYTES, M, parse, unwrap, wrap
from secformer_rt.transport.frames import Frame, Kind, describe, encode_frame, same_number
from secformer_rt.transport.inbox import Inbox
from secformer_rt.transport.raw import RawStream
from secformer_rt.transport.traffic import Meter, Traffic

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Buffer

DEFAULT_TIMEOUT_S: Final = 30.0
DEFAULT_WINDOW_BYTES: Final = 64 << 20
LINGER_S: Final = 2.0
"""How long a goodbye may take to get through before the stream is torn down."""


class Link:
    """Sends and receives whole messages, each checked against what the plan expects next.

    One thread at a time receives. Sending never waits for the peer to receive, so both ends may send a
    message of any size and receive afterwards; only a sender that runs more than a window ahead waits.
    A link that has raised is good for `abort` and `close` only: the run is over, and so is its randomness.

    Attributes:
        timeout_s: How long neither end may make any progress while one waits for the other.
    """

    def __init__(
        self,
        peer: str,
        raw: RawStream,
        *,
        role: str,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        window_bytes: int = DEFAULT_WINDOW_BYTES,
    ) -> None:
        """Start receiving, in a thread of its own.

        Args:
            peer: The role at the other end.
            raw: What carries the frames.
            role: The role at this end, as the peer should hear it in an abort.
            timeout_s: How long to wait without any progress.
            window_bytes: How far a sender may run ahead, at either end: bytes still queued when the next
                message has to wait, and bytes received and not yet taken when the peer has to wait.
        """
        self.timeout_s = timeout_s
        self._raw = raw
        self._role = role
        self._window_bytes = window_bytes
        self._meter = Meter()
        self._sequence = 0
        self._message_lock = threading.Lock()
        self._frame_lock = threading.Lock()
        self._said_goodbye = False
        self._closed = False
        self._limit_s = self._ends_at = math.inf
        self._inbox = Inbox(peer, raw, self._meter, window_bytes)

    @property
    def peer(self) -> str:
        """The role at the other end, as error sentences name it; set it once the peer has proved it."""
        return self._inbox.peer

    @peer.setter
    def peer(self, role: str) -> None:
        self._inbox.peer = role

    @property
    def traffic(self) -> Traffic:
        """Bytes so far: sent as of the last message queued, received as of the last message taken."""
        return self._meter.read()

    def limit(self, seconds: float) -> None:
        """Wait for this peer so long from now at most, whatever signs of life it gives."""
        self._limit_s, self._ends_at = seconds, time.monotonic() + seconds

    def send(self, tag: int, *buffers: Buffer) -> None:
        """Send one DATA message.

        Args:
            tag: What this message is; the peer must expect the same.
            buffers: C-contiguous buffers, arrays or CPU tensors whose bytes, one after the other, are the
                message. They are copied before the call returns.

        Raises:
            PeerLostError: The peer is gone, or has taken nothing for `timeout_s`.
            SecformerError: The peer has aborted.
        """
        self._send_message(Kind.DATA, tag, [as_bytes(buffer) for buffer in buffers])

    def receive(self, tag: int, nbytes: int) -> memoryview:
        """Receive one DATA message.

        Args:
            tag: What the message must be.
            nbytes: How long it must be.

        Returns:
            Its bytes, to be read only: those of a message in one frame stay where they arrived.

        Raises:
            DesyncError: Anything else has come.
            PeerLostError: The peer is gone, or has made no progress for `timeout_s`.
            SecformerError: The peer has aborted.
        """
        return self._receive_message(Kind.DATA, tag, self._patience(), total=nbytes)

    def receive_into(self, tag: int, target: memoryview) -> None:
        """Receive one DATA message into memory of the caller, all of it; see `receive`."""
        target = target.cast("B") if target.nbytes else memoryview(bytearray())
        self._receive_message(Kind.DATA, tag, self._patience(), target, total=target.nbytes)

    def send_hello(self, hello: wire_pb2.Hello) -> None:
        """Say what this party is about to run."""
        self._send_message(Kind.HELLO, 0, [memoryview(hello.SerializeToString())])

    def receive_hello(self, timeout_s: float | None = None) -> wire_pb2.Hello:
        """Hear what the peer is about to run.

        Args:
            timeout_s: A limit for the whole wait, which no sign of life extends; None waits like `receive`.
        """
        patience = self._patience() if timeout_s is None else Patience(timeout_s)
        data = self._receive_message(Kind.HELLO, 0, patience, limit=MAX_HELLO_BYTES)
        return parse(data, wire_pb2.Hello, self.peer)

    def send_control(self, message: Message) -> None:
        """Send a `Manifest`, `Accepted`, `Report` or `Seed`."""
        self._send_message(Kind.CONTROL, 0, [memoryview(wrap(message))])

    def receive_control(self, expected: type[M], timeout_s: float | None = None) -> M:
        """Receive the control message of a given type, and no other; for the limit see `receive_hello`."""
        patience = self._patience() if timeout_s is None else Patience(timeout_s)
        data = self._receive_message(Kind.CONTROL, 0, patience, limit=MAX_CONTROL_BYTES)
        return unwrap(data, expected, self.peer)

    def progress(self) -> None:
        """Tell the peer that this end is alive; never blocks. For a party that computes, not one that waits.

        It may be called from any thread, in the middle of a message too.
        """
        # Queued frames that move are a sign of life themselves, and frames that do not move need no company.
        if self._raw.outbox.empty:
            self._send_frame(Kind.PROGRESS, 0, 0)

    def abort(self, error: BaseException) -> None:
        """Tell the peer why this end gives up, if it can still be told; never blocks and never raises.

        Everything queued is forgotten, and everybody who waits on this link is released.
        """
        outbox = self._raw.outbox
        payload = encode_abort(error, self._role)
        with self._frame_lock:
            # Whoever was released by a first abort may well abort too; the first goodbye must get through.
            if not self._said_goodbye:
                outbox.clear()
                frame = encode_frame(self._sequence, Kind.ABORT, 0, len(payload), payload)
                if outbox.put(frame, len(frame)):
                    self._meter.sent(len(frame))
                    self._said_goodbye = True
                outbox.close()
        self._inbox.fail(PeerLostError(f"The run with {self.peer} was aborted at this end."))

    def finish(self) -> None:
        """Say that this end has said everything, and wait until the peer has said so too."""
        if self._said_goodbye:
            return
        self._send_frame(Kind.END, 0, 0)
        self._check(self._next_frame(Kind.END, 0, 0, self._patience()), Kind.END, 0, 0)
        self._said_goodbye = True
        self._raw.outbox.close()
        self._inbox.join(LINGER_S)

    def close(self) -> None:
        """Release everything. Without `finish` or `abort` before, the peer sees a broken stream."""
        if self._closed:
            return
        self._closed = True
        self._raw.outbox.close(drop=not self._said_goodbye)
        self._inbox.fail(PeerLostError(f"The link to {self.peer} has been closed at this end."))
        if self._said_goodbye:
            self._inbox.join(LINGER_S)
        self._raw.cancel()
        self._inbox.join(LINGER_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.abort(error)
        self.close()

    def _patience(self) -> Patience:
        progress_at = lambda: max(self._inbox.arrived_at, self._raw.outbox.drained_at)  # noqa: E731 - one use
        return Patience(self.timeout_s, progress_at, self._ends_at)

    def _late(self, otherwise: str) -> PeerLostError:
        """Why a wait has ended: by the limit, or otherwise."""
        if time.monotonic() < self._ends_at:
            return PeerLostError(otherwise)
        return PeerLostError(
            f"{self.peer} has not ended its run within {self._limit_s:g} s: ask for less at once, or raise"
            " timeouts.run_s."
        )

    def _send_message(self, kind: Kind, tag: int, views: list[memoryview]) -> None:
        total = sum(view.nbytes for view in views)
        with self._message_lock:
            try:
                self._raw.outbox.wait_below(self._window_bytes, self._patience())
            except TimeoutError:
                raise self._late(
                    f"{self.peer} has taken nothing for {self.timeout_s:g} s"
                    f" while {describe(kind, tag, total)} waited to be sent."
                ) from None
            for chunk in cut(views):
                self._send_frame(kind, tag, total, *chunk)

    def _send_frame(self, kind: Kind, tag: int, total: int, *chunk: memoryview) -> None:
        is_sign_of_life = kind is Kind.PROGRESS
        with self._frame_lock:
            frame = encode_frame(self._sequence, kind, tag, total, *chunk)
            # A sign of life that leaves says nothing about the peer, so it does not count as progress here.
            if self._raw.outbox.put(frame, 0 if is_sign_of_life else len(frame)):
                self._sequence += 1
                self._meter.sent(len(frame), sum(map(len, chunk)) if kind is Kind.DATA else 0)
                return
        if not is_sign_of_life:
            raise self._inbox.settled_failure(LINGER_S)

    def _next_frame(self, kind: Kind, tag: int, total: int | None, patience: Patience) -> Frame:
        try:
            return self._inbox.take(patience)
        except TimeoutError:
            awaited = describe(kind, tag, total)
            raise self._late(
                f"{self.peer} has shown no progress for {patience.timeout_s:g} s while {awaited} was awaited."
            ) from None

    def _receive_message(
        self,
        kind: Kind,
        tag: int,
        patience: Patience,
        target: memoryview | None = None,
        *,
        total: int | None = None,
        limit: int = 0,
    ) -> memoryview:
        position = 0
        while True:
            frame = self._next_frame(kind, tag, total, patience)
            self._check(frame, kind, tag, total)
            if target is None:
                if total is None and frame.total > limit:
                    raise DesyncError(f"{self.peer} sent {frame}, where {limit} bytes are the limit.")
                total = frame.total
                if len(frame.payload) == total:
                    return frame.payload
                target = np.empty(total, dtype=np.uint8).data
            end = position + len(frame.payload)
            if end > target.nbytes or (target.nbytes and not frame.payload):
                raise DesyncError(f"{self.peer} cut {frame} into chunks that do not add up.")
            target[position:end] = frame.payload
            position = end
            if position == target.nbytes:
                return target

    def _check(self, frame: Frame, kind: Kind, tag: int, total: int | None) -> None:
        is_it = frame.kind is kind and (total is None or frame.total == total)
        if is_it and frame.tag != tag and same_number(frame.tag, tag):
            raise DivergedError(f"{self.peer} has opened other values than this end before it sent {frame}.")
        if not is_it or frame.tag != tag:
            raise DesyncError(
                f"{describe(kind, tag, total)} was expected of {self.peer}, which sent {frame};"
                " the two do not follow the same plan."
            )
