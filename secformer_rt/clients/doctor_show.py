"""An examination's findings for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from secformer_rt.clients.findings import Sheet, State

_STYLES: dict[State, str] = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}


def show_sheets(sheets: Sequence[Sheet], console: Console) -> None:
    """One table for this machine, and one for each link."""
    for sheet in sheets:
        title = f"{sheet.name} ({sheet.address})" if sheet.address else sheet.name
        table = Table(title=escape(title), title_justify="left", title_style="bold", header_style="")
        table.add_column("step", no_wrap=True)
        table.add_column("state", no_wrap=True)
        table.add_column("what")
        skipped = [finding for finding in sheet.findings if finding.state == "skipped"]
        for finding in sheet.findings[: len(sheet.findings) - len(skipped)]:
            state = f"[{_STYLES[finding.state]}]{finding.state}[/]"
            table.add_row(finding.step, state, escape(finding.text))
        if skipped:  # always the last ones, and not worth a line each
            why = skipped[0].text or "until that is mended"
            table.add_row(f"{len(skipped)} more", f"[{_STYLES['skipped']}]skipped[/]", escape(why))
        console.print(table)
