"""Inferences prepared ahead by real parties: asked without the dealer, across restarts, and each once."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from secformer_rt.cli import main
from secformer_rt.clients.cluster import LocalCluster, loopback_settings
from secformer_rt.clients.connection import Servers
from secformer_rt.clients.data_owner import Answer
from secformer_rt.clients.prepare import prepare
from secformer_rt.clients.stock import lots
from secformer_rt.errors import BadConfigError, StoreError
from secformer_rt.parties.stock import read_about
from tests.clients.deployment import Small, padded_batch, small_model

BATCH = padded_batch((5, 3), 120)


@pytest.fixture(scope="module")
def model() -> Small:
    return small_model(vocabulary=120)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prepared") / "store"


@pytest.fixture(scope="module")
def stocking(store: Path) -> Iterator[LocalCluster]:
    settings = loopback_settings(timeouts={"progress_s": 15.0}, store={"directory": str(store)})
    with LocalCluster(settings) as running:
        yield running


@pytest.fixture(scope="module")
def stocked(stocking: LocalCluster) -> Iterator[Servers]:
    with Servers(stocking.settings) as connected:
        connected.wait_ready()
        yield connected


def counts(store: Path, model_id: str) -> list[int]:
    """Of what is prepared for a model, at each server."""
    found = [lots(store / role) for role in ("server0", "server1")]
    return [sum(lot.count for lot in held if lot.model_id == model_id) for held in found]


def ask(stocked: Servers, model: Small, model_id: str) -> Answer:
    answer = model.owner(stocked, model_id).infer(BATCH)
    assert (answer.output - model.same_in_plaintext(answer)).abs().max() < 2e-2
    assert {link: seen.payload for link, seen in answer.traffic().items()} == answer.planned()
    return answer


def test_used_where_both_have_one_and_else_dealt(stocked: Servers, model: Small, store: Path) -> None:
    model_id = model.provision(stocked).model_id
    assert not ask(stocked, model, model_id).prepared
    prepare(stocked, model_id, model.manifest, 2, 5, padded=True, count=2)
    prepare(stocked, model_id, model.manifest, 1, 7)  # another plan
    lost = next(path for path in (store / "server1").glob("*.prepared") if is_for(path, model_id, tokens=5))
    lost.unlink()
    found = [ask(stocked, model, model_id).prepared for _ in range(3)]
    assert found.count(True) == 1
    assert found[-1] is False
    assert counts(store, model_id) == [1, 1]


def is_for(path: Path, model_id: str, tokens: int) -> bool:
    about = read_about(path)
    assert about is not None
    return (about.model_id, about.tokens) == (model_id, tokens)


def test_commands(
    stocking: LocalCluster,
    stocked: Servers,
    model: Small,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    model_id = model.provision(stocked).model_id

    def run(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["secformer-rt", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    config = ("--config", str(stocking.config))
    code, out, _ = run("prepare", *config, "--model", model_id, "--tokens", "4", "--count", "2", "--json")
    assert code == 0
    prepared: dict[str, Any] = json.loads(out)
    assert prepared["count"] == len(prepared["run_ids"]) == 2
    code, out, _ = run("stock", "server0", *config, "--json")
    (lot,) = [lot for lot in json.loads(out)["stock"] if lot["model_id"] == model_id]
    assert (lot["model_id"], lot["tokens"], lot["count"]) == (model_id, 4, 2)
    assert lot["bytes"] == 2 * prepared["stored_bytes"][0]
    assert lot["oldest_s"] >= lot["newest_s"] >= 0
    code, out, _ = run("stock", "--directory", str(store / "server1"))
    assert "4" in out
    code, out, _ = run("stock", "server1", *config, "--discard", model_id, "--json")
    assert json.loads(out) == {"discarded": 2}
    assert counts(store, model_id) == [2, 0]
    code, _, err = run("stock", *config)
    assert (code, err.count("error: ")) == (BadConfigError.exit_code, 1)
    code, _, err = run("prepare", *config, "--model", model_id)
    assert (code, err.count("error: ")) == (BadConfigError.exit_code, 1)
    code, _, err = run("prepare", *config, "--model", model_id, "--tokens", "4", "--count", "1000000")
    assert (code, err.count("error: ")) == (StoreError.exit_code, 1)
    assert "prepare fewer" in err
    assert "Traceback" not in err


def test_servers_restart_and_the_dealer_dies(
    stocking: LocalCluster, stocked: Servers, model: Small, store: Path
) -> None:
    model_id = model.provision(stocked).model_id
    found = prepare(stocked, model_id, model.manifest, 2, 5, padded=True, count=2)
    assert counts(store, model_id) == [2, 2]
    for role, size in zip(("server0", "server1"), found.stored_bytes, strict=True):
        for run_id in found.run_ids:
            assert (store / role / f"{run_id}.prepared").stat().st_size == size
    for role in ("server0", "server1"):
        os.kill(stocking.pids[role], signal.SIGKILL)  # type: ignore[index]
        stocking.start(role)  # type: ignore[arg-type]
    stocked.wait_ready()
    dealer = psutil.Process(stocking.pids["dealer"])
    dealer.kill()
    dealer.wait()
    answers = []
    for left in (1, 0):
        answers.append(ask(stocked, model, model_id))
        assert counts(store, model_id) == [left, left]
    assert all(report.prepared for answer in answers for report in answer.reports)
    assert not answers[0].reports[0].others
