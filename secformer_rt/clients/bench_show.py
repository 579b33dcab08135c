"""Measurements of single operations, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from secformer_rt.clients.bench_ops import Measurement
from secformer_rt.clients.machine import this_machine
from secformer_rt.clients.tables import number_table


def show_bench(found: Sequence[Measurement], console: Console) -> None:
    """Print what each measurement cost, then how long it took and how far it erred."""
    console.print(_costs(found))
    console.print(_seconds(found))
    machine = this_machine()
    console.print(
        "Bytes in both directions, medians of seconds; error from the function itself, and from the preset's"
        f" approximation in plaintext; {machine.cores} cores of {machine.cpu}",
        markup=False,
        highlight=False,
    )


def _costs(found: Sequence[Measurement]) -> Table:
    table = number_table("Costs", "operation", "preset", "rounds", "server link", "dealer")
    for result in found:
        table.add_row(
            f"{result.op} {result.size}",
            escape(result.preset),
            f"{result.rounds:,}",
            _bytes(result.bytes["server0_server1"]),
            _bytes(result.dealer_bytes),
        )
    return table


def _seconds(found: Sequence[Measurement]) -> Table:
    table = number_table(
        "Seconds and errors", "operation", "preset", "offline", "online", "error", "from preset"
    )
    for result in found:
        table.add_row(
            f"{result.op} {result.size}",
            escape(result.preset),
            f"{median(result.seconds.offline):.3f}",
            f"{median(result.seconds.online):.3f}",
            f"{result.error_vs_exact:.1e}",
            f"{result.error_vs_oracle:.1e}",
        )
    return table


def _bytes(size: int) -> str:
    return f"{size / 1e3:.1f} kB" if size < 1e6 else f"{size / 1e6:.1f} MB"
