"""``run``: the main job, here or on a running deployment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from secformer_rt.cli.options import (
    AsJson,
    BatchOption,
    CalibrationOption,
    Checkpoint,
    EmbeddingOption,
    PresetOption,
    Synthetic,
    Tokens,
    chosen_preset,
    deployment,
    embedding_kind,
    print_json,
    progress,
    saved_calibration,
)
from secformer_rt.clients.main_job import checkpoint_job, run_job, run_job_on, summary, synthetic_job
from secformer_rt.clients.show import show
from secformer_rt.parties.server import CLIENTS


def run(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to embed; two by default.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="Ask this running deployment instead of starting parties here.")
    ] = None,
    preset: PresetOption = "exact",
    checkpoint: Checkpoint = None,
    calibration: CalibrationOption = None,
    synthetic: Synthetic = None,
    tokens: Tokens = 128,
    batch: BatchOption = 1,
    embedding: EmbeddingOption = "private",
    as_json: AsJson = False,
) -> None:
    """Start three parties here, ask them, and hold the answer against the plaintext model."""
    settings = None if config is None else deployment(config, *CLIENTS)
    chosen, kind = chosen_preset(preset), embedding_kind(embedding)
    ranges = saved_calibration(calibration)
    if synthetic:
        job = synthetic_job(synthetic, tokens, batch)
    else:
        job = checkpoint_job(checkpoint, texts or (), batch)
    with progress(quiet=as_json) as on_progress:
        if settings is None:
            outcome = run_job(job, chosen, kind, calibration=ranges, on_progress=on_progress)
        else:
            outcome = run_job_on(settings, job, chosen, kind, calibration=ranges, on_progress=on_progress)
    if as_json:
        print_json(summary(outcome))
    else:
        show(outcome, Console())
