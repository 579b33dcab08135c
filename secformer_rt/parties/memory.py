"""What a process keeps of memory that it no longer uses."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Options of mallopt(3), and what they are set to: the C library hands the memory of freed tensors back to the
# system, and touching new memory costs more than most of what is computed in it.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_KEPT, _MAPPED = 1 << 30, 1 << 28
# Every run has threads of its own, and the library would spread them over eight arenas a core. Each would
# grow to the most that a run takes, and what is free at the end of any but the first is never returned.
_ARENAS = 1


def keep_freed() -> None:
    """Keep up to 1 GB of freed memory for what comes next, until :func:`give_back`, as at the end of a run.

    To be called before there are other threads. Where the C library cannot be asked, nothing happens.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            library = ctypes.CDLL(None)
            library.mallopt(_ARENA_MAX, _ARENAS)
            library.mallopt(_TRIM_THRESHOLD, _KEPT)
            library.mallopt(_MMAP_THRESHOLD, _MAPPED)


def settle() -> None:
    """Take all objects that there are now as there to stay, so that collections need not look at them.

    Modules are most of the objects of a party: with them a collection takes a tenth of a second and comes
    after dozens of runs, without them it takes milliseconds.
    """
    gc.collect()
    gc.freeze()


@contextmanager
def given_back() -> Iterator[None]:
    """Return what a block has freed when it ends, however it ends."""
    try:
        yield
    finally:
        give_back()


def give_back() -> None:
    """Return freed memory to the system, where the C library can be asked.

    In a process that has settled, that includes what ended runs have left in cycles of references, such as a
    failure and the frames that it passed through.
    """
    if gc.get_freeze_count():
        gc.collect()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
