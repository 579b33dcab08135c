"""What trials read in the logs of parties: which runs are open, and which randomness was used."""

from __future__ import annotations

import io
import json
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from secformer_rt.parties.settings import Role

_RUNS: Final = (
    "provision",
    "prepare",
    "infer",
)  # operations that begin with "started"; all end with one of the next
_ENDS: Final = ("done", "failed")


class Witness(io.TextIOBase):
    """Takes the log of a `LocalCluster`, line by line, from one thread for each party.

    Attributes:
        tracebacks: Lines that are no log lines: a party should write none.
        randomness: How often a server has said the name of a run's randomness.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open: Counter[tuple[str, str]] = Counter()  # streams by party and run
        self._ready: set[str] = set()
        self._calls: dict[tuple[str, str], Callable[[], None]] = {}
        self.tracebacks: list[str] = []
        self.randomness: Counter[tuple[str, str]] = Counter()

    def write(self, text: str) -> int:
        """Take one line, after the role that wrote it."""
        role, _, line = text.strip().partition(": ")
        try:
            found: dict[str, Any] = json.loads(line)
            event = str(found["event"])
        except (ValueError, KeyError):
            if not line.startswith("error: "):
                self.tracebacks.append(text)
            return len(text)
        with self._changed:
            if found.get("operation") in _RUNS and "run" in found:
                run = role, found["run"]
                # What is refused at once has never started.
                self._open[run] = max(0, self._open[run] + (event == "started") - (event in _ENDS))
            if event == "ready":
                self._ready.add(role)
            if "randomness" in found:
                self.randomness[role, found["randomness"]] += 1
            call = self._calls.pop((role, event), None)
            self._changed.notify_all()
        if call is not None:
            call()
        return len(text)

    def when(self, role: Role, event: str, call: Callable[[], None]) -> None:
        """Do something, once, when a party says that something has happened."""
        with self._changed:
            self._calls[role, event] = call

    def forget(self, role: Role) -> None:
        """A party is gone, and its runs with it."""
        with self._changed:
            self._open = Counter({run: count for run, count in self._open.items() if run[0] != role})
            self._ready.discard(role)

    def reset(self) -> None:
        """Wait for no event any more."""
        with self._changed:
            self._calls.clear()

    def wait_ready(self, role: Role, timeout_s: float) -> bool:
        """Whether a party says in time that it can take a run."""
        with self._changed:
            return self._changed.wait_for(lambda: role in self._ready, timeout_s)

    def wait_idle(self, timeout_s: float) -> bool:
        """Whether every run that a living party has begun ends in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not any(self._open.values()), timeout_s)

    @property
    def reused(self) -> int:
        """How often a server has used randomness again."""
        return sum(count - 1 for count in self.randomness.values())
