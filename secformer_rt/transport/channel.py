"""The way to a peer: addresses, channel options, and waiting until somebody answers."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Final

import grpc
from grpc_health.v1 import health_pb2

from secformer_rt.errors import BadConfigError, PeerUnreachableError, SecformerError
from secformer_rt.transport.frames import CHUNK_BYTES

MAX_MESSAGE_BYTES: Final = CHUNK_BYTES + (64 << 10)
READY: Final = "ready"
"""The health service that says a party can take a run; the empty name says that it is alive."""

_COMMON_OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # Without this one a frozen peer is noticed after a minute, whatever the two above say.
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
)
CHANNEL_OPTIONS: Final = (
    *_COMMON_OPTIONS,
    ("grpc.keepalive_permit_without_calls", 1),
    # A retried stream would replay masked shares.
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Shares go to the peer and nowhere else, whatever the environment says about proxies.
    ("grpc.enable_http_proxy", 0),
    # Two runs of one process must not find each other's connections in the pool.
    ("grpc.use_local_subchannel_pool", 1),
)
SERVER_OPTIONS: Final = (
    *_COMMON_OPTIONS,
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    # On a busy machine pings come late and then close together: that is no reason to cut a run off.
    ("grpc.http2.max_ping_strikes", 0),
    # A second process on the same port must fail, not share it.
    ("grpc.so_reuseport", 0),
)

_ADDRESS: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})")
_CHECK: Final = f"/{health_pb2.DESCRIPTOR.services_by_name['Health'].full_name}/Check"
_POLL_S: Final = 0.2
_ATTEMPT_S: Final = 2.0


def parse_address(address: str, *, listening: bool = False) -> tuple[str, int]:
    """Split `host:port`.

    Args:
        address: A host name, an IPv4 address or an IPv6 address in brackets, and a port.
        listening: Whether port 0, "any free one", makes sense.

    Returns:
        Host, without brackets, and port.

    Raises:
        BadConfigError: The address is no such thing.
    """
    match = _ADDRESS.fullmatch(address)
    port = int(match["port"]) if match else -1
    if not match or port > 65535 or (port == 0 and not listening):
        raise BadConfigError(f"{address!r} is no address; write host:port, such as 127.0.0.1:7100.")
    return match["host"].strip("[]"), port


def open_channel(
    address: str, credentials: grpc.ChannelCredentials | None = None, *, server_name: str | None = None
) -> grpc.Channel:
    """Open a channel; it connects when the first call is made.

    Args:
        address: Where the peer listens.
        credentials: TLS credentials; None is plaintext.
        server_name: The name that the peer's certificate must bear, where it is not the host name.

    Returns:
        The channel; one serves all links to this peer.

    Raises:
        BadConfigError: The address is malformed.
    """
    parse_address(address)
    options: list[tuple[str, int | str]] = list(CHANNEL_OPTIONS)
    if credentials is None:
        return grpc.insecure_channel(address, options=options)
    if server_name is not None:
        options.append(("grpc.ssl_target_name_override", server_name))
    return grpc.secure_channel(address, credentials, options=options)


def health_check(
    channel: grpc.Channel,
) -> grpc.UnaryUnaryMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]:
    """The standard health check of the peer that a channel leads to."""
    return channel.unary_unary(
        _CHECK,
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )


def wait_ready(
    channel: grpc.Channel,
    peer: str,
    address: str,
    timeout_s: float,
    on_wait: Callable[[float, str], None] | None = None,
    *,
    service: str = "",
    diagnose: Callable[[], SecformerError | None] | None = None,
) -> None:
    """Wait until a peer answers its health check.

    Args:
        channel: The way to the peer.
        peer: Its role, for error sentences.
        address: Where it should listen, for error sentences.
        timeout_s: How long to try.
        on_wait: Called after every failed attempt with the seconds waited so far and the reason.
        service: The health service to ask for: empty for alive, `READY` for able to take a run.
        diagnose: Asked when somebody listens but the connection fails: what it finds, waiting does not mend.

    Raises:
        PeerUnreachableError: The peer has not answered in time.
        SecformerError: What `diagnose` has found.
    """
    check = health_check(channel)
    started_at = time.monotonic()
    while True:
        elapsed_s = time.monotonic() - started_at
        attempt_s = max(0.05, min(_ATTEMPT_S, timeout_s - elapsed_s))
        try:
            answer = check(health_pb2.HealthCheckRequest(service=service), timeout=attempt_s)
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return
            reason = "it answers, but is not ready yet"
        except grpc.RpcError as error:
            reason = _reason(error)
            if diagnose is not None and _is_about_connecting(error, reason) and (found := diagnose()):
                raise found from None
        elapsed_s = time.monotonic() - started_at
        if elapsed_s >= timeout_s:
            raise PeerUnreachableError(
                f"{peer} at {address} could not be reached within {timeout_s:g} s ({reason});"
                " is it running, and is the address right?"
            )
        if on_wait is not None:
            on_wait(elapsed_s, reason)
        time.sleep(min(_POLL_S, timeout_s - elapsed_s))


def _is_about_connecting(error: grpc.RpcError, reason: str) -> bool:
    """Whether somebody listens, but no connection comes about."""
    unavailable = isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.UNAVAILABLE
    return unavailable and "refused" not in reason


def _reason(error: grpc.RpcError) -> str:
    if not isinstance(error, grpc.Call):
        return type(error).__name__
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "no answer"
    details = " ".join((error.details() or error.code().name).split())
    # The core's sentence repeats itself; what went wrong stands at its end.
    for lead in ("last error: ", "Failed to connect to remote host: "):
        details = details.rsplit(lead, 1)[-1]
    return details[:200]
