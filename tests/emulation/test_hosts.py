"""Emulated hosts, and what is said where they cannot be."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import psutil
import pytest

from secformer_rt.emulation import hosts as module
from secformer_rt.emulation.hosts import HOSTS, LINKS, emulated_hosts
from secformer_rt.emulation.namespaces import ip
from secformer_rt.emulation.probe import rate_mbit, round_trip_s
from secformer_rt.errors import SecformerError
from secformer_rt.scheduler.network import Network
from tests.emulation.support import needs_emulation

NETWORK = Network(name="x", rtt_ms=2, mbit=50)


def refusal() -> str:
    with pytest.raises(SecformerError) as caught, emulated_hosts(NETWORK):
        pass
    assert caught.value.exit_code == 1
    return str(caught.value)


def test_who_is_not_root_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert refusal() == "Emulated links need root, to make network namespaces: run this as root."


def test_a_missing_device_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(module, "DEVICE", str(tmp_path / "tun"))
    assert "module tun" in refusal()


def test_a_kernel_that_refuses_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(address: str) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(module, "DEVICE", str(tmp_path))
    monkeypatch.setattr(module, "Namespace", refuse)
    assert "(Operation not permitted)" in refusal()


def test_a_missing_command_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SecformerError, match="install iproute2"):
        ip("link")


@needs_emulation
def test_links_delay_and_limit_and_leave_nothing() -> None:
    def state() -> tuple[set[str], set[str], int]:
        devices = {name for _, name in socket.if_nameindex()}
        fds = set(Path("/proc/self/fd").iterdir())
        return devices, fds, len(psutil.Process().children(recursive=True))

    before = state()
    with pytest.raises(KeyError), emulated_hosts(NETWORK) as places:
        assert set(places) == set(HOSTS)
        for a, b in LINKS.values():
            assert round_trip_s(places[a], places[b]) >= 2e-3
        # A busy machine may be slower than the link, but nothing is faster.
        assert 0 < rate_mbit(places["dealer"], places["server1"], 0.5) <= 1.1 * 50
        # There is no way around: the dealer and the client have no link.
        with pytest.raises(OSError, match="unreachable"):
            places["dealer"].call(lambda: socket.create_connection((places["client"].address, 1), 1))
        raise KeyError
    assert state() == before
