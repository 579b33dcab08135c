"""A checkpoint that says what it was trained for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from secformer_rt.cli import presets_directory
from secformer_rt.errors import BadCheckpointError, BadConfigError
from secformer_rt.graph.named_preset import name_preset, named_preset
from secformer_rt.graph.preset import Preset, Quad, TwoQuad
from tests.protocols.common import preset


def written(directory: Path, said: Any) -> Path:
    config = {"model_type": "bert"} | ({} if said is None else {"secformer_rt": said})
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def read(directory: Path, said: Any) -> Preset | None:
    return named_preset(written(directory, said), presets_directory())


def test_most_name_none(tmp_path: Path) -> None:
    assert read(tmp_path, None) is None


@pytest.mark.parametrize("name", sorted(path.stem for path in presets_directory().glob("*.yaml")))
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    assert read(tmp_path, name_preset(preset(name))) == preset(name)


def test_its_own_offset_and_gelu_count(tmp_path: Path) -> None:
    said = {
        "preset": "mpcformer",
        "softmax": {"protocol": "2quad", "offset": 3.5},
        "gelu": {"protocol": "quad", "coefficients": [0.1, 0.5, 0.125]},
    }
    found, bundled = read(tmp_path, said), preset("mpcformer")
    assert found is not None
    assert isinstance(found.softmax, TwoQuad)
    assert isinstance(found.gelu, Quad)
    assert (found.softmax.offset, found.gelu.coefficients) == (3.5, (0.1, 0.5, 0.125))
    assert found.softmax.division == bundled.softmax.division
    assert read(tmp_path, name_preset(found)) == found


def test_what_2relu_was_trained_with_counts(tmp_path: Path) -> None:
    softmax = {"protocol": "2relu", "offset": 1.5, "power": 2, "epsilon": 0.5}
    found, bundled = read(tmp_path, {"preset": "the-x", "softmax": softmax}), preset("the-x")
    assert found is not None
    assert found.softmax == bundled.softmax.model_copy(update=softmax)


def test_where_sentence_transformers_keep_it(tmp_path: Path) -> None:
    modules = [
        {"path": "encoder", "type": "sentence_transformers.models.Transformer"},
        {"path": "pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    for part in ("encoder", "pooling"):
        (tmp_path / part).mkdir()
    (tmp_path / "pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    written(tmp_path / "encoder", {"preset": "secformer"})
    assert named_preset(tmp_path, presets_directory()) == preset("secformer")


@pytest.mark.parametrize(
    ("said", "error", "message"),
    [
        ("secformer", BadCheckpointError, "is not valid"),
        ({"preset": "secformer", "layernorm": {}}, BadCheckpointError, "layernorm"),
        ({"preset": "secformer", "softmax": {"offset": "five"}}, BadCheckpointError, "offset"),
        ({"preset": "exact", "softmax": {"protocol": "2quad"}}, BadCheckpointError, "another softmax"),
        ({"preset": "nowhere"}, BadConfigError, "no preset 'nowhere'"),
    ],
)
def test_what_is_wrong(
    tmp_path: Path, said: Any, error: type[BadCheckpointError | BadConfigError], message: str
) -> None:
    with pytest.raises(error, match=message):
        read(tmp_path, said)
