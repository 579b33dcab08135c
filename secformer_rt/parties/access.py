"""How one role reaches the parties of a deployment: in plain text, or with its certificate."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import grpc

from secformer_rt.parties.settings import Role, Settings
from secformer_rt.transport.certificates import role_host
from secformer_rt.transport.channel import open_channel, wait_ready
from secformer_rt.transport.diagnosis import diagnose
from secformer_rt.transport.identity import Identity, load_identity


class Access:
    """The ways of one role to the parties.

    Attributes:
        identity: The role's certificate; None where links are in plain text.
    """

    def __init__(self, settings: Settings, role: str) -> None:
        """Read the role's certificate.

        Raises:
            BadCertificateError: it is missing or of no use.
            BadConfigError: the settings do not say how links are protected.
        """
        tls = settings.encryption()
        self._settings = settings
        self.identity: Identity | None = None
        if tls is not None:
            self.identity = load_identity(tls.directory, role, tls.pins)

    def open(self, peer: Role) -> grpc.Channel:
        """A channel to a party: TLS refuses whoever has not that party's role."""
        address = self._settings.endpoint(peer).address
        if self.identity is None:
            return open_channel(address)
        return open_channel(address, self.identity.for_calling(peer), server_name=role_host(peer))

    def wait(
        self,
        channel: grpc.Channel,
        peer: Role,
        timeout_s: float | None = None,
        on_wait: Callable[[float, str], None] | None = None,
        *,
        service: str = "",
    ) -> None:
        """Wait until a party answers; see `wait_ready`.

        Args:
            channel: From `open`.
            peer: The same party.
            timeout_s: How long; by default ``timeouts.connect_s``.
            on_wait: Called after every failed attempt.
            service: What to ask the party's health service for.

        Raises:
            PeerUnreachableError: it has not answered in time.
            BadCertificateError: either end refuses the other's certificate.
        """
        address = self._settings.endpoint(peer).address
        if timeout_s is None:
            timeout_s = self._settings.timeouts.connect_s
        why = partial(diagnose, address, peer, self.identity)
        wait_ready(channel, peer, address, timeout_s, on_wait, service=service, diagnose=why)
