"""The machine that a benchmark ran on: what its numbers cannot be read without."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class MachineNote:
    """``cores`` are those that this process may use."""

    cores: int
    cpu: str


def this_machine() -> MachineNote:
    """This machine, as its operating system describes it."""
    # Not every system can bind a process to some of its cores.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return MachineNote(cores, _cpu_name())


def _cpu_name() -> str:
    """The processor's name; its architecture where Linux's list of processors has none."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
