"""``bench ops`` on real processes, and what it makes of its measurements."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from rich.console import Console

from secformer_rt.cli import main
from secformer_rt.clients.ask import ask
from secformer_rt.clients.bench_ops import (
    PAPER_OPS,
    Measurement,
    Seconds,
    Size,
    bench_cases,
    bench_summary,
    parse_size,
)
from secformer_rt.clients.bench_plot import plot_bench
from secformer_rt.clients.bench_show import show_bench
from secformer_rt.clients.connection import Servers
from secformer_rt.clients.data_owner import DataOwner
from secformer_rt.clients.model_owner import provision
from secformer_rt.errors import BadConfigError, BadInputError
from secformer_rt.graph.operations import make_operation
from secformer_rt.graph.preset import load_preset
from secformer_rt.parties.manifest import Manifest
from tests.clients.deployment import PRESETS, padded_batch

ROOT = Path(__file__).parents[1]
LINKS = {"server0_server1", "dealer_server0", "dealer_server1", "client_server0", "client_server1"}

# Against the function itself, by preset and operation; 2Quad is no softmax, and the published GeLU jumps.
EXACT_BOUNDS = {
    ("exact", "gelu"): 2e-3,
    ("exact", "softmax"): 1e-3,
    ("exact", "layernorm"): 2e-3,
    ("secformer", "gelu"): 3e-2,
    ("secformer", "softmax"): 1.0,
    ("secformer", "layernorm"): 2e-3,
}
ORACLE_BOUNDS = {("secformer", "gelu"): 3e-2}


def measurement(op: str = "gelu", preset: str = "exact", size: Size = Size(4, 8)) -> Measurement:  # noqa: B008
    return Measurement(
        op=op,
        preset=preset,
        rows=size.rows,
        columns=size.columns,
        rounds=4,
        planned_rounds=4,
        bytes=dict.fromkeys(LINKS, 1500),
        dealer_words=375,
        seconds=Seconds([0.5], [0.25, 0.75]),
        error_vs_exact=1e-3,
        error_vs_oracle=0.0,
    )


def test_json_of_real_parties(tmp_path: Path) -> None:
    plot, page = tmp_path / "ops.svg", tmp_path / "ops.html"
    asked = [word for op in ("gelu", "layernorm", "softmax") for word in ("--op", op)]
    words = [sys.executable, "-m", "secformer_rt", "bench", "ops", *asked, "--size", "6x16"]
    words += ["--repeats", "2", "--json", "--plot", str(plot), "--report", str(page)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        own = psutil.Process(run.pid)
        started: set[psutil.Process] = set()
        while len(started) < 3 and run.poll() is None:
            started |= set(own.children())
            time.sleep(0.02)
        out, err = run.communicate(timeout=200)
    assert run.returncode == 0, err
    assert not any(process.is_running() for process in started)
    assert "error" not in err

    found = json.loads(out)
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["cpu"]
    results = {(r["preset"], r["op"]): r for r in found["results"]}
    assert results.keys() == EXACT_BOUNDS.keys()
    for key, result in results.items():
        assert result.keys() == set(Measurement.__dataclass_fields__)
        assert (result["rows"], result["columns"]) == (6, 16)
        assert result["rounds"] == result["planned_rounds"] > 0
        assert result["bytes"].keys() == LINKS
        assert all(size > 0 for size in result["bytes"].values())
        dealt = result["bytes"]["dealer_server0"] + result["bytes"]["dealer_server1"]
        assert result["dealer_words"] == dealt // 8
        assert result["seconds"].keys() == {"offline", "online"}
        assert all(len(runs) == 2 and min(runs) > 0 for runs in result["seconds"].values())
        assert result["error_vs_exact"] < EXACT_BOUNDS[key]
        assert result["error_vs_oracle"] < ORACLE_BOUNDS.get(key, 2e-3)
    assert plot.read_text().startswith("<?xml")
    assert "GeLU, LayerNorm and softmax: " in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--op", "erf"], "There is no operation 'erf'"),
        (["--size", "12"], "'12' is not a size: give rows and columns, as in 128x768"),
        (["--size", "-1x4"], "'-1x4' is not a size"),
        (["--size", "0x4"], "out of bounds"),
        (["--size", "4x0"], "out of bounds"),
        (["--size", "99999x99999"], "at most 4,194,304 numbers"),
        (["--op", "softmax", "--size", "4x1"], "softmax takes rows of 2 to"),
        (["--preset", "fast"], "There is no preset 'fast'"),
        (["--plot", "ops.gif"], "ends in .png or .svg"),
        (["--plot", "no/such/ops.png"], "no/such is not a directory"),
    ],
)
def test_wrong_options_start_nothing(
    words: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["secformer-rt", "bench", "ops", *words])
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    monkeypatch.setattr(subprocess, "Popen", None)
    with pytest.raises(SystemExit) as stop:
        main()
    out, err = capsys.readouterr()
    assert stop.value.code == BadConfigError.exit_code
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert sentence in err


def test_sizes() -> None:
    assert parse_size("128x768") == parse_size("128X768") == Size(128, 768)
    assert str(Size(128, 768)) == "128x768"


def test_cases_are_every_combination_once() -> None:
    presets = [load_preset(name, PRESETS) for name in ("exact", "secformer", "exact")]
    sizes = [Size(2, 4), Size(3, 4), Size(2, 4)]
    names = [str(case) for case in bench_cases(["gelu", "rsqrt", "gelu"], presets, sizes)]
    assert len(names) == len(set(names)) == 2 * 2 * 2
    assert names[0] == "gelu, preset exact, 2x4"
    by_default = bench_cases(PAPER_OPS, presets)
    assert len(by_default) == 5 * 2 * 3


def test_tables_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    show_bench([measurement(), measurement("softmax", size=Size(1536, 128))], Console(width=80))
    out = capsys.readouterr().out
    assert "softmax 1536x128" in out
    assert "3.0 kB" in out  # from the dealer to both
    assert "0.500" in out  # the median of the online seconds
    assert "…" not in out


@pytest.mark.parametrize("suffix", [".png", ".svg", ".PNG"])
def test_plots(suffix: str, tmp_path: Path) -> None:
    sizes = (Size(4, 8), Size(16, 8))
    found = [measurement(op, p, s) for op in PAPER_OPS for p in ("exact", "secformer") for s in sizes]
    path = tmp_path / f"ops{suffix}"
    for shown in (found, found[:1]):  # a single point has no extent
        plot_bench(shown, path)
        assert path.stat().st_size > 5000
    with pytest.raises(BadConfigError, match="cannot be written"):
        plot_bench(found[:1], tmp_path / "no" / "ops.png")


def test_summary_is_json() -> None:
    found = json.loads(json.dumps(bench_summary([measurement()])))
    assert found["results"][0]["seconds"] == {"offline": [0.5], "online": [0.25, 0.75]}


def test_an_operation_answers_no_text(servers: Servers) -> None:
    manifest = Manifest(
        model="a gelu",
        architecture=make_operation("gelu", 8),
        preset=load_preset("exact", PRESETS),
        calibration=None,
        embedding="private",
    )
    model = provision(servers, manifest, {})
    with pytest.raises(BadInputError, match=r"'a gelu' is a single operation.*bench ops"):
        ask(servers, ["hello"], model.model_id)
    owner = DataOwner(servers, model.model_id, manifest)
    with pytest.raises(BadInputError, match="single operation"):
        owner.infer(padded_batch((8,)))
    with pytest.raises(BadInputError, match="rows of 8 numbers"):
        owner.infer_tensors({"x": torch.zeros(1, 9)}, 1, 9)
    answer = owner.infer_tensors({"x": torch.full((2, 8), 3.0)}, 2, 8)
    assert answer.output.shape == (2, 8)
