"""Values and their places."""

from __future__ import annotations

from itertools import pairwise

import pytest

from secformer_rt.pages.charts import LABEL_GAP, Series, curves, stacks
from secformer_rt.pages.scale import linear, logarithmic
from secformer_rt.pages.wording import (
    about,
    capital,
    count,
    counted,
    joined,
    power,
    power_tick,
    rate,
    seconds,
    size,
)


@pytest.mark.parametrize(
    ("most", "ticks"),
    [
        (7.8, (0, 2, 4, 6, 8)),
        (0.9, (0, 0.5, 1.0)),
        (1.0, (0, 0.5, 1.0)),
        (0.0, (0, 0.5, 1.0)),
        (1234, (0, 500, 1000, 1500)),
    ],
)
def test_a_linear_axis_starts_at_nothing(most: float, ticks: tuple[float, ...]) -> None:
    scale = linear([0.0, most])
    assert scale.ticks == pytest.approx(ticks)
    assert (scale.at(0), scale.at(scale.high)) == (0, 1)


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.3, 4.0], (0.2, 0.5, 1, 2, 5)),
        ([3, 1e4], (1, 10, 100, 1e3, 1e4)),
        ([1e-8, 1.0], (1e-8, 1e-6, 1e-4, 1e-2, 1)),
        ([10.0], (10, 20)),
        ([0.0, 5.0], (5, 10)),
        ([0.0], (1, 2)),
    ],
)
def test_a_logarithmic_axis_holds_all_values(values: list[float], ticks: tuple[float, ...]) -> None:
    scale = logarithmic(values)
    assert scale.ticks == pytest.approx(ticks)
    assert (scale.low, scale.high) == pytest.approx((ticks[0], ticks[-1]))
    assert all(0 <= scale.at(value) <= 1 for value in values)


def test_places_on_a_logarithmic_axis() -> None:
    scale = logarithmic([1, 1000])
    assert [scale.at(value) for value in (0, 1, 10, 1000, 9999)] == pytest.approx([0, 0, 1 / 3, 1, 1])


def test_pieces_of_bars_and_what_was_expected() -> None:
    chart = stacks(
        "t", {"x": {"a": 1, "b": 2}, "y": {"a": 0}}, str, {"a": "c0", "b": "c1"}, expected={"x": 4}
    )
    first, second = chart.rows
    assert [(part.width, part.style, part.tip) for part in first.parts] == [
        (25, "c0", "a: 1"),
        (50, "c1", "b: 2"),
    ]
    assert (first.mark, second.mark, second.parts) == (100, None, ())
    assert [(key.label, key.style) for key in chart.legend] == [("a", "c0"), ("b", "c1")]
    assert chart.alt == "t. x 3; y 0."


def test_labels_of_lines_do_not_cover_each_other() -> None:
    lines = [Series(f"preset number {n}", [(1, 1 + n / 1e3), (10, 1 + n / 1e3)]) for n in range(5)]
    drawn = curves("t", [*lines, Series("top", [(1, 9), (10, 9)])], "x", str, str, str)
    heights = sorted(curve.label_y for curve in drawn.curves)
    assert all(b - a >= LABEL_GAP for a, b in pairwise(heights))
    assert drawn.curves[-1].label_y == heights[0]
    assert drawn.curves[0].label == "preset numb…"
    assert "preset number 0" in drawn.alt


def test_numbers_in_words() -> None:
    said = [seconds(v) for v in (132.4, 12.34, 0.98, 0.0612, 0.0000888, 0)]
    assert said == ["132\u00a0s", "12.3\u00a0s", "0.98\u00a0s", "61.2\u00a0ms", "89\u00a0µs", "0\u00a0s"]
    assert [about(v) for v in (12.34, 9.97, 7.22, 0.061)] == [
        "12\u00a0s",
        "10\u00a0s",
        "7.2\u00a0s",
        "61.0\u00a0ms",
    ]
    assert [size(v) for v in (0, 512, 6144, 33_150_118, 999_999, 1.8e9, 2.5e12)] == [
        "0\u00a0B",
        "512\u00a0B",
        "6.14\u00a0kB",
        "33.2\u00a0MB",
        "1.00\u00a0MB",
        "1.80\u00a0GB",
        "2,500\u00a0GB",
    ]
    assert [power(v) for v in (1.2e-4, 0, 3.0)] == ["1.2\u00a0×\u00a010⁻⁴", "0", "3.0\u00a0×\u00a010⁰"]
    assert [power_tick(v) for v in (1e-4, 2e-3)] == ["10⁻⁴", "2·10⁻³"]
    assert [rate(v) for v in (None, 200, 1000, 10_000)] == [
        "no limit",
        "200\u00a0Mbit/s",
        "1\u00a0Gbit/s",
        "10\u00a0Gbit/s",
    ]
    assert (count(1, "text"), count(1449, "round")) == ("1\u00a0text", "1,449\u00a0rounds")
    assert (counted(1, "text"), counted(2, "text"), counted(12, "text")) == (
        "One text",
        "Two texts",
        "12\u00a0texts",
    )
    assert (joined([]), joined(["a"]), joined(["a", "b", "c"])) == ("", "a", "a, b and c")
    assert (capital("softmax"), capital("GeLU")) == ("Softmax", "GeLU")
