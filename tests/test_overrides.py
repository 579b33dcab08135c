"""``--set``: every key of a deployment can be given another value on the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import pytest
import typer
import yaml
from pydantic import BaseModel

from secformer_rt.cli import app, main
from secformer_rt.clients.cluster import loopback_settings
from secformer_rt.errors import BadConfigError
from secformer_rt.parties.settings import ROLES, Settings, load_settings

PIN = "ab" * 32
ENDPOINTS = {role: {"bind": "127.0.0.1:7100", "address": "127.0.0.1:7100"} for role in ROLES}
GIVEN = {**ENDPOINTS, "tls": {"directory": "certs", "pins": {"server0": PIN}}}


def leaves(kind: type[BaseModel], prefix: str = "") -> dict[str, tuple[str, object]]:
    """For each key: a text that is not its value in GIVEN or its default, and what it stands for."""
    found: dict[str, tuple[str, object]] = {}
    for name, field in kind.model_fields.items():
        key = f"{prefix}{name}"
        (annotation,) = _without_none(field.annotation)
        if key == "tls.pins":
            found |= {f"{key}.{role}": ("CD:" * 31 + "CD", "cd" * 32) for role in ("server0", "dealer")}
        elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
            found |= leaves(annotation, f"{key}.")
        else:
            found[key] = _other_value(annotation, field.default)
    return found


def _without_none(annotation: Any) -> list[Any]:
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else [annotation]
    return [kind for kind in kinds if kind is not NoneType]


def _other_value(annotation: Any, default: Any) -> tuple[str, object]:
    if annotation is bool:
        return ("false", False) if default else ("true", True)
    if annotation is int:
        other = 1 if default is None else default + 1
        return str(other), other
    if annotation is float:
        return str(default / 4), default / 4
    if annotation is Path:
        return "elsewhere", Path.cwd() / "elsewhere"
    if get_args(annotation):  # a choice
        other = next(choice for choice in get_args(annotation) if choice != default)
        return str(other), other
    assert annotation is str, f"give this test a value of type {annotation}"
    return "[::1]:7200", "[::1]:7200"


LEAVES = leaves(Settings)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "deployment.yaml"
    path.write_text(yaml.safe_dump(GIVEN), encoding="utf-8")
    return path


def value(settings: Settings, key: str) -> object:
    found: Any = settings
    for name in key.split("."):
        found = found[name] if isinstance(found, dict) else getattr(found, name)
    return found


@pytest.mark.parametrize("key", LEAVES)
def test_every_key(config: Path, key: str) -> None:
    text, expected = LEAVES[key]
    words = [f"{key}={text}"]
    if key == "insecure":
        words.insert(0, "tls=null")
    before, after = load_settings(config), load_settings(config, words)
    assert value(after, key) == expected
    others = (
        LEAVES.keys()
        - {key, "tls.pins.dealer"}
        - ({k for k in LEAVES if "tls" in k} if len(words) > 1 else set())
    )
    for other in others:
        assert value(after, other) == value(before, other)


def test_keys_are_what_one_expects() -> None:
    assert {"server0.bind", "timeouts.progress_s", "tls.directory", "threads", "insecure"} <= LEAVES.keys()


def test_the_last_value_counts(config: Path) -> None:
    settings = load_settings(config, ["threads=2", "streams=4", "threads=3"])
    assert (settings.threads, settings.streams) == (3, 4)


def test_what_a_file_lacks_can_be_given(config: Path) -> None:
    config.write_text(yaml.safe_dump(ENDPOINTS), encoding="utf-8")
    assert load_settings(config, ["insecure=true"]).insecure
    settings = load_settings(config, ["tls.directory=/etc/certs", f"tls.pins.dealer={PIN}"])
    assert settings.tls is not None
    assert (settings.tls.directory, settings.tls.pins) == (Path("/etc/certs"), {"dealer": PIN})


def test_a_directory_is_relative_to_where_it_was_written(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = config.parent / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    given, in_file = load_settings(config, ["tls.directory=mine"]).tls, load_settings(config).tls
    assert given is not None
    assert in_file is not None
    assert given.directory == here / "mine"
    assert in_file.directory == config.parent / "certs"


@pytest.mark.parametrize("text", ["0.0.0.0:7200", "'0.0.0.0:7200'", '"0.0.0.0:7200"'])
def test_quotes_are_those_of_yaml(config: Path, text: str) -> None:
    assert load_settings(config, [f"server0.bind={text}"]).server0.bind == "0.0.0.0:7200"


def test_text_stays_text(config: Path) -> None:
    """YAML reads digits with colons as one number in base 60."""
    assert load_settings(config, ["server0.address=10:20"]).server0.address == "10:20"
    digits = "12" * 32
    tls = load_settings(config, [f"tls.pins.dealer={digits}"]).tls
    assert tls is not None
    assert tls.pins["dealer"] == digits


WRONG = {
    "timeouts.progres_s=5": "--set timeouts.progres_s: there is no such key, choose one of timeouts.conn",
    "bind=0.0.0.0:7100": "--set bind: there is no such key, choose one of server0, server1, dealer, tls, ",
    "threads": "--set threads: write KEY=VALUE",
    "threads=many": "--set threads=many is not valid: threads: ",
    "threads=0": "--set threads=0 is not valid: threads: ",
    "threads=": "threads: ",
    "threads.x=1": "threads: ",
    "server0=here": "server0: ",
    "insecure=perhaps": "insecure: ",
    "insecure=true": "tls and insecure exclude each other",
    "timeouts.progress_s=-1": r"timeouts\.progress_s: ",
    "tls.pins.mallory=ab": "there is no role 'mallory'",
    "tls.pins.dealer=ab": "the pin of dealer is no SHA-256",
    "tls=null": "does not say how links are protected",
}


@pytest.mark.parametrize("word", WRONG)
def test_what_is_wrong_is_said(config: Path, word: str) -> None:
    with pytest.raises(BadConfigError, match=WRONG[word]) as caught:
        load_settings(config, [word])
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def test_local_parties_too() -> None:
    settings = loopback_settings(["threads=2", "timeouts.connect_s=7"])
    assert (settings.threads, settings.timeouts.connect_s) == (2, 7.0)
    with pytest.raises(BadConfigError, match="--set thread: there is no such key"):
        loopback_settings(["thread=2"])


def options(command: Any, *names: str) -> dict[str, set[str]]:
    """The options of each command, by its name."""
    if not hasattr(command, "commands"):
        return {" ".join(names): {option for parameter in command.params for option in parameter.opts}}
    inner = command.commands.items()
    return {name: found for word, group in inner for name, found in options(group, *names, word).items()}


def test_every_command_that_reads_a_configuration_takes_values() -> None:
    found = options(typer.main.get_command(app))
    reading = {name for name, taken in found.items() if "--config" in taken}
    assert reading >= {"party", "health", "doctor", "provision", "infer", "run"}
    assert [name for name in reading if "--set" not in found[name]] == []


@pytest.mark.parametrize(
    "words",
    [
        ["party", "dealer"],
        ["health", "dealer"],
        ["doctor", "dealer"],
        ["provision"],
        ["infer", "text"],
        ["run"],
    ],
    ids=lambda words: words[0],
)
def test_commands_pass_values_on(
    config: Path, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--config", str(config), "--set", "streams=8", "--set", "threads=lots"]
    monkeypatch.setattr(sys, "argv", ["secformer-rt", *words, *given])
    with pytest.raises(SystemExit) as stop:
        main()
    out, err = capsys.readouterr()
    assert stop.value.code == BadConfigError.exit_code
    assert (out, err.count("error: ")) == ("", 1)
    assert "--set streams=8 --set threads=lots is not valid: threads: " in err
    assert str(config) in err
