"""``bench inference``: one inference beside plaintext and beside the machine's limits."""

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
    Checkpoint,
    CheckpointPreset,
    Overrides,
    ReportOption,
    Synthetic,
    deployment,
    preset_for,
    print_json,
)
from secformer_rt.clients.bench_growth import TOKENS
from secformer_rt.clients.bench_inference import bench_inference
from secformer_rt.clients.bench_inference_show import inference_summary, show_inference
from secformer_rt.clients.bench_job import bench_job
from secformer_rt.clients.cluster import loopback_settings
from secformer_rt.errors import BadConfigError
from secformer_rt.pages.inference_page import inference_page
from secformer_rt.pages.write import check_report, write_report
from secformer_rt.parties.server import CLIENTS
from secformer_rt.parties.settings import Settings

MAX_IN_FLIGHT = 256
LEAST_STREAMS = 16  # of parties that are started here

Measured = Annotated[int, typer.Option(min=1, max=1000, help="Measured inferences, after one that is not.")]
InFlight = Annotated[
    int, typer.Option(min=1, max=MAX_IN_FLIGHT, help="Ask so many at once in the end, and count a second's.")
]
Growth = Annotated[
    bool, typer.Option("--grow", help="Measure other sizes too: 16 to 512 tokens, and 1 to 16 texts.")
]
BenchTokens = Annotated[int, typer.Option("--tokens", min=2, help="Tokens of each text.")]


def inference(
    synthetic: Synthetic = None,
    tokens: BenchTokens = 128,
    checkpoint: Checkpoint = None,
    preset: CheckpointPreset = None,
    batch: BatchOption = 1,
    repeats: Measured = 5,
    prepared: Annotated[
        bool, typer.Option("--prepared", help="Prepare the inferences first: asking is online only then.")
    ] = False,
    in_flight: InFlight = 1,
    grow: Growth = False,
    config: Annotated[
        Path | None, typer.Option(help="Ask this running deployment instead of starting parties here.")
    ] = None,
    overrides: Overrides = None,
    report: ReportOption = None,
    log: LogOption = LogFormat.AUTO,
    log_level: LogLevelOption = None,
    as_json: AsJson = False,
) -> None:
    """One inference on real parties, beside the same model in plaintext and beside the machine's peaks."""
    set_up_logs(log, log_level, live=not as_json)
    if synthetic and checkpoint:
        raise BadConfigError("--synthetic and --checkpoint exclude each other: give one of them.")
    if report is not None:
        check_report(report)
    settings = None if config is None else deployment(config, *CLIENTS, overrides=overrides)
    chosen = preset_for(preset, checkpoint)
    job, make = bench_job(synthetic, checkpoint, tokens, batch, TOKENS if grow else ())
    with progress(quiet=as_json) as on_progress:
        found = bench_inference(
            job,
            chosen,
            repeats,
            settings or _here(overrides or (), in_flight),  # late, so that nobody takes its ports
            running=settings is not None,
            prepared=prepared,
            in_flight=in_flight,
            growth=make if grow else None,
            on_progress=on_progress,
        )
    if as_json:
        print_json(inference_summary(found))
    else:
        show_inference(found, Console())
    if report is not None:
        write_report(inference_page(inference_summary(found)), report)


def _here(words: list[str] | tuple[str, ...], in_flight: int) -> Settings:
    """Parties here; server 0 has two streams of every inference, and all are this client's."""
    streams = max(LEAST_STREAMS, 2 * in_flight + 2)
    return loopback_settings(words, streams=streams, streams_per_client=streams)
