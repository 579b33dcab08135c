"""``bench``: measurements on real parties."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from secformer_rt.cli.options import AsJson, presets_directory, print_json, progress
from secformer_rt.clients.bench_ops import PAPER_OPS, bench_cases, bench_ops, bench_summary, parse_size
from secformer_rt.clients.bench_plot import check_plot, plot_bench
from secformer_rt.clients.bench_show import show_bench
from secformer_rt.graph.operations import OPERATION_NAMES
from secformer_rt.graph.preset import load_preset

DEFAULT_PRESETS = ("exact", "secformer")

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
Plot = Annotated[Path | None, typer.Option(help="A PNG or SVG file to plot to.")]


@bench.callback()
def _group() -> None:
    """Without a callback, typer makes an only command the group itself."""


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
    presets = [load_preset(name, presets_directory()) for name in preset or DEFAULT_PRESETS]
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
