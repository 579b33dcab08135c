"""The command line as users meet it: one sentence and a documented exit code, never a traceback."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import yaml

from secformer_rt.cli import main
from secformer_rt.clients.cluster import LocalCluster, loopback_settings
from secformer_rt.clients.connection import Servers
from secformer_rt.errors import (
    BadCertificateError,
    BadCheckpointError,
    BadConfigError,
    BadInputError,
    MismatchError,
    PeerUnreachableError,
    PortInUseError,
    SecformerError,
    UnsupportedModelError,
)
from secformer_rt.transport.authority import make_all
from tests.graph.checkpoints import tiny_config, tiny_state, write_checkpoint

ROOT = Path(__file__).parents[1]

# What goes wrong: (arguments, error, what its sentence says). Names in braces are paths.
CASES: dict[str, tuple[list[str], type[SecformerError], str]] = {
    "no checkpoint": (["run", "--checkpoint", "{no}"], BadCheckpointError, "no is not a directory"),
    "broken weights": (["run", "--checkpoint", "{broken}"], BadCheckpointError, "model.safetensors"),
    "other model": (["run", "--checkpoint", "{mpnet}"], UnsupportedModelError, "model_type 'mpnet'"),
    "other tensor": (["run", "--checkpoint", "{adapter}"], UnsupportedModelError, "adapter.weight"),
    "long text": (["run", "word " * 600], BadInputError, "Text 0 has 602 tokens, more than 512"),
    "empty text": (["run", " \n"], BadInputError, "Text 0 is empty"),
    "no preset": (["run", "--preset", "fast"], BadConfigError, "'fast': choose one of crypten, ditto,"),
    "bad key": (["run", "--preset", "{preset}"], BadConfigError, r"gelu\.fourier\.perod: "),
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
    "no certificate": (
        ["party", "dealer", "--config", "{bare}"],
        BadCertificateError,
        r"ca\.crt is missing: make it with `secformer-rt certs`",
    ),
    "other authority": (
        ["infer", "hello", "--config", "{foreign}"],
        BadCertificateError,
        "The certificate of server0 at .* was not signed by the authority in this party's ca.crt",
    ),
    "no word on links": (
        ["run", "--config", "{silent}"],
        BadConfigError,
        "does not say how links are protected: run `secformer-rt certs`",
    ),
    "taken port": (["party", "dealer", "--config", "{cluster}"], PortInUseError, "is taken"),
    "no model": (
        ["infer", "hello", "--config", "{cluster}", "--model-id", "0" * 32],
        MismatchError,
        "The servers hold no model",
    ),
}

# These set signal handlers or reach out; the others are quicker in this process.
AS_PROCESSES = {"no checkpoint", "nobody comes", "taken port", "no model"}


@pytest.fixture(scope="module")
def paths(
    tmp_path_factory: pytest.TempPathFactory, cluster: LocalCluster, servers: Servers
) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("cli")
    names = ("no", "broken", "mpnet", "adapter", "preset", "alone", "bare", "foreign", "silent")
    found = {name: root / name for name in names} | {"cluster": cluster.config}
    found["preset"] = root / "preset.yaml"
    write_checkpoint(found["broken"], tiny_state(), tiny_config())
    weights = found["broken"] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    write_checkpoint(found["mpnet"], tiny_state(), tiny_config(model_type="mpnet"))
    write_checkpoint(found["adapter"], {**tiny_state(), "adapter.weight": torch.ones(2, 2)}, tiny_config())
    preset = yaml.safe_load((ROOT / "configs/presets/exact.yaml").read_text())
    preset["gelu"]["perod"] = 16.0
    found["preset"].write_text(yaml.safe_dump({**preset, "name": "mine"}))
    alone = loopback_settings(insecure=True, timeouts={"connect_s": 0.5})
    found["alone"].write_text(yaml.safe_dump(alone.model_dump(mode="json")))
    make_all(root / "certs", {}, 1)
    deployed = yaml.safe_load(cluster.config.read_text())
    for name, tls in (("bare", {"directory": "no"}), ("foreign", {"directory": "certs"}), ("silent", None)):
        found[name].write_text(yaml.safe_dump({**deployed, "tls": tls}))
    return found


def filled_in(arguments: list[str], paths: dict[str, Path]) -> list[str]:
    names = {f"{{{name}}}": str(path) for name, path in paths.items()}
    return [names.get(word, word) for word in arguments]


def check(name: str, code: object, out: str, err: str) -> None:
    _, error, pattern = CASES[name]
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    assert re.search(pattern, lines[0]), err
    assert lines[0][-1] in ".?"
    assert code == error.exit_code
    assert out == ""
    logged = [line for line in err.splitlines() if not line.startswith("error: ")]
    assert all(json.loads(line)["event"] for line in logged), err  # and no traceback


@pytest.mark.parametrize("name", sorted(CASES.keys() - AS_PROCESSES))
def test_failures(
    name: str,
    paths: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["secformer-rt", *filled_in(CASES[name][0], paths)])
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    with pytest.raises(SystemExit) as stop:
        main()
    check(name, stop.value.code, *capsys.readouterr())


def test_failures_of_processes(paths: dict[str, Path]) -> None:
    """Several at once: a command spends seconds on imports."""

    def run(name: str) -> None:
        done = command(*filled_in(CASES[name][0], paths))
        check(name, done.returncode, done.stdout, done.stderr)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(run, sorted(AS_PROCESSES)))


def test_main_job_in_json(paths: dict[str, Path]) -> None:
    job = ["--synthetic", "bert-tiny", "--tokens", "6", "--embedding", "public-tables"]
    done = command("run", "--config", str(paths["cluster"]), *job, "--preset", "secformer", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["insecure"] is False
    assert found["rounds"] == found["planned_rounds"]
    assert found["fidelity"]["max_abs_error_vs_oracle"] < 2e-2
    payload = {link: n["payload"] for link, n in found["bytes"].items() if link != "planned_payload"}
    assert payload == found["bytes"]["planned_payload"]
    assert len({party["pid"] for party in found["parties"]}) == 3


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "secformer_rt", *arguments]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
