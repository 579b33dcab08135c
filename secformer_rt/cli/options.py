"""What the commands share: options, and reading them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from secformer_rt.clients.connection import OnProgress, ignore_progress
from secformer_rt.errors import BadConfigError
from secformer_rt.graph.bert import Embedding
from secformer_rt.graph.preset import Preset, load_preset
from secformer_rt.graph.ranges import Calibration
from secformer_rt.parties.access import Access
from secformer_rt.parties.settings import ROLES, Role, Settings, load_settings
from secformer_rt.scheduler.network import CUSTOM, Network, custom_network, find_network

RoleArgument = Annotated[str, typer.Argument(metavar="ROLE", help="server0, server1 or dealer")]
Config = Annotated[Path, typer.Option(help="The deployment's YAML file, the same for all parties.")]
PresetOption = Annotated[str, typer.Option(help="A preset's name, or a YAML file.")]
Checkpoint = Annotated[Path | None, typer.Option(help="A Hugging Face checkpoint directory.")]
CalibrationOption = Annotated[
    Path | None, typer.Option("--calibration", help="What `calibrate` wrote, instead of calibrating now.")
]
Synthetic = Annotated[str | None, typer.Option(help="bert-tiny, bert-base or bert-large.")]
Tokens = Annotated[int, typer.Option(min=1, help="With --synthetic: tokens of each text.")]
BatchOption = Annotated[int, typer.Option("--batch", min=1, help="Texts of one request.")]
EmbeddingOption = Annotated[str, typer.Option(help="private, or public-tables.")]
RoundTrip = Annotated[float | None, typer.Option(help="Round trip of a network of your own.")]
Rate = Annotated[float | None, typer.Option(help="Its rate in each direction, Mbit/s.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def presets_directory() -> Path:
    """Where the presets are: in the installed package, or in the checkout."""
    package = Path(__file__).parents[1]
    installed = package / "configs" / "presets"
    return installed if installed.is_dir() else package.parent / "configs" / "presets"


def chosen_preset(name: str) -> Preset:
    """A preset by name or file."""
    return load_preset(name, presets_directory())


def saved_calibration(path: Path | None) -> Calibration | None:
    """What `calibrate` wrote, if a file is given."""
    return None if path is None else Calibration.load(path)


def party_role(name: str) -> Role:
    """A party's name, checked."""
    if name not in ROLES:
        raise BadConfigError(f"There is no party {name!r}: choose one of {', '.join(ROLES)}.")
    return name


def embedding_kind(name: str) -> Embedding:
    """Who embeds, checked."""
    if name not in ("private", "public-tables"):
        raise BadConfigError(f"There is no embedding {name!r}: choose private or public-tables.")
    return cast(Embedding, name)


def chosen_networks(names: Sequence[str], rtt_ms: float | None, mbit: float | None) -> list[Network]:
    """Those named, each name once or several with commas; and one's own, wherever it has been described."""
    own = [] if rtt_ms is None and mbit is None else [custom_network(rtt_ms, mbit)]
    split = dict.fromkeys(part for name in names for word in name.split(",") if (part := word.strip()))
    if CUSTOM in split and not own:
        raise BadConfigError("Network profile 'custom' needs --rtt-ms, --mbit or both.")
    return [find_network(name) for name in split if name != CUSTOM] + own


def deployment(config: Path, *roles: str) -> Settings:
    """A deployment that this client talks to, after a look at the certificates of the roles that it takes.

    Raises:
        BadConfigError: the configuration is wrong, or does not say how links are protected.
        BadCertificateError: a certificate is missing or of no use.
    """
    settings = load_settings(config)
    for role in roles:  # now, rather than after minutes of work
        Access(settings, role)
    return settings


def print_json(value: dict[str, Any]) -> None:
    """One object on standard output."""
    sys.stdout.write(json.dumps(value) + "\n")


class progress:  # noqa: N801 - used like a function
    """A progress line on standard error, where that is a terminal."""

    def __init__(self, *, quiet: bool) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
        # Without a terminal rich would print an empty line at the end.
        quiet = quiet or not console.is_terminal
        self._bar = Progress(*columns, TimeElapsedColumn(), console=console, transient=True, disable=quiet)
        self._quiet = quiet

    def __enter__(self) -> OnProgress:
        self._bar.start()
        self._task = self._bar.add_task("start", total=None)
        return ignore_progress if self._quiet else self._update

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _update(self, phase: str, done: int, total: int) -> None:
        self._bar.update(self._task, description=phase, completed=done, total=total)
