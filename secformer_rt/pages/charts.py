"""Charts from numbers: this is where values become places."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from secformer_rt.pages.parts import (
    Bar,
    Bars,
    Cell,
    Curve,
    Curves,
    Dot,
    Heat,
    Key,
    Part,
    Point,
    Row,
    Strip,
    colour,
)
from secformer_rt.pages.scale import Scale, linear, logarithmic

Format = Callable[[float], str]

# A drawing, in pixels: small enough that its text is legible when a telephone fits it to its width.
WIDTH, HEIGHT = 420, 270
LEFT, RIGHT, TOP, BOTTOM = 48, 336, 12, 222
LABEL_GAP, LABEL_LENGTH = 14, 12
FAR_APART = 30  # from the least to the most: an axis is logarithmic then


class Mark(NamedTuple):
    """A value on a strip."""

    value: float
    style: str
    meaning: str


class Spread(NamedTuple):
    """A row of a strip, with the least and the most of what was measured, if there is more than one."""

    label: str
    value: str
    marks: Sequence[Mark]
    ends: tuple[float, float] | None = None


class Series(NamedTuple):
    """A line: places by value."""

    label: str
    points: Sequence[tuple[float, float]]
    marked: bool = False


def bars(
    title: str, values: Mapping[str, float], shown: Format, styles: Mapping[str, str] | None = None
) -> Bars:
    """One bar for each value, all in one colour unless there are ``styles``."""
    drawn = stacks(title, {label: {label: value} for label, value in values.items()}, shown, styles)
    return replace(drawn, legend=())  # labels stand beside the bars


def stacks(
    title: str,
    values: Mapping[str, Mapping[str, float]],
    shown: Format,
    styles: Mapping[str, str] | None = None,
    *,
    most: float | None = None,
    expected: Mapping[str, float] | None = None,
) -> Bars:
    """One bar for each entry, of one piece for each value in it; ``most`` is the length of a full bar."""
    expected = expected or {}
    styles = styles or {}
    totals = {label: sum(parts.values()) for label, parts in values.items()}
    full = most or max([*totals.values(), *expected.values()], default=0.0) or 1.0
    rows = tuple(
        Bar(
            label,
            shown(totals[label]),
            tuple(
                Part(100 * value / full, styles.get(name, colour(0)), f"{name}: {shown(value)}")
                for name, value in parts.items()
                if value > 0
            ),
            100 * expected[label] / full if label in expected else None,
        )
        for label, parts in values.items()
    )
    used = dict.fromkeys(name for parts in values.values() for name in parts)
    legend = tuple(Key(name, styles[name]) for name in used if name in styles)
    told = "; ".join(f"{row.label} {row.value}" for row in rows)
    return Bars(title, f"{title}. {told}.", rows, legend)


def strip(
    title: str,
    rows: Sequence[Spread],
    shown: Format,
    axis: Format,
    scale: Scale | None = None,
    legend: Sequence[Key] = (),
) -> Strip:
    """Marks along one axis, which is logarithmic if they are far apart; ``axis`` writes its ticks."""
    values = [mark.value for row in rows for mark in row.marks]
    values += [end for row in rows for end in row.ends or ()]
    scale = scale or fitting(values)
    drawn = []
    for row in rows:
        start, end = (100 * scale.at(value) for value in row.ends or (scale.low, scale.low))
        dots = tuple(
            Dot(100 * scale.at(mark.value), mark.style, f"{mark.meaning}: {shown(mark.value)}")
            for mark in row.marks
        )
        drawn.append(Row(row.label, row.value, dots, start, end - start))
    ticks = tuple((100 * place, text) for place, text in scale.labelled(axis))
    told = "; ".join(f"{row.label} {row.value}" for row in rows)
    return Strip(title, f"{title}. {told}.", tuple(drawn), ticks, tuple(legend))


def fitting(values: Sequence[float]) -> Scale:
    """An axis for values; a logarithmic one if they are far apart."""
    positive = [value for value in values if value > 0]
    if positive and max(positive) > FAR_APART * min(positive):
        return logarithmic(positive)
    return linear(values)


def curves(
    title: str,
    series: Sequence[Series],
    x_label: str,
    x_shown: Format,
    y_shown: Format,
    y_axis: Format,
    x_ticks: Sequence[float] = (),
    y_scale: Scale | None = None,
) -> Curves:
    """Lines on two logarithmic axes; without ``x_ticks`` the horizontal one has round ones."""
    xs = [x for line in series for x, _ in line.points]
    ys = [y for line in series for _, y in line.points]
    x_scale = (
        Scale(min(xs), max(xs), tuple(x_ticks), True) if x_ticks and max(xs) > min(xs) else logarithmic(xs)
    )
    y_scale = y_scale or logarithmic(ys)

    def across(x: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * x_scale.at(x), 1)

    def down(y: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * y_scale.at(y), 1)

    heights = _apart([down(line.points[-1][1]) for line in series])
    drawn = []
    for index, (line, height) in enumerate(zip(series, heights, strict=True)):
        path = " ".join(f"{across(x)},{down(y)}" for x, y in line.points)
        dots = tuple(Point(across(x), down(y), f"{line.label}: {y_shown(y)}") for x, y in line.points)
        drawn.append(Curve(_short(line.label), colour(index), path, height, dots if line.marked else ()))
    told = "; ".join(
        f"{line.label} from {y_shown(line.points[0][1])} to {y_shown(line.points[-1][1])}" for line in series
    )
    return Curves(
        title,
        f"{title}. {told}.",
        tuple(drawn),
        tuple((across(x), x_shown(x)) for x in x_scale.ticks),
        tuple((down(y), y_axis(y)) for y in y_scale.ticks),
        x_label,
    )


def _short(label: str) -> str:
    """As much as fits beside the lines; it is in full in the words and the table."""
    return label if len(label) <= LABEL_LENGTH else f"{label[: LABEL_LENGTH - 1]}…"


def _apart(heights: Sequence[float]) -> list[float]:
    """Labels' heights, moved so that none covers another."""
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    placed = list(heights)
    least = float(TOP)
    for index in order:
        placed[index] = max(placed[index], least)
        least = placed[index] + LABEL_GAP
    most = float(BOTTOM - 6)  # below stand the axis's own
    for index in reversed(order):
        placed[index] = min(placed[index], most)
        most = placed[index] - LABEL_GAP
    return placed


def heat(
    title: str,
    corner: str,
    columns: Sequence[str],
    rows: Mapping[str, Sequence[float]],
    shown: Format,
    scale: Scale,
) -> Heat:
    """A table whose cells are the darker the larger their values are."""
    cells = tuple(
        (name, tuple(Cell(shown(value), round(scale.at(value), 3)) for value in values))
        for name, values in rows.items()
    )
    return Heat(title, corner, tuple(columns), cells)
