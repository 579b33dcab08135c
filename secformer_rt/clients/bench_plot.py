"""Measurements of single operations, as a plot."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from secformer_rt.clients.bench_ops import Measurement
from secformer_rt.errors import BadConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLOT_SUFFIXES = (".png", ".svg")
TITLES = {
    "gelu": "GeLU",
    "relu": "ReLU",
    "layernorm": "LayerNorm",
    "reciprocal": "1/x",
    "rsqrt": "1/sqrt(x)",
}
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito's
MARKERS = "osD^vP"
DASHES = (0, (4, 2))


def check_plot(path: Path) -> None:
    """Refuse a file that cannot be plotted to, before anything is measured.

    Raises:
        BadConfigError: it is neither PNG nor SVG, or its directory is missing.
    """
    if path.suffix.lower() not in PLOT_SUFFIXES:
        raise BadConfigError(f"{path} is no kind of plot: name a file that ends in .png or .svg.")
    if not path.parent.is_dir():
        raise BadConfigError(f"{path.parent} is not a directory: name a file in one that exists.")


def plot_bench(found: Sequence[Measurement], path: Path) -> None:
    """Draw one column for each operation: online seconds above, errors below, against size.

    Raises:
        BadConfigError: the file cannot be written.
    """
    # It takes a moment to import, no other command needs it, and it logs what is no concern of ours.
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # needs no display
    from matplotlib.figure import Figure

    ops = list(dict.fromkeys(result.op for result in found))
    presets = list(dict.fromkeys(result.preset for result in found))
    figure = Figure(figsize=(max(6.5, 2.7 * len(ops)), 6.0), layout="constrained")
    FigureCanvasAgg(figure)
    grid: list[list[Axes]] = figure.subplots(2, len(ops), sharex="col", sharey="row", squeeze=False).tolist()
    for column, op in enumerate(ops):
        above, below = grid[0][column], grid[1][column]
        for axes in (above, below):
            axes.set_xscale("log")
            axes.set_yscale("log", nonpositive="clip")
            axes.grid(which="major", alpha=0.35)
        for index, preset in enumerate(presets):
            chosen = [result for result in found if (result.op, result.preset) == (op, preset)]
            _draw(above, below, sorted(chosen, key=_numbers), index)
        above.set_title(TITLES.get(op, op))
        _label_sizes(below, [result for result in found if result.op == op])
    grid[0][0].set_ylabel("online seconds\n(median; band: least to most)")
    grid[1][0].set_ylabel("largest absolute error")
    figure.supxlabel("size (rows × columns)", fontsize="medium")
    _legend(figure, presets)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise BadConfigError(f"{path} cannot be written ({error.strerror}): name another file.") from error


def _numbers(result: Measurement) -> int:
    return result.rows * result.columns


def _style(index: int) -> dict[str, Any]:
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


def _draw(above: Axes, below: Axes, chosen: Sequence[Measurement], index: int) -> None:
    """One preset's lines in one column."""
    style = _style(index)
    numbers = [_numbers(result) for result in chosen]
    runs = [result.seconds.online for result in chosen]
    least, most = [min(seconds) for seconds in runs], [max(seconds) for seconds in runs]
    above.fill_between(numbers, least, most, color=style["color"], alpha=0.15, linewidth=0)
    above.plot(numbers, [median(seconds) for seconds in runs], **style)
    # Where both errors agree, the smaller marks lie inside the larger ones.
    below.plot(numbers, [r.error_vs_exact for r in chosen], **style, markersize=7)
    oracle = [r.error_vs_oracle for r in chosen]
    below.plot(numbers, oracle, **style, markersize=4, markerfacecolor="white", linestyle=DASHES)


def _label_sizes(axes: Axes, chosen: Sequence[Measurement]) -> None:
    """A tick for each size that was measured, and no other."""
    sizes = {_numbers(result): f"{result.rows}×{result.columns}" for result in chosen}
    axes.set_xticks(list(sizes), list(sizes.values()), rotation=30, ha="right", rotation_mode="anchor")
    axes.set_xticks([], minor=True)


def _legend(figure: Figure, presets: Sequence[str]) -> None:
    """One legend for all panels: presets by colour, and what the two kinds of error line are."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], **_style(index), label=preset) for index, preset in enumerate(presets)]
    handles += [
        Line2D([], [], color="0.3", label="error from the function"),
        Line2D([], [], color="0.3", linestyle=DASHES, label="error from the preset in plaintext"),
    ]
    columns = len(handles) if figure.get_figwidth() > 9 else 2
    figure.legend(handles=handles, loc="outside upper center", ncols=columns, frameon=False)
