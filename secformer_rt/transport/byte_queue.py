"""A queue between two threads that counts bytes, so that neither end can fill the memory of the other."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")

ITEM_OVERHEAD_BYTES = 256
"""What an item costs beyond its bytes: a flood of empty frames must hit the bound too."""


class Patience:
    """How long a wait may last without progress.

    Attributes:
        timeout_s: The limit.
    """

    def __init__(
        self, timeout_s: float, progress_at: Callable[[], float] | None = None, ends_at: float = math.inf
    ) -> None:
        """Start the clock.

        Args:
            timeout_s: The limit.
            progress_at: When there last was progress, on the monotonic clock; None if nothing extends it.
            ends_at: When the wait ends whatever extends it, on the same clock.
        """
        self.timeout_s = timeout_s
        self._started_at = time.monotonic()
        self._progress_at = progress_at
        self._ends_at = ends_at

    def remaining_s(self) -> float:
        """How many seconds are left, as of now."""
        since = self._started_at if self._progress_at is None else max(self._started_at, self._progress_at())
        return min(since + self.timeout_s, self._ends_at) - time.monotonic()


class ByteQueue(Generic[T]):
    """A first-in, first-out queue that is bounded in bytes only where a producer asks for it.

    Every message of a run goes through two of these, so items wait in the standard library's queue that is
    written in C. The last of a closed queue is None, which stays there for everybody who comes.

    Attributes:
        drained_at: When something was last taken, on the monotonic clock; items of no bytes do not count.
    """

    def __init__(self) -> None:
        self._items: SimpleQueue[tuple[T, int] | None] = SimpleQueue()
        self._held_bytes = 0
        self._closed = False
        self._lock = threading.Lock()
        self._drained = threading.Condition(self._lock)
        self._blocked = 0  # producers
        self.drained_at = time.monotonic()

    def put(self, item: T, nbytes: int) -> bool:
        """Append an item without ever blocking; False once the queue is closed."""
        with self._lock:
            if self._closed:
                return False
            self._held_bytes += nbytes + ITEM_OVERHEAD_BYTES
            self._items.put((item, nbytes))
            return True

    def wait_below(self, limit_bytes: int, patience: Patience | None = None) -> bool:
        """Block while the queue holds more than a limit.

        Args:
            limit_bytes: How much may wait in the queue.
            patience: How long to wait; None waits for ever.

        Returns:
            False if the queue is closed.

        Raises:
            TimeoutError: The patience ran out.
        """
        with self._lock:
            self._blocked += 1
            try:
                while self._held_bytes > limit_bytes and not self._closed:
                    _wait(self._drained, patience)
            finally:
                self._blocked -= 1
            return not self._closed

    def get(self, patience: Patience | None = None) -> T | None:
        """Take the oldest item.

        Args:
            patience: How long to wait; None waits for ever.

        Returns:
            The item, or None once the queue is closed and empty.

        Raises:
            TimeoutError: The patience ran out.
        """
        found = self._next(patience)
        if found is None:
            self._items.put(None)
            return None
        item, nbytes = found
        if nbytes:
            self.drained_at = time.monotonic()
        self._let_go(nbytes + ITEM_OVERHEAD_BYTES)
        return item

    def _next(self, patience: Patience | None) -> tuple[T, int] | None:
        if patience is None:
            return self._items.get()
        while True:
            remaining_s = patience.remaining_s()
            with suppress(Empty):
                return self._items.get(remaining_s > 0, max(0.0, remaining_s))
            if remaining_s <= 0:
                raise TimeoutError

    def _let_go(self, nbytes: int) -> None:
        with self._lock:
            self._held_bytes -= nbytes
            if self._blocked:
                self._drained.notify_all()

    def clear(self) -> None:
        """Forget everything that waits in the queue."""
        with suppress(Empty):
            while (found := self._items.get_nowait()) is not None:
                self._let_go(found[1] + ITEM_OVERHEAD_BYTES)
            self._items.put(None)

    def close(self, *, drop: bool = False) -> None:
        """Take no more items and release everybody who waits.

        Args:
            drop: Forget what is queued, instead of letting it drain.
        """
        with self._lock:
            self._closed = True
            self._drained.notify_all()
        if drop:
            self.clear()
        self._items.put(None)

    @property
    def empty(self) -> bool:
        """Whether nothing waits in the queue, not even word that it is closed."""
        return self._items.empty()


def _wait(condition: threading.Condition, patience: Patience | None) -> None:
    if patience is None:
        condition.wait()
        return
    remaining_s = patience.remaining_s()
    if remaining_s <= 0:
        raise TimeoutError
    condition.wait(remaining_s)
