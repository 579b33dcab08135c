"""``--report``: each command writes its page, and says at once where it cannot."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from secformer_rt.cli import main
from secformer_rt.clients.cluster import LocalCluster
from secformer_rt.clients.connection import Servers
from secformer_rt.errors import BadConfigError
from tests.graph.checkpoints import tiny_config, tiny_state, write_checkpoint
from tests.test_bench_network import measured

WORDS = ("zanzibar", "marmalade", "quetzal")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

Command = Callable[..., tuple[object, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command line here; returns exit code, standard output and standard error."""

    def run(*words: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["secformer-rt", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code, *capsys.readouterr()

    return run


def test_a_run_of_private_texts(
    command: Command, cluster: LocalCluster, servers: Servers, tmp_path: Path
) -> None:
    checkpoint, page = tmp_path / "<b>tiny", tmp_path / "page.html"
    write_checkpoint(checkpoint, tiny_state(), tiny_config())
    (checkpoint / "vocab.txt").write_text("\n".join([*SPECIAL, *WORDS]) + "\n")
    options = ("--config", cluster.config, "--checkpoint", checkpoint, "--preset", "puma")
    code, out, err = command("run", " ".join(WORDS), WORDS[0], *options, "--report", page, "--json")
    assert code == 0, err
    found = json.loads(out)
    text = page.read_text(encoding="utf-8")
    assert f"over {found['rounds']:,}\u00a0rounds" in text
    assert "Links were encrypted" in text
    assert "&lt;b&gt;tiny, preset puma" in text
    assert not any(word in text.lower() for word in WORDS)


def test_plans(command: Command, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    job = ("plan", "--synthetic", "bert-tiny", "--tokens", 5, "--report", page)
    code, out, err = command(*job, "--json")
    assert code == 0, err
    assert f"{json.loads(out)['rounds']}\u00a0rounds" in page.read_text(encoding="utf-8")
    code, out, err = command(*job, "--compare", "exact,secformer", "--profile", "wan")
    assert code == 0, err
    assert "Whole inference" in out
    assert "Of two presets" in page.read_text(encoding="utf-8")


def test_measured_networks(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    found = [measured("loopback"), measured()]
    monkeypatch.setattr(sys.modules["secformer_rt.cli.bench"], "bench_network", lambda *_, **__: found)
    job = ("--synthetic", "bert-tiny", "--batch", 2, "--preset", "puma")
    code, out, err = command("bench", "network", *job, "--report", page)
    assert code == 0, err
    assert "wan, offline" in out
    text = page.read_text(encoding="utf-8")
    assert "One inference takes 4.00\u00a0s online on wan, 0.80 times what the plan predicts." in text
    for said in ("bert-tiny, preset puma", "2\u00a0texts of 128\u00a0tokens", "Links were encrypted"):
        assert said in text


@pytest.mark.parametrize("words", [("run",), ("plan",), ("bench", "ops"), ("bench", "network")])
@pytest.mark.parametrize(
    ("name", "sentence"), [("no/page.html", "no is not a directory"), ("", "is not a file")]
)
def test_bad_places_are_refused_before_anything_runs(
    words: tuple[str, ...], name: str, sentence: str, command: Command, tmp_path: Path
) -> None:
    code, out, err = command(*words, "--report", tmp_path / name)
    assert code == BadConfigError.exit_code
    assert out == ""
    assert err.startswith("error: ")
    assert sentence in err
    assert err.count("\n") == 1


def test_what_was_found_is_shown_even_if_no_page_can_be_written(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A directory may vanish during a run."""
    monkeypatch.setattr(sys.modules["secformer_rt.cli.plan"], "check_report", lambda path: None)
    code, out, err = command(
        "plan", "--synthetic", "bert-tiny", "--tokens", 5, "--report", tmp_path / "no" / "page.html"
    )
    assert code == BadConfigError.exit_code
    assert "rounds online" in out
    assert "page.html cannot be written (No such file or directory)" in err
