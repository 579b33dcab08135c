"""What a page is made of. Places and lengths are percentages unless they say otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

COLOURS = 8  # that the style sheet knows


@dataclass(frozen=True, slots=True)
class Key:
    """One entry of a legend: a ``style`` is c0 to c7, or a kind of mark."""

    label: str
    style: str


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a bar; ``tip`` is shown when it is pointed at."""

    width: float
    style: str
    tip: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A row of a bar chart, with a ``mark`` at what was expected, if anything was."""

    label: str
    value: str
    parts: tuple[Part, ...]
    mark: float | None = None


@dataclass(frozen=True, slots=True)
class Bars:
    """Rows of bars that start at nothing. ``alt`` says in words what they show."""

    kind: ClassVar[str] = "bars"
    title: str
    alt: str
    rows: tuple[Bar, ...]
    legend: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class Dot:
    """A mark on a strip."""

    at: float
    style: str
    tip: str


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a strip: marks, on a span from least to most if there is one."""

    label: str
    value: str
    dots: tuple[Dot, ...]
    start: float = 0.0
    width: float = 0.0


@dataclass(frozen=True, slots=True)
class Strip:
    """Marks along one axis."""

    kind: ClassVar[str] = "strip"
    title: str
    alt: str
    rows: tuple[Row, ...]
    ticks: tuple[tuple[float, str], ...]
    legend: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class Point:
    """A place on a line, in pixels."""

    x: float
    y: float
    tip: str


@dataclass(frozen=True, slots=True)
class Curve:
    """A line with its label at its end; ``points`` are its measured places. In pixels."""

    label: str
    style: str
    path: str
    label_y: float
    points: tuple[Point, ...] = ()


@dataclass(frozen=True, slots=True)
class Curves:
    """Lines in a drawing; ticks are in pixels."""

    kind: ClassVar[str] = "curves"
    title: str
    alt: str
    curves: tuple[Curve, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    x_label: str


@dataclass(frozen=True, slots=True)
class Cell:
    """A table's cell, the darker the closer ``strength`` is to 1."""

    text: str
    strength: float


@dataclass(frozen=True, slots=True)
class Heat:
    """A table with shaded cells."""

    kind: ClassVar[str] = "heat"
    title: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


Figure = Bars | Strip | Curves | Heat


@dataclass(frozen=True, slots=True)
class Table:
    """The same figures in full, behind a line that opens it."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, a sentence that says what there is to see, and what it shows."""

    name: str
    title: str
    says: str
    figures: Sequence[Figure]
    table: Table | None = None
    columns: int = 2
    legend: Sequence[Key] = ()  # of all figures


@dataclass(frozen=True, slots=True)
class Tile:
    """A key figure."""

    label: str
    value: str


@dataclass(frozen=True, slots=True)
class Page:
    """A page; ``insecure`` says that links were in plain text, and is None if there were none."""

    command: str
    subject: str
    headline: str
    details: Sequence[tuple[str, str]]
    tiles: Sequence[Tile]
    sections: Sequence[Section]
    insecure: bool | None = None


def colour(index: int) -> str:
    """The style of a series."""
    return f"c{index % COLOURS}"
