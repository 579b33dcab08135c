"""Axes: where a value lies, and which values are written beside the axis."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

STEPS = (1, 2, 5, 10)
FEW_DECADES = 2.2  # on a logarithmic axis no longer than that, 2 and 5 are written, too


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis from ``low`` to ``high``, linear or logarithmic, with its marked values."""

    low: float
    high: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """Where a value lies, from 0 to 1; what is outside lies at an end."""
        value = min(max(value, self.low), self.high) if value == value else self.low  # that is no number
        if self.logarithmic:
            return log10(value / self.low) / log10(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def labelled(self, label: Callable[[float], str]) -> tuple[tuple[float, str], ...]:
        """Places and labels of the marked values."""
        return tuple((self.at(tick), label(tick)) for tick in self.ticks)


def linear(values: Iterable[float], wanted: int = 4) -> Scale:
    """From nothing to beyond the largest value, with about ``wanted`` steps."""
    most = max(filter(isfinite, values), default=0.0) or 1.0
    power = 10.0 ** floor(log10(most / wanted))
    step = next(step * power for step in STEPS if step * power * wanted >= most * 0.999)
    steps = ceil(most / step - 1e-9)
    return Scale(0.0, steps * step, tuple(step * n for n in range(steps + 1)))


def logarithmic(values: Iterable[float]) -> Scale:
    """Around all values above nothing, in whole decades or, if those are few, in steps of 1, 2 and 5."""
    positive = [value for value in values if isfinite(value) and value > 0] or [1.0]
    first, last = floor(log10(min(positive)) + 1e-9), ceil(log10(max(positive)) - 1e-9)
    if log10(max(positive) / min(positive)) > FEW_DECADES:
        every = ceil((last - first) / 6)
        return Scale(10.0**first, 10.0**last, tuple(10.0**n for n in range(first, last + 1, every)), True)
    marks = [step * 10.0**n for n in range(first - 1, last + 2) for step in STEPS[:3]]
    low = max(mark for mark in marks if mark <= min(positive) * (1 + 1e-9))
    high = min(mark for mark in marks if mark > low and mark >= max(positive) * (1 - 1e-9))
    return Scale(low, high, tuple(mark for mark in marks if low <= mark <= high), True)
