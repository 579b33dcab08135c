"""The main job and other commands as processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
SOON_S = 30.0


def start(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """A command."""
    return subprocess.Popen(
        [sys.executable, "-m", "secformer_rt", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )


def launch(
    *arguments: str, environment: Mapping[str, str] | None = None
) -> tuple[subprocess.Popen[str], dict[str, psutil.Process]]:
    """A command, and the parties that it has started, by role."""
    launcher = start(*arguments, environment=environment)
    ends_at = time.monotonic() + SOON_S
    parties: dict[str, psutil.Process] = {}
    while len(parties) < 3 and time.monotonic() < ends_at:
        time.sleep(0.05)
        for child in psutil.Process(launcher.pid).children():
            words = child.cmdline()
            if "party" in words:
                parties[words[words.index("party") + 1]] = child
    assert len(parties) == 3, launcher.communicate()
    return launcher, parties
