"""The journal of prepared inferences that may still be used."""

from __future__ import annotations

import re
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Final

from secformer_rt.parties.durable import Log

_LINES: Final = 1024  # from how many on it is rewritten once most of them say nothing any more
_LINE: Final = re.compile(r"[+-][0-9a-f]{32}")


class Issued:
    """Ids that have been written down and not been used, in memory and in a file that outlives it.

    An id that is not there counts as used, so a journal that is lost or damaged makes all useless rather than
    anything usable twice; and the file need not remember what has been used.
    """

    def __init__(self, path: Path) -> None:
        """Read the file, or begin one."""
        self._lock = threading.Lock()
        self._log = Log(path)
        self._ids: set[str] = set()
        if all(map(_LINE.fullmatch, self._log.lines)):
            for line in self._log.lines:
                if line[0] == "+":
                    self._ids.add(line[1:])
                else:
                    self._ids.discard(line[1:])

    def __contains__(self, run_id: str) -> bool:
        with self._lock:
            return run_id in self._ids

    def keep(self, run_ids: Collection[str]) -> None:
        """Forget all other ids."""
        with self._lock:
            self._ids &= set(run_ids)
            self._rewrite()

    def add(self, run_id: str) -> None:
        """Note an id; it is on disk when this returns.

        Raises:
            OSError: the disk does not take it.
        """
        with self._lock:
            if len(self._log.lines) >= max(_LINES, 4 * len(self._ids)):
                self._rewrite()
            self._log.append(f"+{run_id}")
            self._ids.add(run_id)

    def burn(self, run_id: str) -> None:
        """Note that an id is used; that is on disk when this returns.

        Raises:
            OSError: the disk does not take it.
        """
        with self._lock:
            self._ids.discard(run_id)
            self._log.append(f"-{run_id}")

    def _rewrite(self) -> None:
        self._log.rewrite([f"+{run_id}" for run_id in sorted(self._ids)])

    def close(self) -> None:
        """Let go of the file."""
        self._log.close()
