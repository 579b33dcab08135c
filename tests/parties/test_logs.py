"""Log lines carry where they belong, and nothing that an unexpected exception may quote."""

from __future__ import annotations

import json
import logging
import threading
from contextvars import Context
from typing import Any

import pytest

from secformer_rt.errors import MismatchError, SecformerError
from secformer_rt.parties.journal import UNEXPECTED, Journal
from secformer_rt.parties.logs import JsonLines, TextLines, bound, note, say
from secformer_rt.parties.metrics import Metrics
from secformer_rt.transport.link import Link
from secformer_rt.transport.memory import memory_links
from secformer_rt.transport.server import Caller

logger = logging.getLogger("secformer_rt.test")


class Lines(logging.Handler):
    """Keeps lines as they would be written."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [{k: v for k, v in json.loads(line).items() if k != "time"} for line in self.lines]


@pytest.fixture
def lines(request: pytest.FixtureRequest) -> Any:
    handler = Lines(getattr(request, "param", JsonLines)())
    root = logging.getLogger("secformer_rt")
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler
    root.removeHandler(handler)
    root.setLevel(before)


def test_lines_carry_what_is_bound(lines: Lines) -> None:
    def speak() -> None:
        with bound(role="server0"):
            note(run="0123abcd")
            say(logger, "started", tokens=8)
            thread = threading.Thread(target=say, args=(logger, "elsewhere"))
            thread.start()
            thread.join()
        say(logger, "after", logging.WARNING, seconds=1 / 3)

    Context().run(speak)  # whatever other tests have noted in this thread
    assert lines.objects == [
        {"level": "info", "role": "server0", "run": "0123abcd", "tokens": 8, "event": "started"},
        {"level": "info", "event": "elsewhere"},
        {"level": "warning", "seconds": 0.333333, "event": "after"},
    ]


@pytest.mark.parametrize("lines", [JsonLines, TextLines], indirect=True)
def test_a_line_stays_one(lines: Lines) -> None:
    with bound(role="server0"):
        say(logger, "failed", reason="a\nb\u2028c")
        try:
            raise ValueError("a secret")
        except ValueError:
            logger.exception("odd\nevent")
    assert len(lines.lines) == 2
    assert all(len(line.splitlines()) == 1 for line in lines.lines)
    assert "secret" not in "".join(lines.lines)
    assert "ValueError" in lines.lines[1]


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (MismatchError("They differ."), "mismatch", "They differ."),
        (RuntimeError("a secret"), UNEXPECTED, "RuntimeError"),
    ],
)
def test_failures_are_logged_and_counted(lines: Lines, error: Exception, outcome: str, reason: str) -> None:
    def fail(link: Link, caller: Caller) -> None:
        note(operation="infer")
        raise error

    metrics = Metrics("server0")
    handlers = Journal("server0", metrics).kept({"Infer": fail, "Peer": fail})
    here, there = memory_links("server0", "server1")
    with here, there:
        for rpc in handlers:
            with pytest.raises(type(error)):
                handlers[rpc](here, Caller(rpc, "", None))
    assert [(o["event"], o["error"], o["reason"], o["operation"]) for o in lines.objects] == [
        ("failed", outcome, reason, "infer")
    ] * 2
    labels = {"purpose": "infer", "outcome": outcome}
    assert metrics.registry.get_sample_value("secformer_rt_runs_total", labels) == 1  # a peer is no run


def test_callers_cannot_make_labels_up() -> None:
    metrics = Metrics("server0")
    metrics.ended("x" * 1000, SecformerError.code)
    metrics.ended(None, SecformerError.code)
    labels = {"purpose": "unknown", "outcome": "error"}
    assert metrics.registry.get_sample_value("secformer_rt_runs_total", labels) == 2
