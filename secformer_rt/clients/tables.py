"""Tables for people."""

from __future__ import annotations

from rich.table import Table


def number_table(title: str, *columns: str) -> Table:
    """A table whose first column is text, and the others numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="")
    for position, column in enumerate(columns):
        table.add_column(column, justify="right" if position else "left", no_wrap=True)
    return table
