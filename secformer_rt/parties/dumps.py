"""What a crash leaves behind: nothing, since memory holds shares and seeds."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path
from typing import Final

_FILTER: Final = Path("/proc/self/coredump_filter")
_NOTHING: Final = "0x0"


def no_core_dumps() -> None:
    """Have this process and its children leave no core file, and no memory to a collector of dumps."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The kernel hands a dump to a collector whatever that limit says. Other systems have no such filter.
    with suppress(OSError):
        _FILTER.write_text(_NOTHING, encoding="ascii")
