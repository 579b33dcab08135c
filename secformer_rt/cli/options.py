"""What the commands share: options, and reading them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from secformer_rt.clients.choices import checkpoint_preset
from secformer_rt.clients.choices import chosen_preset as chosen_preset
from secformer_rt.clients.choices import embedding_kind as embedding_kind
from secformer_rt.clients.choices import presets_directory as presets_directory
from secformer_rt.errors import BadConfigError
from secformer_rt.graph.preset import Preset
from secformer_rt.graph.ranges import Calibration
from secformer_rt.parties.access import Access
from secformer_rt.parties.settings import ROLES, Role, Settings, load_settings
from secformer_rt.scheduler.network import CUSTOM, Network, custom_network, find_network

RoleArgument = Annotated[str, typer.Argument(metavar="ROLE", help="server0, server1 or dealer")]
Config = Annotated[Path, typer.Option(help="The deployment's YAML file, the same for all parties.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A value for a key of the configuration, repeatable: --set timeouts.progress_s=60.",
    ),
]
PresetOption = Annotated[str, typer.Option(help="A preset's name, or a YAML file.")]
CheckpointPreset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help="A preset's name, or a YAML file. By default the one that the checkpoint names, or else exact.",
    ),
]
Checkpoint = Annotated[Path | None, typer.Option(help="A Hugging Face checkpoint directory.")]
CalibrationOption = Annotated[
    Path | None, typer.Option("--calibration", help="What `calibrate` wrote, instead of calibrating now.")
]
Synthetic = Annotated[
    str | None,
    typer.Option(help="bert-tiny, bert-base, bert-large, gpt2-tiny, gpt2, aero-tiny or aero."),
]
Tokens = Annotated[int, typer.Option(min=1, help="With --synthetic: tokens of each text.")]
BatchOption = Annotated[int, typer.Option("--batch", min=1, help="Texts of one request.")]
EmbeddingOption = Annotated[str, typer.Option(help="private, or public-tables.")]
RoundTrip = Annotated[float | None, typer.Option(help="Round trip of a network of your own.")]
Rate = Annotated[float | None, typer.Option(help="Its rate in each direction, Mbit/s.")]
MachineFile = Annotated[
    Path | None, typer.Option("--machine", help="A YAML file of computing rates, instead of those measured.")
]
ReportOption = Annotated[
    Path | None, typer.Option("--report", help="An HTML file to write a page with plots to.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def preset_for(name: str | None, checkpoint: Path | None) -> Preset:
    """The preset asked for; without a name the one that the checkpoint was trained for, or else ``exact``.

    Raises:
        BadConfigError: there is no such preset.
        BadCheckpointError: the checkpoint names one in a way that is not valid.
    """
    if name is None and checkpoint is not None and (preset := checkpoint_preset(checkpoint)) is not None:
        typer.echo(f"Preset {preset.name}: {checkpoint / 'config.json'} names it.", err=True)
        return preset
    return chosen_preset(name or "exact")


def saved_calibration(path: Path | None) -> Calibration | None:
    """What `calibrate` wrote, if a file is given."""
    return None if path is None else Calibration.load(path)


def party_role(name: str) -> Role:
    """A party's name, checked."""
    if name not in ROLES:
        raise BadConfigError(f"There is no party {name!r}: choose one of {', '.join(ROLES)}.")
    return name


def chosen_networks(names: Sequence[str], rtt_ms: float | None, mbit: float | None) -> list[Network]:
    """Those named, each name once or several with commas; and one's own, wherever it has been described."""
    own = [] if rtt_ms is None and mbit is None else [custom_network(rtt_ms, mbit)]
    split = dict.fromkeys(part for name in names for word in name.split(",") if (part := word.strip()))
    if CUSTOM in split and not own:
        raise BadConfigError("Network profile 'custom' needs --rtt-ms, --mbit or both.")
    return [find_network(name) for name in split if name != CUSTOM] + own


def deployment(config: Path, *roles: str, overrides: Sequence[str] | None = None) -> Settings:
    """A deployment that this client talks to, after a look at the certificates of the roles that it takes.

    Raises:
        BadConfigError: the configuration is wrong, or does not say how links are protected.
        BadCertificateError: a certificate is missing or of no use.
    """
    settings = load_settings(config, overrides or ())
    for role in roles:  # now, rather than after minutes of work
        Access(settings, role)
    return settings


def print_json(value: dict[str, Any]) -> None:
    """One object on standard output."""
    sys.stdout.write(json.dumps(value) + "\n")
