"""The listening side: accepts streams, makes each a link and runs its handler in a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, cast

import grpc

from secformer_rt.errors import BadCertificateError, PeerUnreachableError, PortInUseError, SecformerError
from secformer_rt.transport.channel import SERVER_OPTIONS, parse_address
from secformer_rt.transport.grpc_link import SERVICE, ListenerStream, check_rpc
from secformer_rt.transport.health import Health
from secformer_rt.transport.identity import Identity
from secformer_rt.transport.link import DEFAULT_TIMEOUT_S, DEFAULT_WINDOW_BYTES, LINGER_S, Link
from secformer_rt.transport.listening import obstacle
from secformer_rt.transport.quota import Quota, caller_of, refuse
from secformer_rt.transport.raw import drain

logger = logging.getLogger(__name__)

_SPARE_THREADS: Final = 8
"""For health checks and for turning away streams beyond the limit."""
_QUEUED: Final = 256
"""Calls that may wait for a thread: those that are turned away come and go at once."""
_QUEUED_EACH: Final = 32
"""The same, of one connection."""
CHECKS_EACH: Final = 2
"""Health checks of one caller at once."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who opened a stream.

    Attributes:
        rpc: The call.
        address: Where from.
        identity: The role of its certificate; None where links are in plain text.
    """

    rpc: str
    address: str
    identity: str | None


Handler = Callable[[Link, Caller], None]
Limited = Callable[[str, str | None], bool]
"""Whether streams of a call, by a caller of this role, count as a client's; None in plain text."""


