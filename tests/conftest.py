"""The deployment that end-to-end tests share: three processes, started once."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator

import hypothesis
import pytest

from secformer_rt.cli import main
from secformer_rt.cli.logs import StandardError
from secformer_rt.clients.cluster import LocalCluster, loopback_settings
from secformer_rt.clients.connection import Servers


@pytest.fixture(autouse=True)
def no_log_lines_of_other_tests() -> None:
    """A command that a test runs in this process sets logging up for good."""
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, StandardError)]
    root.setLevel(logging.WARNING)


@pytest.fixture
def ask(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[object, str, str]]:
    """Runs the command line here; returns exit code, standard output and standard error."""
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)

    def run(*arguments: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["secformer-rt", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
    """Parties that no test may harm."""
    with LocalCluster(loopback_settings(timeouts={"progress_s": 15.0, "connect_s": 120.0})) as running:
        yield running


@pytest.fixture(scope="session")
def servers(cluster: LocalCluster) -> Iterator[Servers]:
    with Servers(cluster.settings) as connected:
        connected.wait_ready()
        yield connected


# A busy machine must not fail a test of values.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
