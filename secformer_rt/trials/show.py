"""Trials as tables for people, and soaks as curves."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from secformer_rt.clients.tables import number_table
from secformer_rt.errors import BadConfigError
from secformer_rt.trials.soak import Soak
from secformer_rt.trials.verdicts import Trials


def show_faults(found: Trials, console: Console) -> None:
    """Print how cases ended, and what must be 0."""
    outcomes = Counter((verdict.fault, verdict.outcome) for verdict in found.verdicts)
    names = sorted({outcome for _, outcome in outcomes})
    table = number_table(f"Faults, seed {found.seed}", "fault", "cases", *names)
    for fault in dict.fromkeys(verdict.fault for verdict in found.verdicts):
        counts = [outcomes[fault, name] for name in names]
        table.add_row(fault, str(sum(counts)), *map(str, counts))
    console.print(table)
    table = number_table("Must be 0", "what", "count")
    for name, count in found.counts.items():
        table.add_row(name, str(count))
    console.print(table)
    for verdict in found.verdicts:
        for problem in verdict.problems:
            console.print(escape(f"{verdict.case}: {problem}. {verdict.sentence}"))
    slowest = max(verdict.seconds for verdict in found.verdicts)
    console.print(
        f"{len(found.verdicts)} cases, {found.names} names of randomness; all had ended"
        f" after {slowest:.1f} s at most.",
        highlight=False,
    )


def show_soak(found: Soak, console: Console) -> None:
    """Print the least that each process held after the warm-up and in the end, and what growth would show."""
    table = number_table(
        f"{found.inferences} inferences", "process", "RSS, MB", "at the end", "descriptors", "threads"
    )
    for name, growth in found.growth().items():
        first, last = growth.first, growth.last
        table.add_row(
            name,
            f"{first.rss_bytes / 1e6:.1f}",
            f"{last.rss_bytes / 1e6:.1f}",
            f"{first.descriptors} to {last.descriptors}",
            f"{first.threads} to {last.threads}",
        )
    console.print(table)
    console.print(
        f"Largest difference from plaintext {found.difference:.1e}; {found.seconds:.0f} s. {_noticed(found)}",
        highlight=False,
    )


def _noticed(found: Soak) -> str:
    noticed = [growth.noticed_bytes for growth in found.growth().values()]
    loss = max((each for each in noticed if each is not None), default=None)
    if loss is None:
        return "Too few inferences to see memory grow."
    return f"A loss of {loss / 1e3:.0f} kB an inference would show."


def plot_soak(found: Soak, path: Path) -> None:
    """Draw memory, descriptors and threads over inferences, a line for each process.

    Raises:
        BadConfigError: the file cannot be written.
    """
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # needs no display
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3)
    for name in found.names:
        samples = found.of(name)
        places = [sample.after for sample in samples]
        panels[0].plot(places, [sample.rss_bytes / 1e6 for sample in samples], label=name)
        panels[1].plot(places, [sample.descriptors for sample in samples])
        panels[2].plot(places, [sample.threads for sample in samples])
    for axes, title in zip(panels, ("resident memory, MB", "file descriptors", "threads"), strict=True):
        axes.set_title(title, fontsize="medium")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.35)
    figure.supxlabel("inferences", fontsize="medium")
    figure.legend(loc="outside upper center", ncols=len(found.names), frameon=False)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise BadConfigError(f"{path} cannot be written ({error.strerror}): name another file.") from error