class PartyServer:
    """A running server; `serve` makes it.

    Attributes:
        port: The port it listens on.
        refused: How many streams were turned away because as many as it takes, or takes from one client,
            were open.
    """

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        *,
        role: str,
        max_streams: int,
        max_streams_each: int | None,
        limited: Limited,
        timeout_s: float,
        handshake_s: float,
        window_bytes: int,
        identity: Identity | None,
    ) -> None:
        self.port = self.refused = 0
        self._identity = identity
        self._handlers = handlers
        self._role = role
        self._timeout_s = timeout_s
        self._window_bytes = window_bytes
        self._free_streams = threading.Semaphore(max_streams)
        threads = max_streams + _SPARE_THREADS
        calls = threads + _QUEUED
        self._limited, self._quota = limited, Quota(max_streams_each or calls)
        self._runs: dict[Link, threading.Thread] = {}
        self._runs_lock = threading.Lock()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="party-server")
        options = (
            *SERVER_OPTIONS,
            ("grpc.max_concurrent_streams", threads + _QUEUED_EACH),  # of one connection
            ("grpc.server_handshake_timeout_ms", int(1000 * handshake_s)),
        )
        self._server = grpc.server(self._pool, options=options, maximum_concurrent_rpcs=calls)
        methods = {check_rpc(rpc).rsplit("/", 1)[1]: self._method(rpc) for rpc in handlers}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        self._health = Health(handshake_s, CHECKS_EACH)
        self._server.add_generic_rpc_handlers((self._health.handler(),))

    def start(self, bind: str) -> None:
        """Listen; see `serve`."""
        host, port = parse_address(bind, listening=True)
        error = obstacle(bind, host, port)
        if error is None:
            try:
                if self._identity is None:
                    self.port = self._server.add_insecure_port(bind)
                else:
                    self.port = self._server.add_secure_port(bind, self._identity.for_server())
            except RuntimeError:
                error = obstacle(bind, host, port) or PortInUseError(f"Nothing can listen on {bind}.")
        if error is not None:
            self._pool.shutdown()
            raise error
        self._server.start()

    def set_ready(self, ready: bool) -> None:
        """Say through the health service whether this party can take a run."""
        self._health.set_ready(ready)

    def stop(self, grace_s: float = 2.0, reason: SecformerError | None = None) -> None:
        """Take no more streams, end the open ones and wait for their handlers, within reason.

        Args:
            grace_s: How long open streams may take to end by themselves.
            reason: Aborts the open streams at once, and tells the peers this.
        """
        self._health.stop()
        stopped = self._server.stop(grace_s)
        with self._runs_lock:
            runs = dict(self._runs)
        if reason is not None:
            for link in runs:
                link.abort(reason)
        stopped.wait()
        self._pool.shutdown()
        ends_at = time.monotonic() + LINGER_S
        for thread in runs.values():
            thread.join(max(0.0, ends_at - time.monotonic()))

    def _method(self, rpc: str) -> grpc.RpcMethodHandler[bytes, bytes]:
        def accept(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            client = self._client(rpc, context)
            if client is not None and not self._quota.take(client):
                with self._runs_lock:
                    self.refused += 1
                refuse(context)
            stream = ListenerStream(requests, context)
            link = Link(
                f"the caller of {rpc}",
                stream,
                role=self._role,
                timeout_s=self._timeout_s,
                window_bytes=self._window_bytes,
            )
            thread = threading.Thread(
                target=self._run, args=(link, rpc, context, client), name=f"{self._role}-{rpc}", daemon=True
            )
            with self._runs_lock:
                self._runs[link] = thread
                thread.start()
            return drain(stream.outbox)

        return grpc.stream_stream_rpc_method_handler(accept)

    def _client(self, rpc: str, context: grpc.ServicerContext) -> str | None:
        """Whose quota a stream counts against; None if it is no client's."""
        try:
            role = self._identify(context)
        except BadCertificateError:  # which the stream will be told
            return caller_of(context)
        return caller_of(context) if self._limited(rpc, role) else None

    def _run(self, link: Link, rpc: str, context: grpc.ServicerContext, client: str | None) -> None:
        try:
            caller = Caller(rpc, context.peer(), self._identify(context))
            link.peer = caller.identity or link.peer
            if not self._free_streams.acquire(blocking=False):
                with self._runs_lock:
                    self.refused += 1
                raise PeerUnreachableError(
                    f"{self._role} has as many streams open as it takes; try again later."
                )
            try:
                self._handlers[caller.rpc](link, caller)
                link.finish()
            finally:
                self._free_streams.release()
        except SecformerError as error:
            link.abort(error)
        except Exception as error:
            # The text of an unexpected exception may quote a secret; its type cannot.
            logger.error("The handler of %s failed (%s).", rpc, type(error).__name__)
            link.abort(error)
        finally:
            link.close()
            if client is not None:
                self._quota.give(client)
            with self._runs_lock:
                self._runs.pop(link, None)

    def _identify(self, context: grpc.ServicerContext) -> str | None:
        if self._identity is None:
            return None
        return self._identity.caller(cast(Mapping[str, Sequence[bytes]], context.auth_context()))


def serve(
    bind: str,
    handlers: Mapping[str, Handler],
    *,
    role: str,
    identity: Identity | None = None,
    max_streams: int = 16,
    max_streams_each: int | None = None,
    limited: Limited = lambda rpc, role: True,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    handshake_s: float = DEFAULT_TIMEOUT_S,
    window_bytes: int = DEFAULT_WINDOW_BYTES,
) -> PartyServer:
    """Listen for peers.

    Each accepted stream runs its handler in a thread of its own. A handler that returns has finished its
    link; one that raises aborts it.

    Args:
        bind: Where to listen; port 0 takes any free one.
        handlers: What to run, by the name of the `Party` call.
        role: The role of this party.
        identity: What this party proves itself with, and callers are held against; None is plain text.
        max_streams: How many streams may be open at once; more are turned away.
        max_streams_each: How many of them one client may have, by its certificate, or by its host in plain
            text; None is all.
        limited: Which streams count as a client's.
        timeout_s: How long a link waits without any progress.
        handshake_s: How long a connection may take to come about, and a health check to ask.
        window_bytes: How far an end may run ahead; see `Link`.

    Returns:
        The running server, not yet ready: see `PartyServer.set_ready`.

    Raises:
        BadConfigError: The address is malformed or not of this machine.
        PortInUseError: Somebody else listens there.
    """
    server = PartyServer(
        handlers,
        role=role,
        max_streams=max_streams,
        max_streams_each=max_streams_each,
        limited=limited,
        timeout_s=timeout_s,
        handshake_s=handshake_s,
        window_bytes=window_bytes,
        identity=identity,
    )
    server.start(bind)
    return server
