from __future__ import annotations

from typing import Any

import pytest

from secformer_rt.clients.model_owner import check_ranges
from secformer_rt.errors import OutOfRangeError
from secformer_rt.graph.architecture import synthetic_architecture
from secformer_rt.graph.preset import EvenSeries, Preset
from secformer_rt.graph.ranges import Calibration
from secformer_rt.parties.manifest import Manifest
from tests.protocols.common import preset

EVEN = EvenSeries(protocol="even", period=64.0, cut=32.0, terms=40)


def manifest(chosen: Preset, **ranges: tuple[float, float]) -> Manifest:
    seen: dict[str, Any] = {f"layer.0.{name.replace('_', '.')}": {"output": r} for name, r in ranges.items()}
    return Manifest(
        model="m",
        architecture=synthetic_architecture("bert-tiny"),
        preset=chosen,
        calibration=Calibration(preset=chosen.name, headroom=4.0, ranges=seen) if seen else None,
        embedding="private",
    )


def even() -> Preset:
    return preset("exact").model_copy(update={"gelu": EVEN})


def test_what_fits_is_let_through() -> None:
    check_ranges(manifest(preset("exact"), intermediate=(-255.0, 3.0), attention_scores=(-1.0, 511.0)))
    check_ranges(manifest(even(), intermediate=(-7.9, 7.0)))
    check_ranges(manifest(preset("exact")))
    check_ranges(manifest(preset("the-x"), attention_residual=(-1023.0, 3.0)))
    check_ranges(manifest(preset("mpcformer-2relu"), attention_residual=(-1.0, 1024.0)))


@pytest.mark.parametrize(
    ("chosen", "ranges", "advice"),
    [
        (preset("exact"), {"intermediate": (-1.0, 256.0)}, r"less than 256: raise fixed_point\.range\."),
        (preset("exact"), {"attention_scores": (-600.0, 1.0)}, "less than 512: this model is not supported"),
        (even(), {"intermediate": (-8.0, 1.0)}, r"less than 8: raise gelu\.cut"),
        (even(), {}, "calibrate the model first"),
        (preset("the-x"), {"attention_residual": (-1.0, 1024.0)}, "less than 1024: distil the model with it"),
    ],
)
def test_what_does_not_is_refused(
    chosen: Preset, ranges: dict[str, tuple[float, float]], advice: str
) -> None:
    with pytest.raises(OutOfRangeError, match=advice):
        check_ranges(manifest(chosen, **ranges))
