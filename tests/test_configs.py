"""Configurations: those that come with the project can be read, and wrong ones are refused in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from secformer_rt.errors import BadConfigError
from secformer_rt.graph.preset import load_preset
from secformer_rt.parties.settings import ROLES, Settings, load_settings

CONFIGS = Path(__file__).parent.parent / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_deployment_is_valid(path: Path) -> None:
    settings = load_settings(path)
    assert settings.encryption() is not None
    assert not settings.insecure


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("presets/*.yaml")), ids=lambda path: path.name)
def test_preset_is_valid_and_named_like_its_file(path: Path) -> None:
    assert load_preset(path.stem, path.parent).name == path.stem
    assert load_preset(str(path), Path()).name == path.stem


def test_local_deployment_shows_every_key() -> None:
    given = yaml.safe_load((CONFIGS / "local.yaml").read_text(encoding="utf-8"))
    every = Settings.model_validate(given).model_dump(mode="json")
    assert set(given) == set(every)
    assert set(given["timeouts"]) == set(every["timeouts"])


ENDPOINTS = {role: {"bind": "127.0.0.1:7100", "address": "127.0.0.1:7100"} for role in ROLES}
PIN = "AB:" * 31 + "AB"


def written(directory: Path, **settings: object) -> Path:
    path = directory / "deployment.yaml"
    path.write_text(yaml.safe_dump({**ENDPOINTS, **settings}), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "does not say how links are protected: run `secformer-rt certs` and set tls: .* insecure: true"),
        (
            {"insecure": True, "tls": {"directory": "certs"}},
            "tls and insecure exclude each other",
        ),
        ({"tls": {}}, r"tls\.directory: field required"),
        ({"tls": {"directory": "certs", "ca": "ca.crt"}}, r"tls\.ca: extra"),
        ({"tls": {"directory": "certs", "pins": {"mallory": PIN}}}, "there is no role 'mallory'"),
        ({"tls": {"directory": "certs", "pins": {"dealer": "ab"}}}, "the pin of dealer is no SHA-256"),
    ],
)
def test_links_are_protected_in_one_way(tmp_path: Path, settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(BadConfigError, match=sentence) as caught:
        load_settings(written(tmp_path, **settings))
    assert str(caught.value).endswith(".")


def test_certificates_are_looked_for_beside_the_file(tmp_path: Path) -> None:
    settings = load_settings(written(tmp_path, tls={"directory": "certs", "pins": {"dealer": PIN}}))
    assert settings.tls is not None
    assert settings.tls.directory == tmp_path / "certs"
    assert settings.tls.pins == {"dealer": "ab" * 32}
    absolute = load_settings(written(tmp_path, tls={"directory": "/etc/certs"}))
    assert absolute.tls is not None
    assert absolute.tls.directory == Path("/etc/certs")


def test_plain_text_must_be_asked_for(tmp_path: Path) -> None:
    assert load_settings(written(tmp_path, insecure=True)).encryption() is None


@pytest.mark.parametrize("name", ["connect_s", "handshake_s", "progress_s", "run_s"])
def test_waits_end(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadConfigError, match=rf"timeouts\.{name}: input should be a finite number"):
        load_settings(written(tmp_path, insecure=True, timeouts={name: float("inf")}))


@pytest.mark.parametrize(
    ("key", "given"),
    [("expand_gb", {"expand_gb": float("inf")}), ("store.limit_gb", {"store": {"limit_gb": float("inf")}})],
)
def test_memory_and_disks_end(tmp_path: Path, key: str, given: dict[str, object]) -> None:
    with pytest.raises(BadConfigError, match=rf"{key}: input should be a finite number"):
        load_settings(written(tmp_path, insecure=True, **given))
