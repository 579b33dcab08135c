"""``bench``: measurements on real parties."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from secformer_rt.cli.options import (
    AsJson,
    BatchOption,
    PresetOption,
    Rate,
    RoundTrip,
    Synthetic,
    Tokens,
    chosen_networks,
    chosen_preset,
    print_json,
    progress,
)
from secformer_rt.clients.bench_network import bench_network
from secformer_rt.clients.bench_network_show import network_summary, show_networks
from secformer_rt.clients.bench_ops import PAPER_OPS, bench_cases, bench_ops, bench_summary, parse_size
from secformer_rt.clients.bench_plot import check_plot, plot_bench
from secformer_rt.clients.bench_show import show_bench
from secformer_rt.clients.network_asker import Asked
from secformer_rt.graph.operations import OPERATION_NAMES
from secformer_rt.scheduler.network import CUSTOM, NETWORKS

DEFAULT_PRESETS = ("exact", "secformer")
DEFAULT_NETWORKS = ("lan", "wan")

bench = typer.Typer(no_args_is_help=True, help="Measure on real parties, started here.")

Ops = Annotated[
    list[str] | None,
    typer.Option(
        "--op",
        help=f"An operation, repeatable: {', '.join(OPERATION_NAMES)}. By default {', '.join(PAPER_OPS)}.",
    ),
]
Presets = Annotated[
    list[str] | None,
    typer.Option(
        "--preset",
        help=f"A preset's name or file, repeatable. By default {' and '.join(DEFAULT_PRESETS)}.",
    ),
]
Sizes = Annotated[
    list[str] | None,
    typer.Option(
        "--size", help="Rows and columns, as in 128x768, repeatable. By default three for each operation."
    ),
]
Repeats = Annotated[int, typer.Option(min=1, max=1000, help="Measured runs, after one that is not counted.")]
Profiles = Annotated[
    list[str] | None,
    typer.Option(
        "--profile",
        help=f"Networks, as in lan,wan: {', '.join(NETWORKS)} or {CUSTOM}."
        f" By default {' and '.join(DEFAULT_NETWORKS)}; the loopback interface is always measured.",
    ),
]
WarmRuns = Annotated[int, typer.Option("--repeats", min=1, max=1000, help="Inferences after the first one.")]
Plot = Annotated[Path | None, typer.Option(help="A PNG or SVG file to plot to.")]


@bench.command()
def ops(
    op: Ops = None,
    preset: Presets = None,
    size: Sizes = None,
    repeats: Repeats = 3,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """One operation at a time: seconds, rounds, bytes and error over sizes."""
    presets = [chosen_preset(name) for name in preset or DEFAULT_PRESETS]
    cases = bench_cases(op or PAPER_OPS, presets, [parse_size(text) for text in size or ()])
    if plot is not None:
        check_plot(plot)
    with progress(quiet=as_json) as on_progress:
        found = bench_ops(cases, repeats, on_progress=on_progress)
    if as_json:
        print_json(bench_summary(found))
    else:
        show_bench(found, Console())
    if plot is not None:
        plot_bench(found, plot)


@bench.command()
def network(
    profile: Profiles = None,
    rtt_ms: RoundTrip = None,
    mbit: Rate = None,
    synthetic: Synthetic = None,
    tokens: Tokens = 128,
    batch: BatchOption = 1,
    preset: PresetOption = "exact",
    repeats: WarmRuns = 5,
    as_json: AsJson = False,
) -> None:
    """One inference over emulated links, beside the plan's prediction; needs Linux and root."""
    is_custom = rtt_ms is not None or mbit is not None
    names = profile or ([] if is_custom else DEFAULT_NETWORKS)
    networks = chosen_networks(names, rtt_ms, mbit)
    asked = Asked(synthetic=synthetic, tokens=tokens, batch=batch)
    chosen = chosen_preset(preset)
    with progress(quiet=as_json) as on_progress:
        found = bench_network(networks, asked, chosen, repeats, on_progress=on_progress)
    if as_json:
        print_json(network_summary(found))
    else:
        show_networks(found, Console())
