"""``evaluate``: a task's metric in plaintext, with a preset's approximations, and by the parties."""

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
    deployment,
    embedding_kind,
    preset_for,
    print_json,
    saved_calibration,
)
from secformer_rt.clients.cluster import loopback_settings
from secformer_rt.clients.evaluate import Asked
from secformer_rt.clients.evaluate import evaluate as evaluate_task
from secformer_rt.clients.evaluate_show import evaluation_summary, show_evaluation
from secformer_rt.distillation.tasks import find_task, read_task
from secformer_rt.parties.server import CLIENTS

TaskFile = Annotated[Path, typer.Argument(metavar="TASKFILE", help="GLUE's dev.tsv, or JSON lines.")]
TaskName = Annotated[str, typer.Option("--task", help="CoLA, SST-2, MRPC, STS-B, QNLI or RTE.")]
SecureLimit = Annotated[
    int, typer.Option(min=0, help="How many of the examples the parties are asked about, from the first on.")
]
MostTokens = Annotated[int, typer.Option(min=3, help="Longer texts are cut.")]
Threshold = Annotated[
    float | None,
    typer.Option(min=-1, max=1, help="For embeddings and a task with classes: least cosine of a pair alike."),
]


def evaluate(
    file: TaskFile,
    task: TaskName,
    checkpoint: Checkpoint = None,
    preset: CheckpointPreset = None,
    config: Annotated[
        Path | None, typer.Option(help="Ask this running deployment instead of starting parties here.")
    ] = None,
    secure_limit: SecureLimit = 100,
    threshold: Threshold = None,
    tokens: MostTokens = 128,
    batch: BatchOption = 1,
    calibration: CalibrationOption = None,
    embedding: EmbeddingOption = "private",
    overrides: Overrides = None,
    log: LogOption = LogFormat.AUTO,
    log_level: LogLevelOption = None,
    as_json: AsJson = False,
) -> None:
    """Answer a labelled task in plaintext, with approximations and by the parties, and compare."""
    set_up_logs(log, log_level, live=not as_json)
    chosen, kind = preset_for(preset, checkpoint), embedding_kind(embedding)
    asked = Asked(secure_limit, tokens, batch, threshold)
    wanted = find_task(task)
    examples = read_task(file, wanted)
    if config is None:
        settings = loopback_settings(overrides or ())
    else:
        settings = deployment(config, *CLIENTS, overrides=overrides)
    with progress(quiet=as_json) as on_progress:
        evaluation = evaluate_task(
            checkpoint,
            wanted,
            examples,
            chosen,
            asked,
            settings,
            here=config is None,
            embedding=kind,
            calibration=saved_calibration(calibration),
            on_progress=on_progress,
        )
    numbers = evaluation_summary(evaluation)
    if as_json:
        print_json(numbers)
    else:
        show_evaluation(numbers, Console())
