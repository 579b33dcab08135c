from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from secformer_rt.errors import BadConfigError
from secformer_rt.graph.architecture import (
    SYNTHETIC_NAMES,
    Architecture,
    parameter_list,
    synthetic_architecture,
    synthetic_parameters,
)


def test_published_sizes() -> None:
    counts = {"bert-tiny": 4.4e6, "bert-base": 110e6, "bert-large": 335e6}
    assert set(counts) == set(SYNTHETIC_NAMES)
    for name, expected in counts.items():
        arch = synthetic_architecture(name, "pooler")
        total = sum(torch.Size(parameter.shape).numel() for parameter in parameter_list(arch))
        assert total == pytest.approx(expected, rel=0.02)


def test_travels_as_json() -> None:
    arch = synthetic_architecture("bert-base", "classifier", labels=3)
    assert Architecture.model_validate_json(arch.model_dump_json()) == arch
    assert (arch.head_size, arch.outputs) == (64, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": 127}, "multiple of heads"),
        ({"head": "classifier"}, "labels must be positive"),
        ({"labels": 2}, "labels must be positive"),
        ({"layers": 0}, "layers"),
        ({"head": "max"}, "head"),
    ],
)
def test_inconsistent_dimensions(changes: dict[str, object], message: str) -> None:
    values = synthetic_architecture("bert-tiny").model_dump() | changes
    with pytest.raises(ValidationError, match=message):
        Architecture.model_validate(values)


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(BadConfigError, match="bert-tiny, bert-base, bert-large"):
        synthetic_architecture("bert-huge")
    with pytest.raises(BadConfigError, match="2 labels do not fit head 'mean'"):
        synthetic_architecture("bert-tiny", "mean", labels=2)


def test_synthetic_parameters_follow_the_seed() -> None:
    arch = synthetic_architecture("bert-tiny", "classifier", labels=2)
    first, again, other = (synthetic_parameters(arch, seed) for seed in (1, 1, 2))
    assert {name: tuple(value.shape) for name, value in first.items()} == {
        parameter.name: parameter.shape for parameter in parameter_list(arch)
    }
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["embeddings.table"], other["embeddings.table"])
    assert float(first["embeddings.table"].std()) == pytest.approx(0.02, rel=0.01)
    assert bool((first["layer.1.norm.gain"] == 1).all()) and not first["layer.1.norm.bias"].any()
