"""Log lines: what happens, with the role and the run that it happens to; never values, texts or shares."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

Field = str | int | float
RUN_DIGITS = 8  # of a run's id, in every line of that run

_bound: ContextVar[Mapping[str, Field] | None] = ContextVar("bound", default=None)


def fields() -> dict[str, Field]:
    """What every line of this thread carries at the moment."""
    return dict(_bound.get() or {})


@contextmanager
def bound(**more: Field) -> Iterator[None]:
    """Lines that this thread logs in the block carry these fields, and those that the block notes."""
    token = _bound.set({**fields(), **more})
    try:
        yield
    finally:
        _bound.reset(token)


def note(**more: Field) -> None:
    """Lines that this thread logs from now on carry these fields, until the enclosing `bound` ends."""
    _bound.set({**fields(), **more})


def short(run_id: bytes) -> str:
    """A run's id as lines have it: servers, dealer and client write the same."""
    return run_id.hex()[:RUN_DIGITS]


def say(logger: logging.Logger, event: str, level: int = logging.INFO, **more: Field) -> None:
    """Log an event with fields of its own."""
    logger.log(level, event, extra={"fields": more})


def _of(record: logging.LogRecord) -> dict[str, Field]:
    found = fields() | getattr(record, "fields", {})
    if record.exc_info and record.exc_info[0] is not None:
        # The text of an unexpected exception may quote a secret; its type cannot.
        found["error"] = record.exc_info[0].__name__
    return {name: round(v, 6) if isinstance(v, float) else v for name, v in found.items()}


class JsonLines(logging.Formatter):
    """One JSON object a line: time (UTC), level, fields and event."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            **_of(record),
            "event": record.getMessage(),
        }
        return json.dumps(line)


class TextLines(logging.Formatter):
    """The same for people, in local time."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        found = _of(record)
        who = " ".join(str(found.pop(name)) for name in ("role", "run", "operation") if name in found)
        time = datetime.fromtimestamp(record.created).astimezone()
        rest = " ".join(f"{name}={json.dumps(v)}" for name, v in found.items())
        words = (f"{time:%Y-%m-%d %H:%M:%S}", record.levelname, who, record.getMessage(), rest)
        return " ".join(filter(None, words)).replace("\n", " ")
