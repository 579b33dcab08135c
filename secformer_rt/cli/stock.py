"""``prepare`` and ``stock``: inferences prepared ahead, and how many of them there are."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from secformer_rt.cli.live import progress
from secformer_rt.cli.logs import LogFormat, LogLevelOption, LogOption, set_up_logs
from secformer_rt.cli.options import (
    AsJson,
    BatchOption,
    Checkpoint,
    Config,
    Overrides,
    deployment,
    party_role,
    print_json,
)
from secformer_rt.clients.ask import choose_model
from secformer_rt.clients.connection import Servers
from secformer_rt.clients.data_owner import describe
from secformer_rt.clients.prepare import prepare as prepare_ahead
from secformer_rt.clients.progress import Stage
from secformer_rt.clients.stock import discard, lots, show_stock, stock_summary
from secformer_rt.errors import BadConfigError
from secformer_rt.graph.checkpoint import default_checkpoint
from secformer_rt.graph.tokenizer import Tokenizer
from secformer_rt.parties.settings import load_settings

ModelId = Annotated[
    str | None,
    typer.Option("--model-id", "--model", help="As provision printed it; the only one by default."),
]


def prepare(
    config: Config,
    model_id: ModelId = None,
    count: Annotated[int, typer.Option(min=1, help="How many inferences.")] = 1,
    text: Annotated[str | None, typer.Option(help="A text as long as those to be asked.")] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help="Instead: tokens of each text.")] = None,
    batch: BatchOption = 1,
    padded: Annotated[bool, typer.Option("--padded", help="Texts of a request may be shorter.")] = False,
    checkpoint: Checkpoint = None,
    overrides: Overrides = None,
    log: LogOption = LogFormat.AUTO,
    log_level: LogLevelOption = None,
    as_json: AsJson = False,
) -> None:
    """Have both servers do the offline phase of inferences of one shape now, and keep it for later."""
    set_up_logs(log, log_level, live=not as_json)
    if (text is None) == (tokens is None):
        raise BadConfigError("The length is not clear: give --tokens, or a --text of that length.")
    settings = deployment(config, "data-owner", overrides=overrides)
    with progress(quiet=as_json) as on_progress, Servers(settings, ["data-owner"]) as servers:
        on_progress(Stage("connect"))
        servers.wait_ready()
        model_id, manifest = choose_model(describe(servers), model_id)
        if text is not None:
            tokenizer = Tokenizer.load(checkpoint or default_checkpoint(), manifest.transformer().positions)
            tokens = tokenizer.encode([text]).tokens
        assert tokens is not None
        found = prepare_ahead(servers, model_id, manifest, batch, tokens, padded, count, on_progress)
    if as_json:
        print_json({**asdict(found), "count": count, "insecure": settings.insecure})
    else:
        size = " and ".join(f"{size / 1e6:,.1f}" for size in found.stored_bytes)
        sys.stdout.write(f"{count} prepared, of {size} MB each on the servers' disks\n")


def stock(
    role: Annotated[str | None, typer.Argument(metavar="ROLE", help="server0 or server1")] = None,
    config: Annotated[Path | None, typer.Option(help="The deployment's YAML file.")] = None,
    directory: Annotated[Path | None, typer.Option(help="Instead: one party's directory.")] = None,
    discarded: Annotated[
        str | None, typer.Option("--discard", metavar="MODEL", help="Throw away what is for this model's id.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """What one server on this machine has prepared, by model and shape."""
    place = _directory(role, config, directory, overrides)
    if discarded is not None:
        count = discard(place, discarded)
        if as_json:
            print_json({"discarded": count})
        else:
            sys.stdout.write(f"{count} thrown away\n")
        return
    found = lots(place)
    if as_json:
        print_json(stock_summary(found))
    else:
        show_stock(found, Console())


def _directory(
    role: str | None, config: Path | None, directory: Path | None, overrides: list[str] | None
) -> Path:
    if directory is not None and role is None and config is None:
        return directory
    if directory is not None or role is None or config is None:
        raise BadConfigError("It is not clear whose stock: give --config and ROLE, or --directory alone.")
    store = load_settings(config, overrides or ()).store
    if store.directory is None:
        raise BadConfigError(f"Nothing is kept by this deployment: set store.directory in {config}.")
    return store.directory / party_role(role)
