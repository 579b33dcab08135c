"""``provision`` and ``infer``: the model owner and the data owner of a running deployment."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from secformer_rt.cli.live import progress
from secformer_rt.cli.logs import LogFormat, LogLevelOption, LogOption, set_up_logs
from secformer_rt.cli.options import (
    AsJson,
    CalibrationOption,
    Checkpoint,
    CheckpointPreset,
    Config,
    EmbeddingOption,
    Overrides,
    deployment,
    embedding_kind,
    preset_for,
    print_json,
    saved_calibration,
)
from secformer_rt.clients.ask import ask, asked_summary, print_asked
from secformer_rt.clients.connection import Servers
from secformer_rt.clients.main_job import checkpoint_job, describe_job
from secformer_rt.clients.model_owner import provision as provision_model
from secformer_rt.clients.progress import Stage


def provision(
    config: Config,
    checkpoint: Checkpoint = None,
    preset: CheckpointPreset = None,
    calibration: CalibrationOption = None,
    embedding: EmbeddingOption = "private",
    overrides: Overrides = None,
    log: LogOption = LogFormat.AUTO,
    log_level: LogLevelOption = None,
    as_json: AsJson = False,
) -> None:
    """Share a checkpoint with a running deployment, and print the model's id."""
    set_up_logs(log, log_level, live=not as_json)
    settings = deployment(config, "model-owner", overrides=overrides)
    chosen, kind = preset_for(preset, checkpoint), embedding_kind(embedding)
    ranges = saved_calibration(calibration)
    job = checkpoint_job(checkpoint, ())
    with progress(quiet=as_json) as on_progress, Servers(settings, ["model-owner"]) as servers:
        on_progress(Stage("connect"))
        servers.wait_ready()
        manifest = describe_job(job, chosen, kind, on_progress, ranges)
        model = provision_model(servers, manifest, job.parameters, on_progress)
    if as_json:
        found = {"model_id": model.model_id, "model": manifest.model, "seconds": model.seconds}
        print_json({**found, "insecure": settings.insecure})
    else:
        sys.stdout.write(f"{model.model_id}\n")


def infer(
    texts: Annotated[list[str], typer.Argument(help="Texts to ask about.")],
    config: Config,
    model_id: Annotated[str | None, typer.Option(help="As provision printed it.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Where the tokenizer is.")] = None,
    overrides: Overrides = None,
    log: LogOption = LogFormat.AUTO,
    log_level: LogLevelOption = None,
    as_json: AsJson = False,
) -> None:
    """Ask a provisioned model: embeddings and their cosines, or the likeliest labels or next tokens."""
    set_up_logs(log, log_level, live=not as_json)
    settings = deployment(config, "data-owner", overrides=overrides)
    with progress(quiet=as_json) as on_progress, Servers(settings, ["data-owner"]) as servers:
        on_progress(Stage("connect"))
        servers.wait_ready()
        asked = ask(servers, texts, model_id, checkpoint, on_progress)
    if as_json:
        print_json({**asked_summary(asked), "insecure": settings.insecure})
    else:
        print_asked(asked, Console())
