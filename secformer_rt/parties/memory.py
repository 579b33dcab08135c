"""What a process keeps of memory that it no longer uses."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Options of mallopt(3), and what they are set to: the C library hands the memory of freed tensors back to the
# system, and touching new memory costs more than most of what is computed in it.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT, _MAPPED = 1 << 30, 1 << 28


def keep_freed() -> None:
    """Keep up to 1 GB of freed memory for what comes next, until :func:`give_back`, as at the end of a run.

    Where the C library cannot be asked, nothing happens.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            library = ctypes.CDLL(None)
            library.mallopt(_TRIM_THRESHOLD, _KEPT)
            library.mallopt(_MMAP_THRESHOLD, _MAPPED)


@contextmanager
def given_back() -> Iterator[None]:
    """Return what a block has freed when it ends, however it ends."""
    try:
        yield
    finally:
        give_back()


def give_back() -> None:
    """Return freed memory to the system. Where the C library cannot be asked, nothing happens."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
