"""One link, examined from the end that calls: from the peer's name to the bytes a second."""

from __future__ import annotations

import os
import socket
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Final

import grpc
import numpy as np
import torch
from cryptography import x509
from grpc_health.v1 import health_pb2

from secformer_rt import __version__
from secformer_rt.clients.findings import CannotTell, Note, Sheet, go_through
from secformer_rt.errors import (
    BadCertificateError,
    MismatchError,
    PeerLostError,
    PeerUnreachableError,
    SecformerError,
)
from secformer_rt.parties.access import Access
from secformer_rt.parties.checkup import BULK_BYTES, PING_BYTES, PINGS, RPC, clock_of, reference_digest
from secformer_rt.parties.manifest import PROTOCOL_VERSION, make_hello
from secformer_rt.parties.settings import CALLS, Role, Settings
from secformer_rt.transport import wire_pb2
from secformer_rt.transport.aborts import RemoteAbort
from secformer_rt.transport.authority import BACKDATED
from secformer_rt.transport.channel import READY, health_check, parse_address
from secformer_rt.transport.diagnosis import diagnose, shown_certificate
from secformer_rt.transport.grpc_link import connect
from secformer_rt.transport.link import Link

CONNECT_S: Final = 3.0  # for TCP
ANSWER_S: Final = 15.0  # for any sign of life of a party
CLOCK_WARNING_S: Final = 5.0
CLOCK_LIMIT_S: Final = BACKDATED.total_seconds()  # a new certificate is not valid yet further back than that
EXPIRES_SOON: Final = timedelta(days=14)


