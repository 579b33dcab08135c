"""The command line as users meet it: one sentence and a documented exit code, never a traceback."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import yaml

from secformer_rt.clients.cluster import LocalCluster, free_ports, loopback_settings
from secformer_rt.clients.connection import Servers
from secformer_rt.errors import (
    BadCheckpointError,
    BadConfigError,
    BadInputError,
    MismatchError,
    PeerUnreachableError,
    PortInUseError,
    SecformerError,
    UnsupportedModelError,
)
from tests.graph.checkpoints import tiny_config, tiny_state, write_checkpoint

ROOT = Path(__file__).parents[1]

# What goes wrong: (arguments, error, what its sentence says). Names in braces are paths.
CASES: dict[str, tuple[list[str], type[SecformerError], str]] = {
    "no checkpoint": (["run", "--checkpoint", "{no}"], BadCheckpointError, "no is not a directory"),
    "broken weights": (["run", "--checkpoint", "{broken}"], BadCheckpointError, "model.safetensors"),
    "other model": (["run", "--checkpoint", "{roberta}"], UnsupportedModelError, "model_type 'roberta'"),
    "other tensor": (["run", "--checkpoint", "{adapter}"], UnsupportedModelError, "adapter.weight"),
    "long text": (["run", "word " * 600], BadInputError, "Text 0 has 602 tokens, more than 512"),
    "empty text": (["run", " \n"], BadInputError, "Text 0 is empty"),
    "no preset": (["run", "--preset", "fast"], BadConfigError, "'fast': choose one of exact, secformer"),
    "bad key": (["run", "--preset", "{preset}"], BadConfigError, "gelu.perod: "),
    "stranger": (["party", "mallory", "--config", "{alone}"], BadConfigError, "server0, server1, dealer"),
    "no config": (["party", "dealer", "--config", "{no}"], BadConfigError, "cannot be read"),
    "nobody comes": (
        ["party", "server1", "--config", "{alone}"],
        PeerUnreachableError,
        r"dealer at 127\.0\.0\.1:\d+ could not be reached within 0\.5 s",
    ),
    "no deployment": (
        ["infer", "hello", "--config", "{alone}"],
        PeerUnreachableError,
        "server0 at .* could not be reached",
    ),
    "taken port": (["party", "dealer", "--config", "{cluster}"], PortInUseError, "is taken"),
    "no model": (
        ["infer", "hello", "--config", "{cluster}", "--model-id", "0" * 32],
        MismatchError,
        "The servers hold no model",
    ),
}


@pytest.fixture(scope="module")
def paths(
    tmp_path_factory: pytest.TempPathFactory, cluster: LocalCluster, servers: Servers
) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("cli")
    names = ("no", "broken", "roberta", "adapter", "preset", "alone")
    found = {name: root / name for name in names} | {"cluster": cluster.config}
    found["preset"] = root / "preset.yaml"
    write_checkpoint(found["broken"], tiny_state(), tiny_config())
    weights = found["broken"] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    write_checkpoint(found["roberta"], tiny_state(), tiny_config(model_type="roberta"))
    write_checkpoint(found["adapter"], {**tiny_state(), "adapter.weight": torch.ones(2, 2)}, tiny_config())
    preset = yaml.safe_load((ROOT / "configs/presets/exact.yaml").read_text())
    preset["gelu"]["perod"] = preset["gelu"].pop("period")
    found["preset"].write_text(yaml.safe_dump({**preset, "name": "mine"}))
    alone = loopback_settings(timeouts={"connect_s": 0.5})
    found["alone"].write_text(yaml.safe_dump(alone.model_dump(mode="json")))
    return found


@pytest.fixture(scope="module")
def runs(paths: dict[str, Path]) -> Iterator[dict[str, Future[subprocess.CompletedProcess[str]]]]:
    """All cases at once: a command spends seconds on imports."""

    def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
        names = {f"{{{name}}}": str(path) for name, path in paths.items()}
        command = [sys.executable, "-m", "secformer_rt", *(names.get(word, word) for word in arguments)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)

    with ThreadPoolExecutor(3) as pool:
        yield {name: pool.submit(run, arguments) for name, (arguments, _, _) in CASES.items()}


@pytest.mark.parametrize("name", CASES)
def test_failures(name: str, runs: dict[str, Future[subprocess.CompletedProcess[str]]]) -> None:
    _, error, pattern = CASES[name]
    done = runs[name].result()
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert re.search(pattern, lines[0]), done.stderr
    assert lines[0].endswith(".")
    assert "Traceback" not in done.stderr
    assert done.returncode == error.exit_code
    assert done.stdout == ""
    logged = [line for line in done.stderr.splitlines() if not line.startswith("error: ")]
    assert all(re.match(r"\d{4}-\d\d-\d\d ", line) for line in logged), done.stderr


def test_main_job_in_json() -> None:
    command = [sys.executable, "-m", "secformer_rt", "run", "--synthetic", "bert-tiny", "--json"]
    options = ["--tokens", "6", "--embedding", "public-tables", "--preset", "secformer"]
    done = subprocess.run(
        [*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["rounds"] == found["planned_rounds"]
    assert found["fidelity"]["max_abs_error_vs_oracle"] < 2e-2
    payload = {link: n["payload"] for link, n in found["bytes"].items() if link != "planned_payload"}
    assert payload == found["bytes"]["planned_payload"]
    assert len({party["pid"] for party in found["parties"]}) == 3


def test_ports_are_free() -> None:
    assert len(set(free_ports(3))) == 3
