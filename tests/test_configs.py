"""Every configuration that comes with the project can be read."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from secformer_rt.graph.preset import load_preset
from secformer_rt.parties.settings import Settings, load_settings

CONFIGS = Path(__file__).parent.parent / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_deployment_is_valid(path: Path) -> None:
    settings = load_settings(path)
    assert settings.insecure  # until links can be encrypted, no party starts without it


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("presets/*.yaml")), ids=lambda path: path.name)
def test_preset_is_valid_and_named_like_its_file(path: Path) -> None:
    assert load_preset(path.stem, path.parent).name == path.stem
    assert load_preset(str(path), Path()).name == path.stem


def test_local_deployment_shows_every_key() -> None:
    given = yaml.safe_load((CONFIGS / "local.yaml").read_text(encoding="utf-8"))
    every = Settings.model_validate(given).model_dump(mode="json")
    assert set(given) == set(every)
    assert set(given["timeouts"]) == set(every["timeouts"])
