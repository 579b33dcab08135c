"""Where links can be emulated."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from secformer_rt.emulation.tun import DEVICE

needs_emulation = pytest.mark.skipif(
    os.geteuid() != 0 or not os.access(DEVICE, os.R_OK | os.W_OK) or not Path("/proc/self/ns/net").exists(),
    reason=f"emulated links need root and {DEVICE}",
)
