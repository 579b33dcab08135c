"""Ids of runs: each is used once, by every party, and tells when it was made."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from secformer_rt.errors import MismatchError, StoreError
from secformer_rt.parties.durable import Log

KEPT_S: Final = 7 * 86400
"""How long a used id is remembered on disk, and so how old an id may be."""
AHEAD_S: Final = 86400
"""How far a caller's clock may be ahead."""

_TIME_BYTES: Final = 4
_LINES: Final = 4096  # from how many on the file is looked through for old ones
_LINE: Final = re.compile(r"[0-9a-f]{32}( \w+)?")


def fresh_run_id() -> bytes:
    """Twelve random bytes and the time in seconds."""
    return os.urandom(12) + int(time.time()).to_bytes(_TIME_BYTES, "big")


def made_at(run_id: bytes) -> int:
    """When an id was made, in seconds since 1970, by its maker's clock."""
    return int.from_bytes(run_id[-_TIME_BYTES:], "big")


class BurntRuns:
    """The ids that a party has used, in memory and, if a path is given, in a file that outlives it.

    The file does not grow without end: ids older than a week are refused for their age.
    """

    def __init__(self, path: Path | None = None, now: Callable[[], float] = time.time) -> None:
        """Read the file, or begin one.

        Raises:
            StoreError: it is damaged.
            OSError: it cannot be read or written.
        """
        self._lock, self._now = threading.Lock(), now
        self._log = None if path is None else Log(path)
        self._burnt: set[str] = set()
        self._look_through_at = 0  # lines
        if path is not None and self._log is not None:
            if not all(map(_LINE.fullmatch, self._log.lines)):
                self._log.close()
                raise StoreError(f"{path} is damaged: remove the directory {path.parent} with all of it.")
            self._burnt.update(self._log.lines)
            self._forget()

    def burn(self, run_id: bytes, who: str = "") -> None:
        """Use an id; it is on disk when this returns.

        Args:
            run_id: of the run.
            who: for whom, where one run is asked for by several.

        Raises:
            MismatchError: it has been used, or its age cannot be right.
            StoreError: the disk does not take it.
        """
        line = f"{run_id.hex()} {who}".strip()
        with self._lock:
            if line in self._burnt:
                raise MismatchError("This run has been dealt before: randomness is never dealt twice.")
            if self._log is not None:
                if not self._is_current(run_id):
                    raise MismatchError(
                        "This run's id was made long ago, or in the future: ask again, and set the clocks."
                    )
                try:
                    if len(self._log.lines) >= self._look_through_at:
                        self._forget()
                    self._log.append(line)
                except OSError as error:
                    raise StoreError(
                        f"A used run cannot be noted on disk ({error.strerror}): make room in the store."
                    ) from error
            self._burnt.add(line)

    def _is_current(self, run_id: bytes) -> bool:
        return -AHEAD_S <= self._now() - made_at(run_id) <= KEPT_S

    def _forget(self) -> None:
        """Forget ids that are refused for their age."""
        assert self._log is not None
        self._burnt = {line for line in self._burnt if self._is_current(bytes.fromhex(line.split()[0]))}
        if len(self._burnt) < len(self._log.lines):
            self._log.rewrite(sorted(self._burnt))
        self._look_through_at = max(_LINES, 2 * len(self._burnt))

    def close(self) -> None:
        """Let go of the file."""
        if self._log is not None:
            self._log.close()
