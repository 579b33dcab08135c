"""``bench faults`` and ``bench soak``: real parties when something breaks, and in the long run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from secformer_rt.cli.live import progress
from secformer_rt.cli.logs import LogFormat, LogLevelOption, LogOption, set_up_logs
from secformer_rt.cli.options import AsJson, PresetOption, print_json
from secformer_rt.clients.bench_plot import check_plot
from secformer_rt.errors import SecformerError
from secformer_rt.trials.faults import run_faults
from secformer_rt.trials.show import plot_soak, show_faults, show_soak
from secformer_rt.trials.soak import run_soak

Seed = Annotated[int, typer.Option(min=0, help="Draws the cases: the same seed, the same cases.")]
Cases = Annotated[
    int,
    typer.Option(min=1, max=10_000, help="How many: 168 is each victim, phase and fault once."),
]
Inferences = Annotated[int, typer.Option(min=10, max=1_000_000, help="How many, in cycles of ten.")]
SoakTokens = Annotated[int, typer.Option("--tokens", min=1, max=512, help="Of each text.")]
SoakPlot = Annotated[Path | None, typer.Option("--plot", help="A PNG or SVG file to plot curves to.")]


def faults(
    seed: Seed = 1,
    cases: Cases = 30,
    log: LogOption = LogFormat.AUTO,
    log_level: LogLevelOption = None,
    as_json: AsJson = False,
) -> None:
    """Kill, freeze, restart and cut off real parties in every phase, and see that all end well.

    Exits with 1 if a case does not.
    """
    set_up_logs(log, log_level, live=not as_json)
    with progress(quiet=as_json) as on_progress:
        found = run_faults(seed, cases, on_progress)
    if as_json:
        print_json(found.summary())
    else:
        show_faults(found, Console())
    if not found.passed:
        raise SecformerError("Not all cases ended as they should: see the list above.")


def soak(
    inferences: Inferences = 300,
    preset: PresetOption = "exact",
    tokens: SoakTokens = 16,
    plot: SoakPlot = None,
    log: LogOption = LogFormat.AUTO,
    log_level: LogLevelOption = None,
    as_json: AsJson = False,
) -> None:
    """Ask one deployment again and again, and see that memory, descriptors and threads do not grow.

    Exits with 1 if they do, or if an answer is wrong.
    """
    set_up_logs(log, log_level, live=not as_json)
    if plot is not None:
        check_plot(plot)
    with progress(quiet=as_json) as on_progress:
        found = run_soak(inferences, preset, tokens, on_progress)
    if as_json:
        print_json(found.summary())
    else:
        show_soak(found, Console())
    if plot is not None:
        plot_soak(found, plot)
    if not found.passed:
        raise SecformerError("An answer was wrong, or a process grew: see the table above.")
