"""The live view: what it shows of a command, and that it needs a terminal."""

from __future__ import annotations

import logging

import pytest
from rich.console import Console

from secformer_rt.cli.live import LiveView, StageLog, progress
from secformer_rt.clients.progress import Stage

BARS = str.maketrans("", "", "━╸╺")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def rows(view: LiveView) -> list[str]:
    console = Console(width=140, legacy_windows=False, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(view.table())
    return [" ".join(line.translate(BARS).split()) for line in capture.get().splitlines()[1:]]


def test_stages_and_the_layer_at_work() -> None:
    clock = Clock()
    view = LiveView(clock)
    view(Stage("offline", bytes=500_000, planned_bytes=2_000_000))
    clock.now = 5.0
    assert rows(view) == ["offline 0.5/2.0 MB 0:05 0:15"]
    view(Stage("online", 0, 40, 0, 8_000_000))
    clock.now = 65.0
    layer = Stage("layer.1", 2, 8, 1_000_000, 2_000_000, detail="[softmax]")
    view(Stage("online", 10, 40, 2_000_000, 8_000_000, part=layer))
    assert rows(view) == [
        "offline 0.5/2.0 MB 0:05",
        "online 10/40 2.0/8.0 MB 1:00 3:00",
        "layer.1 [softmax] 2/8 1.0/2.0 MB",
    ]


def test_a_stage_that_comes_again_moves_to_the_end() -> None:
    clock = Clock()
    view = LiveView(clock)
    for stage in (Stage("plan"), Stage("online", 4, 4), Stage("plan")):
        view(stage)
        clock.now += 1.0
    assert rows(view) == ["online 4/4 0:01", "plan 0:01"]


def test_fractions_count_rounds_and_bytes() -> None:
    assert Stage("connect").fraction is None
    assert Stage("calibrate", 1, 4).fraction == 0.25
    assert Stage("online", 1, 4, 3, 4).fraction == 0.5


def test_without_a_terminal_stages_are_logged(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG, "secformer_rt")
    with progress(quiet=False) as on_progress:
        assert isinstance(on_progress, StageLog)
        on_progress(Stage("connect"))
        for done in (1, 2):
            on_progress(Stage("online", done, 2, part=Stage("layer.0", done, 2, detail="gelu")))
    seen = [(record.getMessage(), record.fields) for record in caplog.records]  # type: ignore[attr-defined]
    assert seen == [
        ("stage", {"stage": "connect"}),
        ("stage", {"stage": "online", "total": 2}),
        ("layer", {"layer": "layer.0", "op": "gelu", "done": 1, "total": 2}),
    ]
    assert capsys.readouterr().out == ""


def test_a_terminal_shows_a_table_unless_it_must_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes any stream for a terminal then
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # those of commands that other tests have run
    with progress(quiet=True) as on_progress:
        on_progress(Stage("online", 1, 2, part=Stage("layer.3", 1, 2)))
    assert capsys.readouterr() == ("", "")
    with progress(quiet=False) as on_progress:
        on_progress(Stage("online", 1, 2, part=Stage("layer.3", 1, 2)))
    out, err = capsys.readouterr()
    assert out == ""
    assert "online" in err
    assert "layer.3" in err