class LinkExamination:
    """Goes through one link, step by step. It holds no connection after `sheet`."""

    def __init__(self, settings: Settings, role: str, peer: Role, access: Access | None) -> None:
        """Prepare.

        Args:
            settings: The deployment.
            role: Who examines.
            peer: Who is examined.
            access: The way to the peer; None where this role's own certificate is of no use.
        """
        self._settings, self._role, self._peer, self._access = settings, role, peer, access
        self._address = settings.endpoint(peer).address
        self._where = f"{peer} at {self._address}"
        self._stack = ExitStack()
        self._channel: grpc.Channel
        self._link: Link
        self._theirs: wire_pb2.Hello
        self._mine = b""
        self._round_trip_s = 0.0
        self._trips: list[float] = []

    def sheet(self) -> Sheet:
        """All steps."""
        steps = (
            ("name", self._name),
            ("TCP", self._tcp),
            ("TLS", self._tls),
            ("role", self._greeting),
            ("version", self._version),
            ("clock", self._clock),
            ("plan digest", self._digest),
            ("round trip", self._trip),
            ("bandwidth", self._bandwidth),
            ("ready", self._ready),
        )
        with self._stack:
            return go_through(f"{self._role} to {self._peer}", self._address, steps)

    def _name(self) -> Note:
        host, port = parse_address(self._address)
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise PeerUnreachableError(
                f"Nothing knows the name {host!r} of {self._peer}: correct {self._peer}.address in the"
                " configuration, or make DNS or /etc/hosts of this machine know it."
            ) from error
        return Note(", ".join(dict.fromkeys(str(entry[4][0]) for entry in found)))

    def _tcp(self) -> Note:
        try:
            with socket.create_connection(parse_address(self._address), CONNECT_S):
                return Note("somebody listens")
        except ConnectionRefusedError as error:
            raise PeerUnreachableError(
                f"Nobody listens at {self._address}: start {self._peer} there, or correct"
                f" {self._peer}.address in the configuration."
            ) from error
        except OSError as error:
            reason = "no answer" if isinstance(error, TimeoutError) else error.strerror
            raise PeerUnreachableError(
                f"{self._where} is out of reach ({reason}): let this machine through its firewall, or correct"
                f" {self._peer}.address in the configuration."
            ) from error

    def _tls(self) -> Note:
        if self._access is None:
            raise CannotTell("needs a certificate of this role")
        mine = self._access.identity
        if (found := diagnose(self._address, self._peer, mine)) is not None:
            raise found
        self._channel = self._stack.enter_context(self._access.open(self._peer))
        if mine is None:
            return Note("none: plain text, as configured")
        try:
            shown = shown_certificate(self._address, self._peer, mine)
        except OSError as error:
            raise BadCertificateError(
                f"{self._where} takes connections, but does not answer in TLS: see what else listens there,"
                f" or correct {self._peer}.address in the configuration."
            ) from error
        return certificate_note(shown, f"{self._peer}'s certificate")

    def _greeting(self) -> Note:
        self._mine = reference_digest()  # the first one takes seconds, in which the peer should not wait
        try:
            self._link, self._theirs = greet(self._stack, self._channel, self._role, self._peer)
        except SecformerError as error:
            raise self._refused(error) from error
        if self._theirs.role != self._peer:
            raise MismatchError(
                f"{self._address} says that it is {self._theirs.role!r}: correct {self._peer}.address in the"
                " configuration."
            )
        return Note(f"it is {self._peer}, and takes this end for {self._role}")

    def _refused(self, error: SecformerError) -> SecformerError:
        if isinstance(error.__cause__, RemoteAbort):
            return type(error)(f"{self._where} refuses: {error.__cause__.text}")
        if isinstance(error, PeerLostError):
            return PeerUnreachableError(
                f"{self._where} takes connections, but does not answer as a party: see what else listens"
                f" there, or correct {self._peer}.address in the configuration."
            )
        return error

    def _version(self) -> Note:
        here = f"{__version__}, protocol {PROTOCOL_VERSION}"
        there = f"{self._theirs.package_version}, protocol {self._theirs.protocol_version}"
        if here != there:
            raise MismatchError(
                f"{self._peer} runs version {there}, and this machine {here}: install the same on both."
            )
        return Note(here)

    def _clock(self) -> Note:
        samples = []
        for number in range(PINGS):
            asked_at, began = time.time(), time.perf_counter()
            self._link.send(number, bytes(PING_BYTES))
            answered = clock_of(self._link.receive(number, PING_BYTES))
            took = time.perf_counter() - began
            samples.append((took, answered - asked_at - took / 2))
        self._trips = [took for took, _ in samples[1:]]  # the first one is slower
        _, ahead = min(samples)
        way = "ahead of" if ahead > 0 else "behind"
        difference = f"{self._peer}'s clock is {abs(ahead):.1f} s {way} this machine's"
        if abs(ahead) > CLOCK_LIMIT_S:
            raise BadCertificateError(
                f"{difference}, and certificates fail from {CLOCK_LIMIT_S:g} s on: set both clocks, by NTP."
            )
        numbers = {"ahead_s": ahead}
        if abs(ahead) > CLOCK_WARNING_S:
            return Note(f"{difference}: set both, by NTP.", True, numbers)
        return Note(f"{ahead:+.3f} s", numbers=numbers)

    def _digest(self) -> Note:
        if self._theirs.plan_digest != self._mine:
            raise MismatchError(
                f"{self._peer} derives another plan, although its version is the same: install the same code,"
                f" torch (here {torch.__version__}) and numpy (here {np.__version__}) on both machines."
            )
        return Note(self._mine.hex()[:16])

    def _trip(self) -> Note:
        self._round_trip_s = median(self._trips)
        ms = 1e3 * self._round_trip_s
        return Note(f"{ms:.2f} ms", numbers={"ms": ms})

    def _bandwidth(self) -> Note:
        began = time.perf_counter()
        self._link.send(PINGS, bytes(BULK_BYTES))
        self._link.receive(PINGS, PING_BYTES)
        there = time.perf_counter()
        self._link.receive(PINGS + 1, BULK_BYTES)
        back = time.perf_counter()
        # As servers open: both send at once.
        self._link.send(PINGS + 2, bytes(PING_BYTES))
        self._link.send(PINGS + 3, bytes(BULK_BYTES))
        self._link.receive(PINGS + 3, BULK_BYTES)
        both = time.perf_counter()
        self._link.finish()
        up, down = _mbit(there - began - self._round_trip_s), _mbit(back - there)
        each = _mbit(both - back - self._round_trip_s)
        return Note(
            f"{up:,.0f} Mbit/s there, {down:,.0f} Mbit/s back, {each:,.0f} Mbit/s each way at once",
            numbers={"there_mbit": up, "back_mbit": down, "both_mbit": each},
        )

    def _ready(self) -> Note:
        try:
            asked = health_pb2.HealthCheckRequest(service=READY)
            answer = health_check(self._channel)(asked, timeout=ANSWER_S)
        except grpc.RpcError as error:
            raise PeerLostError(f"{self._where} does not answer any more: look at its log.") from error
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            called = " and ".join(CALLS[self._peer]) or "nobody"
            raise PeerUnreachableError(
                f"{self._where} is up, but cannot take a run yet; it waits for {called}: run"
                f" `secformer-rt doctor {self._peer}` on its machine."
            )
        return Note("it can take a run")


def greet(stack: ExitStack, channel: grpc.Channel, role: str, peer: str) -> tuple[Link, wire_pb2.Hello]:
    """Begin a checkup: the link, which ends with the stack, and what the peer says of itself.

    Raises:
        PeerLostError: whoever listens there does not answer.
        SecformerError: it refuses this caller, or has no time.
    """
    link = connect(channel, RPC, role=role, peer=peer, timeout_s=ANSWER_S)
    stack.callback(link.close)
    stack.callback(link.abort, SecformerError("The examination has ended."))
    link.send_hello(make_hello(role, os.urandom(16), "diagnose"))
    return link, link.receive_hello()


def certificate_note(certificate: x509.Certificate, name: str) -> Note:
    """Until when a certificate is valid; a warning if that is soon."""
    end = certificate.not_valid_after_utc
    if end - datetime.now(UTC) < EXPIRES_SOON:
        return Note(f"{name} expires on {end:%Y-%m-%d %H:%M} UTC: make a new one in time.", True)
    return Note(f"{name} is good until {end:%Y-%m-%d}")


def _mbit(seconds: float) -> float:
    return 8e-6 * BULK_BYTES / max(seconds, 1e-6)
