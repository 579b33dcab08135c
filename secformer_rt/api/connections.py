"""Connections to both servers, one pair for each role that a program takes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from secformer_rt.clients.cluster import LocalCluster
from secformer_rt.clients.connection import Servers
from secformer_rt.errors import PeerLostError
from secformer_rt.parties.settings import Settings


class Connections:
    """Opened when a role is first taken, so that a program needs the certificates of its own roles only."""

    def __init__(self, settings: Settings, parties: LocalCluster | None) -> None:
        """``parties`` are those started here, if any were."""
        self._settings, self._parties = settings, parties
        self._servers: dict[str, Servers] = {}
        self._lock = threading.Lock()
        self._closed = False

    @contextmanager
    def taking(self, role: str) -> Iterator[Servers]:
        """Both servers, ready. An error says what became of a party, where it was started here.

        Raises:
            PeerLostError: the connections have been closed.
            PeerUnreachableError: a server is not ready within ``connect_s``.
            BadCertificateError: the role's certificate is missing or of no use.
        """
        if self._closed:
            raise PeerLostError("This cluster is closed: make another one.")
        with self._parties.watched() if self._parties is not None else nullcontext():
            with self._lock:
                if role not in self._servers:
                    self._servers[role] = self._connect(role)
                servers = self._servers[role]
            yield servers

    def _connect(self, role: str) -> Servers:
        servers = Servers(self._settings, [role])
        try:
            servers.wait_ready(self._check)
        except BaseException:
            servers.close()
            raise
        return servers

    def _check(self, role: str, seconds: float, reason: str) -> None:
        if self._parties is not None and (failure := self._parties.failure()) is not None:
            raise failure  # waiting on is in vain

    def close(self) -> None:
        """Close them all, and stop the parties that were started here."""
        self._closed = True
        with self._lock:
            while self._servers:
                self._servers.popitem()[1].close()
        if self._parties is not None:
            self._parties.stop()
