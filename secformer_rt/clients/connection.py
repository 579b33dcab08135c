"""A client's connection to both compute servers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from types import TracebackType
from typing import Self

from secformer_rt.errors import DesyncError
from secformer_rt.parties.access import Access
from secformer_rt.parties.dealer import SERVERS
from secformer_rt.parties.logs import bound, say, short
from secformer_rt.parties.manifest import Manifest, Purpose, compare, make_hello
from secformer_rt.parties.report import PartyReport, Progress
from secformer_rt.parties.run_ids import fresh_run_id
from secformer_rt.parties.server import CLIENTS
from secformer_rt.parties.settings import Settings
from secformer_rt.transport import wire_pb2
from secformer_rt.transport.channel import READY
from secformer_rt.transport.grpc_link import connect
from secformer_rt.transport.link import Link

logger = logging.getLogger(__name__)

OnWait = Callable[[str, float, str], None]


class Servers:
    """Channels to both compute servers for each role that this client has; use it as a context manager."""

    def __init__(self, settings: Settings, roles: Sequence[str] = CLIENTS) -> None:
        """Read the certificates; channels connect when they are used.

        Raises:
            BadCertificateError: a role's certificate is missing or of no use.
        """
        self._settings = settings
        self._access = {role: Access(settings, role) for role in roles}
        self._channels = {
            role: tuple(access.open(server) for server in SERVERS) for role, access in self._access.items()
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all channels."""
        for channels in self._channels.values():
            for channel in channels:
                channel.close()

    def wait_ready(self, on_wait: OnWait | None = None) -> None:
        """Wait until both servers can take a run.

        Raises:
            PeerUnreachableError: one cannot within ``connect_s``.
            BadCertificateError: a server refuses this client's certificate, or shows a wrong one.
        """
        for role, access in self._access.items():
            for server, channel in zip(SERVERS, self._channels[role], strict=True):
                notice = partial(on_wait, server) if on_wait else None
                access.wait(channel, server, on_wait=notice, service=READY)

    @contextmanager
    def call(
        self,
        rpc: str,
        role: str,
        purpose: Purpose,
        description: bytes,
        manifest: Manifest | None = None,
        plan: bytes = b"",
        run_id: bytes | None = None,
    ) -> Iterator[tuple[tuple[Link, Link], bytes]]:
        """Open a run with both servers: their links and the run's id, after all have agreed.

        Raises:
            MismatchError: a server is about to run something else.
            SecformerError: a server has refused.
        """
        run_id = run_id or fresh_run_id()
        began = time.perf_counter()
        with ExitStack() as stack:
            stack.enter_context(bound(role=role, run=short(run_id), operation=purpose))
            mine = make_hello(role, run_id, purpose, manifest, plan)
            links = tuple(self._open(stack, i, rpc, role) for i in (0, 1))
            try:
                for link in links:
                    link.send_hello(mine)
                    link.send_control(wire_pb2.Manifest(json=description))
                if purpose != "describe":
                    for link in links:
                        compare(mine, link.receive_hello(), link.peer)
                yield (links[0], links[1]), run_id
                for link in links:
                    link.finish()
                seconds, total = time.perf_counter() - began, links[0].traffic + links[1].traffic
                sizes = {"sent_bytes": total.payload_sent, "received_bytes": total.payload_received}
                say(logger, "done", logging.INFO, seconds=seconds, **sizes)
            except BaseException as error:
                for link in links:
                    link.abort(error)
                raise

    def _open(self, stack: ExitStack, index: int, rpc: str, role: str) -> Link:
        wait_s = self._settings.timeouts.progress_s
        link = connect(self._channels[role][index], rpc, role=role, peer=SERVERS[index], timeout_s=wait_s)
        stack.callback(link.close)
        return link


def await_report(link: Link, on_progress: Callable[[Progress], None] | None = None) -> PartyReport:
    """Pass progress messages on until the report of the run comes."""
    while True:
        data = link.receive_control(wire_pb2.Report).json
        try:
            if b'"phase"' in data[:16]:
                progress = Progress.model_validate_json(data)
                if on_progress is not None:
                    on_progress(progress)
            else:
                return PartyReport.model_validate_json(data)
        except ValueError as error:
            raise DesyncError(f"{link.peer} sent a report that is not valid.") from error
