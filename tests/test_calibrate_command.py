"""``calibrate``: a file that plans and runs take in, and that people can read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from secformer_rt.errors import BadConfigError, BadInputError
from secformer_rt.graph.architecture import synthetic_architecture
from secformer_rt.graph.bert import build_bert
from secformer_rt.graph.calibration import calibrate
from secformer_rt.graph.checkpoint import default_checkpoint, load_checkpoint
from secformer_rt.graph.ranges import Calibration
from secformer_rt.graph.tokenizer import Tokenizer
from tests.protocols.common import preset

Ask = Callable[..., tuple[object, str, str]]


def synthetic(ask: Ask, path: Path, *more: object) -> dict[str, Any]:
    words = ("calibrate", "--synthetic", "bert-tiny", "--tokens", 6, "--output", path, "--json", *more)
    code, out, err = ask(*words)
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_it_writes_what_it_prints(ask: Ask, tmp_path: Path) -> None:
    path = tmp_path / "ranges.yaml"
    found = synthetic(ask, path, "--headroom", 2, "--preset", "secformer")
    saved = Calibration.load(path)
    assert {"model": "bert-tiny", "file": str(path), **saved.model_dump(mode="json")} == found
    assert (saved.preset, saved.headroom) == ("secformer", 2)
    graph = build_bert(synthetic_architecture("bert-tiny"), 1, 1, masked=False, embedding="private")
    assert {node.name for node in graph.nodes} <= saved.ranges.keys()
    lines = path.read_text().splitlines()
    assert all("# eta 2^" in line and line.endswith("iterations") for line in lines if "variance: " in line)
    assert any("denominator: " in line and "# eta 2^" in line for line in lines)


def test_a_plan_takes_it_in(ask: Ask, tmp_path: Path) -> None:
    """More headroom, more iterations, more rounds."""
    rounds = []
    for headroom in (1, 64):
        path = tmp_path / f"{headroom}.yaml"
        synthetic(ask, path, "--headroom", headroom, "--preset", "secformer")
        words = ("plan", "--synthetic", "bert-tiny", "--tokens", 6, "--preset", "secformer", "--json")
        code, out, err = ask(*words, "--calibration", path)
        assert code == 0, err
        rounds.append(json.loads(out)["rounds"])
    assert rounds[0] < rounds[1]


def test_texts_of_ones_own(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = tmp_path / "texts"
    texts.write_text("A first text.\n\nAnother, second text.\n")
    monkeypatch.chdir(tmp_path)
    code, out, err = ask("calibrate", "--texts", texts)
    assert (code, out) == (0, "all-MiniLM-L6-v2-exact.yaml\n"), err
    checkpoint = load_checkpoint(default_checkpoint())
    tokenizer = Tokenizer.load(checkpoint.directory)
    samples = [tokenizer.encode([text]) for text in ("A first text.", "Another, second text.")]

    expected = calibrate(checkpoint.architecture, checkpoint.parameters, samples, preset("exact"))
    assert Calibration.load(tmp_path / out.strip()) == expected


@pytest.mark.parametrize("content", [None, b"", b" \n\n", b"\xff\xfe\xff"])
def test_texts_that_are_none(ask: Ask, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "texts"
    if content is not None:
        path.write_bytes(content)
    code, _, err = ask("calibrate", "--texts", path, "--output", tmp_path / "out.yaml")
    assert code == BadInputError.exit_code
    assert err.startswith("error: ") and err.count("\n") == 1
    assert not (tmp_path / "out.yaml").exists()


def test_a_place_that_cannot_be_written(ask: Ask, tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "out.yaml"
    code, _, err = ask("calibrate", "--synthetic", "bert-tiny", "--tokens", 4, "--output", path)
    assert code == BadConfigError.exit_code
    assert "cannot be written" in err


def test_a_calibration_for_another_preset_is_refused(ask: Ask, tmp_path: Path) -> None:
    path = tmp_path / "ranges.yaml"
    synthetic(ask, path, "--preset", "exact")
    words = ("run", "--synthetic", "bert-tiny", "--tokens", 4, "--calibration", path, "--preset", "puma")
    code, _, err = ask(*words)
    assert code == BadConfigError.exit_code
    assert "is for preset 'exact', not 'puma'" in err
