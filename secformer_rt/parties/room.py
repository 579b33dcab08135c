"""How much memory all runs of a server together may use for what could be computed later."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Room:
    """So many bytes, which runs share: the first come are served."""

    def __init__(self, size: float) -> None:
        self._left = size
        self._lock = threading.Lock()

    @contextmanager
    def granted(self, wanted: float) -> Iterator[float]:
        """Bytes that the block may use: as many as are wanted, or as are left."""
        with self._lock:
            given = min(wanted, self._left)
            self._left -= given
        try:
            yield given
        finally:
            with self._lock:
                self._left += given
