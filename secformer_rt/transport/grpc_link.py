"""Links over gRPC: one bidirectional stream of raw frames per link."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import grpc

from secformer_rt.errors import (
    BadCertificateError,
    BadConfigError,
    DesyncError,
    MismatchError,
    PeerLostError,
    PeerUnreachableError,
    SecformerError,
)
from secformer_rt.transport import wire_pb2
from secformer_rt.transport.byte_queue import ByteQueue
from secformer_rt.transport.link import DEFAULT_TIMEOUT_S, DEFAULT_WINDOW_BYTES, Link
from secformer_rt.transport.quota import REFUSAL
from secformer_rt.transport.raw import StreamBroken, drain

SERVICE: Final = wire_pb2.DESCRIPTOR.services_by_name["Party"].full_name
RPC_NAMES: Final = tuple(method.name for method in wire_pb2.DESCRIPTOR.services_by_name["Party"].methods)

_REASONS: Final[dict[grpc.StatusCode, tuple[str, type[SecformerError]]]] = {
    grpc.StatusCode.UNAVAILABLE: ("the connection was lost.", PeerLostError),
    grpc.StatusCode.CANCELLED: ("it was cancelled.", PeerLostError),
    grpc.StatusCode.UNIMPLEMENTED: (
        "the peer does not offer this call; compare the versions.",
        MismatchError,
    ),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (
        "the peer has as many calls open as it takes.",
        PeerUnreachableError,
    ),
}
_NO_TLS: Final = ("TLS failed; `secformer-rt health` says why.", BadCertificateError)
_TLS_SIGNS: Final = ("SSL_ERROR_SSL", "Verification Check failed")
_NO_PONG: Final = ("it has not answered a ping in time.", PeerLostError)
_PING_SIGNS: Final = ("ping timeout", "keepalive timeout")
_QUOTA: Final = (
    "this client has as many calls open there as one may, streams_per_client; try again when one has ended.",
    PeerUnreachableError,
)
_OVERSIZE: Final = ("a frame was larger than the protocol allows.", DesyncError)


def check_rpc(rpc: str) -> str:
    """Return the full method name of one of the `Party` calls."""
    if rpc not in RPC_NAMES:
        raise BadConfigError(f"{rpc!r} is no call of {SERVICE}; it has {', '.join(RPC_NAMES)}.")
    return f"/{SERVICE}/{rpc}"


class CallerStream:
    """The caller's end of a stream."""

    def __init__(self, start: Callable[[Iterator[bytes]], grpc.CallIterator[bytes]]) -> None:
        self.outbox: ByteQueue[bytes] = ByteQueue()
        self._call = start(drain(self.outbox))
        self._responses = iter(self._call)

    def receive(self) -> bytes | None:
        """Block for the next frame; see `RawStream`."""
        try:
            return next(self._responses, None)
        except grpc.RpcError:
            raise _explain(self._call.code(), self._call.details() or "") from None

    def cancel(self) -> None:
        """Tear the stream down; see `RawStream`."""
        self.outbox.close(drop=True)
        self._call.cancel()  # type: ignore[no-untyped-call]


class ListenerStream:
    """The listener's end of a stream: `drain(outbox)` is what its handler must return to gRPC."""

    def __init__(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> None:
        self.outbox: ByteQueue[bytes] = ByteQueue()
        self._requests = requests
        self._context = context
        # The reader may be held up by back-pressure when the call ends, and gRPC waits for its iterator.
        context.add_callback(lambda: self.outbox.close(drop=True))

    def receive(self) -> bytes | None:
        """Block for the next frame; see `RawStream`."""
        try:
            return next(self._requests, None)
        except grpc.RpcError:
            raise StreamBroken("the peer went away.") from None

    def cancel(self) -> None:
        """Tear the stream down; see `RawStream`."""
        self.outbox.close(drop=True)
        self._context.cancel()  # type: ignore[no-untyped-call]


def _explain(code: grpc.StatusCode, details: str) -> StreamBroken:
    # The core uses one code for several things and tells them apart only in words.
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return StreamBroken(*_OVERSIZE)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and REFUSAL in details:
        return StreamBroken(*_QUOTA)
    if code is grpc.StatusCode.UNAVAILABLE and any(sign in details for sign in _TLS_SIGNS):
        return StreamBroken(*_NO_TLS)
    if code is grpc.StatusCode.UNAVAILABLE and any(sign in details for sign in _PING_SIGNS):
        return StreamBroken(*_NO_PONG)
    return StreamBroken(*_REASONS.get(code, (f"gRPC says {code.name}.", PeerLostError)))


def connect(
    channel: grpc.Channel,
    rpc: str,
    *,
    role: str,
    peer: str,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    window_bytes: int = DEFAULT_WINDOW_BYTES,
) -> Link:
    """Open a link by calling a peer.

    Args:
        channel: The way to the peer, from `open_channel`.
        rpc: Which of the `Party` calls to make.
        role: The role at this end.
        peer: The role at the other end.
        timeout_s: How long to wait without any progress.
        window_bytes: How far an end may run ahead; see `Link`.

    Returns:
        The link. That nobody answers shows at its first use.
    """
    call = channel.stream_stream(check_rpc(rpc), request_serializer=None, response_deserializer=None)
    stream = CallerStream(call)
    return Link(peer, stream, role=role, timeout_s=timeout_s, window_bytes=window_bytes)
