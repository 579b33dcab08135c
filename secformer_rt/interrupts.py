"""Ctrl-C and SIGTERM end a command in order: what it has started is stopped, and its files are removed."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """Raised in the main thread by a signal. No KeyboardInterrupt, which libraries take for themselves."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


@contextmanager
def interruptible() -> Iterator[None]:
    """Signals end the block, and then the process: one sentence, and exit code 130 or 143."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as nohup, or a shell's background, has asked for
            signal.signal(number, _interrupt)
    try:
        yield
    except Interrupted as interrupted:
        sys.stderr.write("error: interrupted.\n")
        sys.exit(interrupted.exit_code)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    for other in SIGNALS:  # cleaning up takes seconds at most, and is not to be cut short
        signal.signal(other, signal.SIG_IGN)
    raise Interrupted(number)
