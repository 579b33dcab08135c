"""Three parties as processes on this machine, for local runs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import yaml

from secformer_rt.errors import PeerLostError, SecformerError, error_for_exit_code
from secformer_rt.parties.overrides import OPTION
from secformer_rt.parties.settings import ROLES, Role, Settings, Tls, make_settings
from secformer_rt.transport.authority import make_all

STOP_S = 5.0
CERTIFICATE_DAYS = 7  # of a local cluster
ERROR_PREFIX = "error: "


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody uses at the moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def loopback_settings(words: Sequence[str] = (), **overrides: object) -> Settings:
    """A deployment on free ports of the loopback interface; its `LocalCluster` adds certificates.

    Args:
        words: Values of single keys, from the command line.
        overrides: Values of whole sections.

    Raises:
        BadConfigError: a key or a value is wrong.
    """
    given: dict[str, object] = {
        role: {"bind": f"127.0.0.1:{port}", "address": f"127.0.0.1:{port}"}
        for role, port in zip(ROLES, free_ports(len(ROLES)), strict=True)
    }
    return make_settings({**given, **overrides}, words, "The configuration of the local parties")


@dataclass(slots=True, eq=False)
class _Member:
    role: Role
    process: subprocess.Popen[str]
    last_line: str = ""
    reader: threading.Thread | None = None


@dataclass(slots=True, eq=False)
class LocalCluster:
    """Dealer, server 0 and server 1 as child processes; a context manager that leaves none behind.

    The children watch their standard input, so they end even if this process is killed. Unless the
    settings say how links are protected, certificates are made that live as long as the cluster.
    """

    settings: Settings
    log: IO[str] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    words: Mapping[Role, Sequence[str]] = field(default_factory=dict)  # `--set` of one party alone
    _members: dict[Role, _Member] = field(default_factory=dict)
    _directory: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        self._directory = tempfile.TemporaryDirectory(prefix="secformer-rt-")
        try:
            if self.settings.tls is None and not self.settings.insecure:
                certificates = Path(self._directory.name) / "certs"
                make_all(certificates, {}, CERTIFICATE_DAYS)
                self.settings = self.settings.model_copy(update={"tls": Tls(directory=certificates)})
            self.config.write_text(yaml.safe_dump(self.settings.model_dump(mode="json")), encoding="utf-8")
            for role in ("dealer", "server0", "server1"):
                self.start(role)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pids(self) -> dict[Role, int]:
        """Process ids by role."""
        return {role: member.process.pid for role, member in self._members.items()}

    @property
    def config(self) -> Path:
        """The deployment's file, for as long as the cluster runs."""
        assert self._directory is not None
        return Path(self._directory.name) / "deployment.yaml"

    def start(self, role: Role) -> None:
        """Start one party, for the first time or after it has ended."""
        if role in self._members:
            self._end(self._members.pop(role), 0.0)
        command = [
            sys.executable,
            "-P",  # or Python would look for the package where the caller happens to stand
            "-m",
            "secformer_rt",
            "party",
            role,
            "--config",
            str(self.config),
            "--watch-stdin",
            *(part for word in self.words.get(role, ()) for part in (OPTION, word)),
        ]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **self.environment},
            start_new_session=True,  # a Ctrl-C is for this process, which then stops its children
        )
        member = _Member(role, process)
        member.reader = threading.Thread(target=self._read, args=(member,), daemon=True)
        member.reader.start()
        self._members[role] = member

    def _read(self, member: _Member) -> None:
        assert member.process.stderr is not None
        for line in member.process.stderr:
            if line.startswith(ERROR_PREFIX):
                member.last_line = line.removeprefix(ERROR_PREFIX).strip()
            if self.log is not None:
                self.log.write(f"{member.role}: {line}")

    def failure(self) -> SecformerError | None:
        """Why a party has ended, if one has."""
        for role, member in self._members.items():
            code = member.process.poll()
            if code is None:
                continue
            assert member.reader is not None
            member.reader.join(1.0)
            if code <= 0:
                how = f"ended by signal {-code}" if code else "stopped"
                return PeerLostError(f"{role} was {how}: start the run again.")
            reason = member.last_line or f"it ended with exit code {code}."
            return error_for_exit_code(code)(f"{role}: {reason}")
        return None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Raise what ended a party rather than what its end did to others."""
        try:
            yield
        except SecformerError as error:
            # A party that is killed takes a moment to be seen as dead.
            deadline = time.monotonic() + 0.5
            while (cause := self.failure()) is None and time.monotonic() < deadline:
                time.sleep(0.05)
            if isinstance(cause, PeerLostError) and isinstance(error, PeerLostError):
                cause = PeerLostError(f"{str(cause).rstrip('.')} ({str(error).rstrip('.')}).")
            if cause is not None:
                raise cause from error
            raise

    def stop(self) -> None:
        """End all children: first by closing their input, then by force."""
        for member in self._members.values():
            assert member.process.stdin is not None
            member.process.stdin.close()
        deadline = time.monotonic() + STOP_S
        for member in self._members.values():
            self._end(member, deadline - time.monotonic())
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    def _end(self, member: _Member, timeout_s: float) -> None:
        try:
            member.process.wait(max(0.0, timeout_s))
        except subprocess.TimeoutExpired:
            member.process.kill()
            member.process.wait()
        if member.reader is not None:
            member.reader.join(1.0)
        assert member.process.stdin is not None
        assert member.process.stderr is not None
        member.process.stdin.close()
        member.process.stderr.close()
