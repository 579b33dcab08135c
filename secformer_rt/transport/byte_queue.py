"""A queue between two threads that counts bytes, so that neither end can fill the memory of the other."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
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

    Attributes:
        drained_at: When something was last taken, on the monotonic clock; items of no bytes do not count.
    """

    def __init__(self) -> None:
        self._items: deque[tuple[T, int]] = deque()
        self._held_bytes = 0
        self._closed = False
        self._lock = threading.Lock()
        self._filled = threading.Condition(self._lock)
        self._drained = threading.Condition(self._lock)
        self.drained_at = time.monotonic()

    def put(self, item: T, nbytes: int) -> bool:
        """Append an item without ever blocking; False once the queue is closed."""
        with self._lock:
            if self._closed:
                return False
            self._items.append((item, nbytes))
            self._held_bytes += nbytes + ITEM_OVERHEAD_BYTES
            self._filled.notify()
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
            while self._held_bytes > limit_bytes and not self._closed:
                _wait(self._drained, patience)
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
        with self._lock:
            while not self._items:
                if self._closed:
                    return None
                _wait(self._filled, patience)
            item, nbytes = self._items.popleft()
            self._held_bytes -= nbytes + ITEM_OVERHEAD_BYTES
            if nbytes:
                self.drained_at = time.monotonic()
            self._drained.notify_all()
            return item

    def clear(self) -> None:
        """Forget everything that waits in the queue."""
        with self._lock:
            self._items.clear()
            self._held_bytes = 0
            self._drained.notify_all()

    def close(self, *, drop: bool = False) -> None:
        """Take no more items and release everybody who waits.

        Args:
            drop: Forget what is queued, instead of letting it drain.
        """
        with self._lock:
            self._closed = True
            if drop:
                self._items.clear()
                self._held_bytes = 0
            self._filled.notify_all()
            self._drained.notify_all()

    @property
    def empty(self) -> bool:
        """Whether nothing waits in the queue."""
        return not self._items


def _wait(condition: threading.Condition, patience: Patience | None) -> None:
    if patience is None:
        condition.wait()
        return
    remaining_s = patience.remaining_s()
    if remaining_s <= 0:
        raise TimeoutError
    condition.wait(remaining_s)
