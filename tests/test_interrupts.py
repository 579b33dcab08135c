"""Ctrl-C and SIGTERM: one sentence, an exit code that says which, and nothing left behind."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest

from secformer_rt.clients.cluster import loopback_settings
from tests.clients.processes import SOON_S, launch, start
from tests.transport.harness import eventually

RUN = ("run", "--synthetic", "bert-tiny", "--tokens", "8", "--json")
BENCH = ("bench", "ops", "--op", "gelu", "--size", "4x8", "--json")
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


def sentences(errors: str) -> list[str]:
    """Everything on standard error but log lines."""
    return [line for line in errors.splitlines() if not line.startswith("{")]


@pytest.mark.parametrize(
    ("words", "number"),
    [(RUN, signal.SIGINT), (RUN, signal.SIGTERM), (BENCH, signal.SIGINT), (BENCH, signal.SIGTERM)],
    ids=["run-int", "run-term", "bench-int", "bench-term"],
)
def test_parties_and_files_go(words: tuple[str, ...], number: signal.Signals, tmp_path: Path) -> None:
    launcher, parties = launch(*words, environment={"TMPDIR": str(tmp_path)})
    assert list(tmp_path.glob("secformer-rt-*/certs/*.key"))
    launcher.send_signal(number)
    out, errors = launcher.communicate(timeout=SOON_S)
    assert (launcher.returncode, out) == (CODES[number], "")
    assert sentences(errors) == ["error: interrupted."]
    assert not psutil.wait_procs(parties.values(), timeout=SOON_S)[1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", CODES)
def test_a_client_that_waits(number: signal.Signals, tmp_path: Path) -> None:
    config = tmp_path / "deployment.yaml"
    config.write_text(loopback_settings(insecure=True, timeouts={"connect_s": 100.0}).model_dump_json())
    client = start("infer", "hello", "--config", str(config))
    assert client.stderr is not None
    assert '"connect"' in client.stderr.readline()
    client.send_signal(number)
    _, errors = client.communicate(timeout=SOON_S)
    assert client.returncode == CODES[number]
    assert sentences(errors) == ["error: interrupted."]


def catches(pid: int, number: signal.Signals) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    (mask,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_interrupted_while_it_is_loaded() -> None:
    command = start("plan", "--synthetic", "bert-large", "--json")
    assert eventually(lambda: catches(command.pid, signal.SIGTERM))
    command.terminate()
    out, errors = command.communicate(timeout=SOON_S)
    assert (command.returncode, out) == (143, "")
    assert sentences(errors) == ["error: interrupted."]
