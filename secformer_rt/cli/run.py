"""``run``: the main job, here or on a running deployment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from secformer_rt.cli.live import progress
from secformer_rt.cli.logs import LogFormat, LogLevelOption, LogOption, set_up_logs
from secformer_rt.cli.options import (
    AsJson,
    BatchOption,
    CalibrationOption,
    Checkpoint,
    CheckpointPreset,
    EmbeddingOption,
    Overrides,
    ReportOption,
    Synthetic,
    Tokens,
    deployment,
    embedding_kind,
    preset_for,
    print_json,
    saved_calibration,
)
from secformer_rt.clients.cluster import loopback_settings
from secformer_rt.clients.main_job import checkpoint_job, run_job, run_job_on, summary, synthetic_job
from secformer_rt.clients.show import show
from secformer_rt.pages.run_page import run_page
from secformer_rt.pages.write import check_report, write_report
from secformer_rt.parties.server import CLIENTS


def run(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to embed; two by default.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="Ask this running deployment instead of starting parties here.")
    ] = None,
    preset: CheckpointPreset = None,
    checkpoint: Checkpoint = None,
    calibration: CalibrationOption = None,
    synthetic: Synthetic = None,
    tokens: Tokens = 128,
    batch: BatchOption = 1,
    embedding: EmbeddingOption = "private",
    overrides: Overrides = None,
    report: ReportOption = None,
    log: LogOption = LogFormat.AUTO,
    log_level: LogLevelOption = None,
    as_json: AsJson = False,
) -> None:
    """Start three parties here, ask them, and hold the answer against the plaintext model."""
    set_up_logs(log, log_level, live=not as_json)
    if report is not None:
        check_report(report)
    settings = None if config is None else deployment(config, *CLIENTS, overrides=overrides)
    chosen, kind = preset_for(preset, checkpoint), embedding_kind(embedding)
    ranges = saved_calibration(calibration)
    if synthetic:
        job = synthetic_job(synthetic, tokens, batch)
    else:
        job = checkpoint_job(checkpoint, texts or (), batch)
    with progress(quiet=as_json) as on_progress:
        if settings is None:
            here = loopback_settings(overrides or ())  # late, so that nobody takes its ports
            outcome = run_job(job, chosen, kind, calibration=ranges, settings=here, on_progress=on_progress)
        else:
            outcome = run_job_on(settings, job, chosen, kind, calibration=ranges, on_progress=on_progress)
    if as_json:
        print_json(summary(outcome))
    else:
        show(outcome, Console())
    if report is not None:
        write_report(run_page(summary(outcome)), report)
