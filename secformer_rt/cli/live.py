"""How far a command has come: a live table on a terminal, log lines everywhere else."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from secformer_rt.clients.progress import OnProgress, Stage
from secformer_rt.parties.logs import say

logger = logging.getLogger(__name__)

REFRESH_HZ = 8
BAR_CELLS = 20


@contextmanager
def progress(*, quiet: bool) -> Iterator[OnProgress]:
    """Show what is passed in until the block ends.

    Args:
        quiet: no live view, though standard error may be a terminal.
    """
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield StageLog()
        return
    view = LiveView(time.monotonic)
    # What a library or a log writes to standard error meanwhile appears above the table.
    with Live(
        get_renderable=view.table,
        console=console,
        refresh_per_second=REFRESH_HZ,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=sys.stderr.isatty(),
    ):
        yield view


class StageLog:
    """A line for every stage, and for every layer of it at level debug."""

    def __init__(self) -> None:
        self._stage = self._part = ""

    def __call__(self, stage: Stage) -> None:
        """Log what has changed."""
        if stage.name != self._stage:
            self._stage, self._part = stage.name, ""
            planned = {"total": stage.total, "bytes": stage.planned_bytes}
            say(logger, "stage", stage=stage.name, **{name: n for name, n in planned.items() if n})
        if stage.part is not None and stage.part.name != self._part:
            self._part = stage.part.name
            say(
                logger,
                "layer",
                logging.DEBUG,
                layer=stage.part.name,
                op=stage.part.detail,
                done=stage.done,
                total=stage.total,
            )


@dataclass(slots=True)
class _Row:
    stage: Stage
    began: float
    ended: float | None = None


class LiveView:
    """The stages of a command so far, and the part of it that is at work."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock`` returns seconds."""
        self._clock = clock
        self._rows: dict[str, _Row] = {}
        self._name = ""

    def __call__(self, stage: Stage) -> None:
        """Take note; the table is drawn in its own time."""
        now = self._clock()
        if stage.name != self._name:
            if self._name:
                self._rows[self._name].ended = now
            # A stage that comes again, for the next request, moves to the end.
            self._rows = {name: row for name, row in self._rows.items() if name != stage.name}
            self._rows[stage.name] = _Row(stage, now)
            self._name = stage.name
        self._rows[stage.name].stage = stage

    def table(self) -> Table:
        """A row for each stage, and below the last one its part."""
        table = Table(box=None, pad_edge=False)
        for title in ("stage", "", "done", "bytes", "elapsed", "left"):
            table.add_column(title, justify="left" if title in ("stage", "") else "right", no_wrap=True)
        now = self._clock()
        for row in tuple(self._rows.values()):
            self._add(table, row, now)
        return table

    def _add(self, table: Table, row: _Row, now: float) -> None:
        stage, over = row.stage, row.ended is not None
        elapsed = (row.ended if row.ended is not None else now) - row.began
        share = 1.0 if over else stage.fraction
        left = "" if over else _left(elapsed, share)
        name = Text(stage.name) if over else _name(stage)
        table.add_row(name, _bar(share), *_counts(stage), _seconds(elapsed), left)
        if stage.part is not None and not over:
            table.add_row(
                _name(stage.part, indent="  "), _bar(stage.part.fraction), *_counts(stage.part), "", ""
            )


def _name(stage: Stage, indent: str = "") -> Text:
    return Text(indent + " ".join(filter(None, (stage.name, stage.detail))))


def _bar(share: float | None) -> ProgressBar:
    return ProgressBar(total=1.0, completed=share or 0.0, width=BAR_CELLS, pulse=share is None)


def _counts(stage: Stage) -> tuple[str, str]:
    done = f"{stage.done:,}/{stage.total:,}" if stage.total else ""
    size = f"{stage.bytes / 1e6:,.1f}/{stage.planned_bytes / 1e6:,.1f} MB" if stage.planned_bytes else ""
    return done, size


def _seconds(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02}"


def _left(elapsed: float, share: float | None) -> str:
    """If it goes on as it went so far."""
    return _seconds(elapsed * (1 - share) / share) if share else ""
