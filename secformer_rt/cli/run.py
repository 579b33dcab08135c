"""``run``: the main job, here or on a running deployment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from secformer_rt.cli.options import (
    AsJson,
    Checkpoint,
    EmbeddingOption,
    PresetOption,
    deployment,
    embedding_kind,
    presets_directory,
    print_json,
    progress,
)
from secformer_rt.clients.main_job import checkpoint_job, run_job, run_job_on, summary, synthetic_job
from secformer_rt.clients.show import show
from secformer_rt.graph.preset import load_preset


def run(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to embed; two by default.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="Ask this running deployment instead of starting parties here.")
    ] = None,
    preset: PresetOption = "exact",
    checkpoint: Checkpoint = None,
    synthetic: Annotated[str | None, typer.Option(help="bert-tiny, bert-base or bert-large.")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="With --synthetic: tokens of each text.")] = 128,
    batch: Annotated[int, typer.Option(min=1, help="With --synthetic: texts.")] = 1,
    embedding: EmbeddingOption = "private",
    as_json: AsJson = False,
) -> None:
    """Start three parties here, ask them, and hold the answer against the plaintext model."""
    settings = None if config is None else deployment(config)
    chosen, kind = load_preset(preset, presets_directory()), embedding_kind(embedding)
    job = synthetic_job(synthetic, tokens, batch) if synthetic else checkpoint_job(checkpoint, texts or ())
    with progress(quiet=as_json) as on_progress:
        if settings is None:
            outcome = run_job(job, chosen, kind, on_progress=on_progress)
        else:
            outcome = run_job_on(settings, job, chosen, kind, on_progress=on_progress)
    if as_json:
        print_json(summary(outcome))
    else:
        show(outcome, Console())
