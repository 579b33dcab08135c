"""What a soak makes of memory: series as real processes had them, in MB after every ten inferences."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import StringIO

import pytest
from rich.console import Console

from secformer_rt.trials.show import show_soak
from secformer_rt.trials.soak import CYCLE, Sample, Soak

# A server that kept what ended runs had used, until Python came to look for cycles.
KEPT = [543, 570, 573, 584, 582, 575, 582, 578, 593, 609, 618, 632, 587, 594, 605]
KEPT += [612, 624, 621, 626, 617, 628, 640, 652, 652, 673, 680, 694, 697, 711, 723]


def soaked(megabytes: Sequence[float], descriptors: Sequence[int] = (), threads: Sequence[int] = ()) -> Soak:
    cycles = range(len(megabytes))
    samples = [
        Sample(
            "server1",
            CYCLE * (n + 1),
            int(megabytes[n] * 1e6),
            descriptors[n] if descriptors else 14,
            threads[n] if threads else 14,
        )
        for n in cycles
    ]
    return Soak(CYCLE * len(cycles), samples, 0.0, 1.0)


def comes_and_goes(cycles: int) -> list[float]:
    """Memory of a process that keeps up to 12 MB for a while."""
    return [480 + (n * 5) % 13 for n in range(cycles)]


def test_the_growth_that_was_is_told() -> None:
    assert soaked(KEPT).growth()["server1"].grows


@pytest.mark.parametrize("cycles", [30, 50])
def test_a_tenth_of_a_megabyte_an_inference_is_told(cycles: int) -> None:
    level = comes_and_goes(cycles)
    assert soaked(level).passed
    assert not soaked([each + 0.1 * CYCLE * n for n, each in enumerate(level)]).passed


def test_what_shows_is_said_and_is_so() -> None:
    for cycles in (10, 23, 50):
        noticed = soaked([480] * cycles).growth()["server1"].noticed_bytes
        assert noticed is not None and noticed < 1e5
        for factor in (0.95, 1.05):
            lossy = [480 + factor * noticed * CYCLE * n / 1e6 for n in range(cycles)]
            assert soaked(lossy).passed == (factor < 1)


def test_a_plateau_passes_however_high_and_a_slope_after_it_does_not() -> None:
    filling = [400.0 + 20 * n for n in range(10)]
    assert soaked(filling + [600.0] * 30).passed
    assert not soaked(filling + [600.0 + n for n in range(30)]).passed


def test_descriptors_and_threads_that_stay_are_told() -> None:
    level, passing = [480] * 30, [14] * 29 + [20]  # a moment's, at the very end
    assert soaked(level, passing, passing).passed
    assert not soaked(level, descriptors=[14] * 18 + [15] * 12).passed
    assert soaked(level, threads=[14] * 18 + [16] * 12).passed
    assert not soaked(level, threads=[14] * 18 + [17] * 12).passed
    assert not soaked(level, threads=[14 + n // 5 for n in range(30)]).passed  # one in fifty inferences


def test_too_few_inferences_say_so() -> None:
    for cycles, words in ((1, "Too few inferences"), (30, "kB an inference would show")):
        found, page = soaked([480] * cycles), StringIO()
        show_soak(found, Console(file=page, width=120))
        assert words in page.getvalue()
        noticed = json.loads(json.dumps(found.summary(), allow_nan=False))["growth"]["server1"][
            "noticed_bytes"
        ]
        assert (noticed is None) == (cycles == 1)
