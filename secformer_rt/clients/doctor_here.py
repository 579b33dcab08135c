"""What can be wrong on this machine, before any link: key, certificate, and where a party listens."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from ipaddress import ip_address
from typing import cast

from secformer_rt.clients.doctor_link import certificate_note, greet
from secformer_rt.clients.findings import Note, Sheet, go_through
from secformer_rt.errors import BadConfigError, PortInUseError, SecformerError
from secformer_rt.parties.access import Access
from secformer_rt.parties.settings import ROLES, Role, Settings
from secformer_rt.transport.aborts import RemoteAbort
from secformer_rt.transport.certificates import role_host
from secformer_rt.transport.channel import open_channel, parse_address
from secformer_rt.transport.key_files import read_certificates, read_key
from secformer_rt.transport.listening import obstacle

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # where to call who listens there


class HereExamination:
    """Goes through this machine, step by step.

    Attributes:
        access: This role's way to the parties, once its certificate has been found good.
    """

    def __init__(self, settings: Settings, role: str) -> None:
        self._settings, self._role = settings, role
        self.access: Access | None = None

    def sheet(self) -> Sheet:
        """All steps."""
        steps: list[tuple[str, Callable[[], Note]]] = [
            ("protection", self._protection),
            ("key", self._key),
            ("certificate", self._certificate),
        ]
        address = ""
        if self._role in ROLES:
            steps.append(("bind", self._bind))
            address = self._settings.endpoint(self._role).bind
        return go_through(f"{self._role}, this machine", address, steps)

    def _protection(self) -> Note:
        if self._settings.tls is not None:
            return Note(f"TLS, by what is in {self._settings.tls.directory}")
        endpoints = [self._settings.endpoint(role) for role in ROLES]
        addresses = dict.fromkeys(a for e in endpoints for a in (e.bind, e.address))
        beyond = [address for address in addresses if not _is_loopback(address)]
        if beyond:
            return Note(
                f"insecure is set, and {beyond[0]} is beyond the loopback interface: make certificates with"
                " `secformer-rt certs`, and set tls in its place.",
                is_warning=True,
            )
        return Note("plain text, on the loopback interface only")

    def _key(self) -> Note:
        tls = self._settings.tls
        if tls is None:
            return Note("none needed")
        path = tls.directory / f"{self._role}.key"
        read_key(path)
        return Note(f"{path}, for its owner only")

    def _certificate(self) -> Note:
        self.access = Access(self._settings, self._role)
        tls = self._settings.tls
        if tls is None:
            return Note("none needed")
        authority, mine = (read_certificates(tls.directory / f"{n}.crt")[0] for n in ("ca", self._role))
        note = certificate_note(authority, "the authority's certificate")
        return note if note.is_warning else certificate_note(mine, "this role's certificate")

    def _bind(self) -> Note:
        bind = self._settings.endpoint(cast(Role, self._role)).bind
        host, port = parse_address(bind, listening=True)
        error = obstacle(bind, host, port)
        if error is None:
            return Note("free")
        if not isinstance(error, PortInUseError):
            raise BadConfigError(
                f"{str(error).rstrip('.')}; set {self._role}.bind to an address of this machine, such as"
                f" 0.0.0.0:{port}."
            )
        if not self._is_mine(_EVERYWHERE.get(host, f"[{host}]" if ":" in host else host), port):
            raise PortInUseError(
                f"{bind} is taken by something that is not {self._role}: stop it, or change the port in"
                " the configuration, for everybody."
            )
        return Note(f"{self._role} listens there already")

    def _is_mine(self, host: str, port: int) -> bool:
        """Whether the party that listens here has this role."""
        assert self.access is not None
        identity, address = self.access.identity, f"{host}:{port}"
        with ExitStack() as stack:
            if identity is None:
                channel = open_channel(address)
            else:
                credentials = identity.for_calling(self._role)
                channel = open_channel(address, credentials, server_name=role_host(self._role))
            stack.enter_context(channel)
            try:
                _, hello = greet(stack, channel, self._role, self._role)
            except SecformerError as error:
                return isinstance(error.__cause__, RemoteAbort)  # it may have no time
            return hello.role == self._role


def _is_loopback(address: str) -> bool:
    host, _ = parse_address(address, listening=True)
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
