"""What a process keeps of memory that it no longer uses."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress


def give_back() -> None:
    """Return freed memory to the system.

    The C library keeps what freed tensors of up to 32 MB leave behind, and a model has hundreds of them.
    Where it cannot be asked, nothing happens.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
