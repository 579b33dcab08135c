"""``plan``: what a run would cost, without running it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from secformer_rt.cli.live import progress
from secformer_rt.cli.options import (
    AsJson,
    BatchOption,
    CalibrationOption,
    Checkpoint,
    CheckpointPreset,
    EmbeddingOption,
    MachineFile,
    Rate,
    ReportOption,
    RoundTrip,
    Synthetic,
    chosen_networks,
    chosen_preset,
    embedding_kind,
    preset_for,
    presets_directory,
    print_json,
    saved_calibration,
)
from secformer_rt.clients.plan_job import Asked, job_to_plan, plan_job, plan_presets, plan_summary
from secformer_rt.clients.plan_show import show_comparison, show_plan
from secformer_rt.errors import BadConfigError
from secformer_rt.graph.preset import Preset
from secformer_rt.pages.plan_page import plan_page
from secformer_rt.pages.write import check_report, write_report
from secformer_rt.scheduler.network import NETWORKS
from secformer_rt.scheduler.predict import Machine, work

Compare = Annotated[
    str | None, typer.Option(help="Presets side by side, instead of --preset: exact,secformer or all.")
]
TextTokens = Annotated[int, typer.Option("--tokens", min=1, help="Tokens of each text.")]
Padded = Annotated[bool, typer.Option("--padded", help="Texts may be shorter: plan with a secret mask.")]
Profiles = Annotated[
    list[str] | None,
    typer.Option("--profile", help=f"A network, repeatable; all by default: {', '.join(NETWORKS)}."),
]


def plan(
    preset: CheckpointPreset = None,
    compare: Compare = None,
    checkpoint: Checkpoint = None,
    synthetic: Synthetic = None,
    tokens: TextTokens = 128,
    batch: BatchOption = 1,
    padded: Padded = False,
    embedding: EmbeddingOption = "private",
    calibration: CalibrationOption = None,
    profile: Profiles = None,
    rtt_ms: RoundTrip = None,
    mbit: Rate = None,
    machine: MachineFile = None,
    report: ReportOption = None,
    as_json: AsJson = False,
) -> None:
    """Rounds, bytes, memory and predicted seconds of one inference, without running it."""
    if report is not None:
        check_report(report)
    presets, kind = _presets(preset, checkpoint, compare), embedding_kind(embedding)
    networks = chosen_networks(profile or list(NETWORKS), rtt_ms, mbit)
    rates = Machine() if machine is None else Machine.load(machine)
    if calibration is not None and compare is not None:
        raise BadConfigError("A calibration serves one preset: give --calibration or --compare, not both.")
    ranges = saved_calibration(calibration)
    asked = Asked(batch, tokens, padded)
    with progress(quiet=as_json) as on_progress:
        job = job_to_plan(synthetic, checkpoint, asked, ranges is not None)
        if compare is None:
            found = [plan_job(job, presets[0], kind, asked, ranges, on_progress)]
        else:
            refused = _left_out if compare == "all" else None
            found = plan_presets(job, presets, kind, asked, on_progress, refused)
    summaries = [plan_summary(planned, networks, rates) for planned in found]
    if as_json:
        print_json(summaries[0] if compare is None else {"plans": summaries})
    elif compare is None:
        show_plan(summaries[0], Console())
    else:
        show_comparison(summaries, Console())
    if report is not None:
        write_report(plan_page(summaries, [work(planned.plan) for planned in found], rates), report)


def _left_out(sentence: str) -> None:
    typer.echo(f"Left out: {sentence}", err=True)


def _presets(preset: str | None, checkpoint: Path | None, compare: str | None) -> list[Preset]:
    if compare is None:
        return [preset_for(preset, checkpoint)]
    if compare == "all":
        names = sorted(path.stem for path in presets_directory().glob("*.yaml"))
    else:
        names = [name for part in compare.split(",") if (name := part.strip())]
    if not names:
        raise BadConfigError("There is nothing to compare: name presets, as in --compare exact,secformer.")
    return [chosen_preset(name) for name in names]
