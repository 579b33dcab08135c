"""Log lines on standard error: JSON for machines, text for people."""

from __future__ import annotations

import logging
import sys
from enum import StrEnum
from typing import Annotated

import typer

from secformer_rt.parties.logs import JsonLines, TextLines


class LogFormat(StrEnum):
    """How log lines are written."""

    AUTO = "auto"
    JSON = "json"
    TEXT = "text"


class LogLevel(StrEnum):
    """The least level that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


LogOption = Annotated[
    LogFormat, typer.Option("--log", help="How to log on standard error; auto is text for a terminal.")
]
LogLevelOption = Annotated[
    LogLevel | None, typer.Option(help="By default info; warning where a live view is shown.")
]


class StandardError(logging.Handler):
    """Writes to what standard error is at the moment: a live view puts such lines above itself."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


def set_up_logs(
    form: LogFormat = LogFormat.AUTO, level: LogLevel | None = None, *, live: bool = False
) -> None:
    """Write log lines from now on.

    Args:
        form: JSON or text; by default text for a terminal, and JSON for everything else.
        level: The least level; by default warnings where there is a live view, else information too.
        live: Whether the command shows a live view on a terminal.
    """
    terminal = sys.stderr.isatty()
    if form is LogFormat.AUTO:
        form = LogFormat.TEXT if terminal else LogFormat.JSON
    if level is None:
        level = LogLevel.WARNING if live and terminal else LogLevel.INFO
    handler = StandardError()
    handler.setFormatter(JsonLines() if form is LogFormat.JSON else TextLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("numba").setLevel(logging.WARNING)  # it would tell every step of every compilation
