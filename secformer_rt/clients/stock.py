"""What a party has prepared, read from its directory: while it runs, too."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from secformer_rt.clients.tables import number_table
from secformer_rt.errors import BadConfigError
from secformer_rt.parties.stock import SUFFIX, About, read_about

SHOWN_DIGITS = 8


@dataclass(frozen=True, slots=True)
class Lot:
    """All inferences that are prepared for one model and one plan. Ages are in seconds."""

    model_id: str
    model: str
    plan: str
    batch: int
    tokens: int
    padded: bool
    count: int
    bytes: int
    oldest_s: float
    newest_s: float


def lots(directory: Path) -> list[Lot]:
    """What is in one party's directory, by model and plan.

    Raises:
        BadConfigError: there is no such directory, or it cannot be read.
    """
    found: defaultdict[tuple[str, str], list[tuple[About, int]]] = defaultdict(list)
    for path in _files(directory):
        about = read_about(path)
        if about is not None:
            found[about.key].append((about, path.stat().st_size if path.exists() else 0))
    now = time.time()
    return [_lot(items, now) for _, items in sorted(found.items())]


def _files(directory: Path) -> list[Path]:
    try:
        return [path for path in directory.iterdir() if path.suffix == SUFFIX]
    except OSError as error:
        raise BadConfigError(
            f"{directory} cannot be read ({error.strerror}): give the directory of one party's store."
        ) from error


def _lot(items: Sequence[tuple[About, int]], now: float) -> Lot:
    about, ages = items[0][0], [max(0.0, now - about.made) for about, _ in items]
    return Lot(
        model_id=about.model_id,
        model=about.model,
        plan=about.plan,
        batch=about.batch,
        tokens=about.tokens,
        padded=about.masked,
        count=len(items),
        bytes=sum(size for _, size in items),
        oldest_s=max(ages),
        newest_s=min(ages),
    )


def discard(directory: Path, model_id: str) -> int:
    """Throw away all that is prepared for a model; how many there were.

    A party that runs finds them gone when it looks for them; its peer throws away its own then.

    Raises:
        BadConfigError: the directory cannot be read or changed.
    """
    count = 0
    for path in _files(directory):
        about = read_about(path)
        if about is not None and about.model_id == model_id:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise BadConfigError(f"{path} cannot be thrown away: {error.strerror}.") from error
            count += 1
    return count


def stock_summary(found: Sequence[Lot]) -> dict[str, Any]:
    """What ``stock --json`` prints."""
    return {"stock": [asdict(lot) for lot in found], "bytes": sum(lot.bytes for lot in found)}


def show_stock(found: Sequence[Lot], console: Console) -> None:
    """The same for people."""
    if not found:
        console.print("Nothing is prepared.")
        return
    table = number_table("Prepared", "model", "id", "texts", "tokens", "count", "MB", "oldest", "newest")
    for lot in found:
        tokens = f"{lot.tokens}, padded" if lot.padded else str(lot.tokens)
        ages = (f"{_age(lot.oldest_s)}", f"{_age(lot.newest_s)}")
        table.add_row(
            escape(lot.model),
            lot.model_id[:SHOWN_DIGITS],
            str(lot.batch),
            tokens,
            str(lot.count),
            f"{lot.bytes / 1e6:,.1f}",
            *ages,
        )
    console.print(table)


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
