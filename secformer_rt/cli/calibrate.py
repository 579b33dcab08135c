"""``calibrate``: measure a model's ranges once, for plans and runs to come."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from secformer_rt.cli.live import progress
from secformer_rt.cli.options import (
    AsJson,
    Checkpoint,
    CheckpointPreset,
    Synthetic,
    Tokens,
    preset_for,
    print_json,
)
from secformer_rt.clients.main_job import Job, calibrate_job, checkpoint_job, synthetic_job
from secformer_rt.errors import BadInputError
from secformer_rt.graph.models import build_graph
from secformer_rt.graph.ranges import DEFAULT_HEADROOM, derived_constants

Texts = Annotated[Path | None, typer.Option(help="Sample texts, one a line; bundled ones by default.")]
Output = Annotated[Path | None, typer.Option(help="File to write; MODEL-PRESET.yaml by default.")]
Headroom = Annotated[float, typer.Option(min=1.0, help="By how much a value may exceed what was seen.")]


def calibrate(
    output: Output = None,
    preset: CheckpointPreset = None,
    checkpoint: Checkpoint = None,
    texts: Texts = None,
    synthetic: Synthetic = None,
    tokens: Tokens = 128,
    headroom: Headroom = DEFAULT_HEADROOM,
    as_json: AsJson = False,
) -> None:
    """Run sample texts in plaintext, and write the range of every number that matters."""
    chosen = preset_for(preset, checkpoint)
    job = _job(checkpoint, texts, synthetic, tokens)
    path = output or Path(f"{job.name}-{chosen.name}.yaml")
    with progress(quiet=as_json) as on_progress:
        found = calibrate_job(job, chosen, on_progress, headroom)
    graph = build_graph(job.architecture, 1, 1, masked=False, embedding="private")
    found.save(path, derived_constants(graph, chosen, found))
    if as_json:
        print_json({"model": job.name, "file": str(path), **found.model_dump(mode="json")})
    else:
        sys.stdout.write(f"{path}\n")


def _job(checkpoint: Path | None, texts: Path | None, synthetic: str | None, tokens: int) -> Job:
    if synthetic:
        return synthetic_job(synthetic, tokens, 1)
    return checkpoint_job(checkpoint, (), calibration_texts=_lines(texts) if texts else ())


def _lines(path: Path) -> list[str]:
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path} cannot be read as text: give a UTF-8 file, one text a line.") from error
    if not lines:
        raise BadInputError(f"{path} holds no text: give at least one line.")
    return lines
