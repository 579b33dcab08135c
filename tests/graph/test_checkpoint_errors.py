from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from secformer_rt.errors import BadCheckpointError, SecformerError, UnsupportedModelError
from secformer_rt.graph.checkpoint import load_checkpoint

from .checkpoints import tiny_config, tiny_state, write_checkpoint

TENSOR = "encoder.layer.1.output.dense.weight"


def one_sentence(error: SecformerError) -> bool:
    text = str(error)
    return text.endswith(".") and "\n" not in text and ": " in text


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpointError, match="is not a directory") as caught:
        load_checkpoint(tmp_path / "none")
    assert one_sentence(caught.value)
    with pytest.raises(
        BadCheckpointError, match=r"no model\.safetensors and no pytorch_model\.bin"
    ) as caught:
        load_checkpoint(tmp_path)
    assert one_sentence(caught.value)
    (tmp_path / "model.safetensors.index.json").touch()
    with pytest.raises(BadCheckpointError, match="several files"):
        load_checkpoint(tmp_path)


def truncate(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])


@pytest.mark.parametrize("keep", [0, 5, 1000, 500_000])
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_truncated_weights(tmp_path: Path, suffix: str, keep: int) -> None:
    directory = write_checkpoint(tmp_path / "m", tiny_state(), tiny_config(), suffix=suffix)
    truncate(next(path for path in directory.iterdir() if path.suffix == f".{suffix}"), keep)
    with pytest.raises(BadCheckpointError, match="is damaged") as caught:
        load_checkpoint(directory)
    assert one_sentence(caught.value)


class Mischief:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return (os.mkdir, (self.path,))


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path / "m", tiny_state(), tiny_config(), suffix="bin")
    torch.save({"x": Mischief(tmp_path / "done")}, directory / "pytorch_model.bin")
    with pytest.raises(BadCheckpointError, match="more than tensors"):
        load_checkpoint(directory)
    assert not (tmp_path / "done").exists()
    torch.save({"epoch": 3}, directory / "pytorch_model.bin")
    with pytest.raises(BadCheckpointError, match="named tensors only"):
        load_checkpoint(directory)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "is missing"), ("{", "not valid JSON"), ("[]", "JSON object"), ("\ud800", "not valid JSON")],
)
def test_broken_config(tmp_path: Path, content: str | None, message: str) -> None:
    directory = write_checkpoint(tmp_path / "m", tiny_state(), tiny_config())
    path = directory / "config.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(BadCheckpointError, match=rf"config\.json.*{message}") as caught:
        load_checkpoint(directory)
    assert one_sentence(caught.value)


@pytest.mark.parametrize("content", ["{}", '[{"path": 1}]', "[["])
def test_broken_modules(tmp_path: Path, content: str) -> None:
    directory = write_checkpoint(tmp_path / "m", tiny_state(), tiny_config())
    (directory / "modules.json").write_text(content, encoding="utf-8")
    with pytest.raises(BadCheckpointError, match=r"modules\.json"):
        load_checkpoint(directory)


def test_missing_tensor_is_named(tmp_path: Path) -> None:
    state = tiny_state()
    del state[TENSOR]
    with pytest.raises(BadCheckpointError, match=f"lacks the tensor {TENSOR}") as caught:
        load_checkpoint(write_checkpoint(tmp_path / "m", state, tiny_config()))
    assert one_sentence(caught.value)


def test_wrong_shape_is_named(tmp_path: Path) -> None:
    state = tiny_state()
    state[TENSOR] = state[TENSOR].t().contiguous()
    with pytest.raises(BadCheckpointError, match=rf"{TENSOR} .*\(512, 128\), .*\(128, 512\)") as caught:
        load_checkpoint(write_checkpoint(tmp_path / "m", state, tiny_config()))
    assert one_sentence(caught.value)


def test_undefined_numbers_and_integers(tmp_path: Path) -> None:
    state = tiny_state()
    state[TENSOR][0, 0] = torch.nan
    with pytest.raises(BadCheckpointError, match=f"{TENSOR} .*infinite or undefined"):
        load_checkpoint(write_checkpoint(tmp_path / "a", state, tiny_config()))
    state[TENSOR] = torch.zeros(state[TENSOR].shape, dtype=torch.int8)
    with pytest.raises(UnsupportedModelError, match=r"torch\.int8"):
        load_checkpoint(write_checkpoint(tmp_path / "b", state, tiny_config()))


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "electra"},
        {"hidden_act": "gelu_new"},
        {"hidden_act": "relu"},
        {"position_embedding_type": "relative_key"},
        {"is_decoder": True},
        {"add_cross_attention": True},
        {"quantization_config": {"bits": 8}},
        {"architectures": ["BertForTokenClassification"]},
        {"architectures": ["BertForMaskedLM"]},
    ],
)
def test_unsupported_config(tmp_path: Path, changes: dict[str, Any]) -> None:
    directory = write_checkpoint(tmp_path / "m", tiny_state(), tiny_config(**changes))
    (value,) = changes.values()
    with pytest.raises(UnsupportedModelError) as caught:
        load_checkpoint(directory)
    assert repr(value) in str(caught.value)
    assert one_sentence(caught.value)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"hidden_size": None}, "hidden"),
        ({"hidden_size": "128"}, "hidden"),
        ({"num_attention_heads": 3}, "multiple of heads"),
        ({"num_hidden_layers": 10**9}, "layers"),
        ({"layer_norm_eps": "tiny"}, "eps"),
        ({"id2label": ["a"]}, "id2label"),
        ({"id2label": {"1": "a", "2": "b"}}, "id2label"),
        ({"id2label": {"0": "a", "1": "b"}}, r"classifier\.weight .*\(3, 128\).*\(2, 128\)"),
        ({"num_hidden_layers": 3}, r"encoder\.layer\.2"),
    ],
)
def test_inconsistent_config(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    directory = write_checkpoint(tmp_path / "m", tiny_state(), tiny_config(**changes))
    with pytest.raises(BadCheckpointError, match=named) as caught:
        load_checkpoint(directory)
    assert one_sentence(caught.value)


@pytest.mark.parametrize(
    ("extra", "changes"),
    [
        ("encoder.layer.0.attention.self.query.lora_A.weight", {}),
        ("encoder.layer.1.output.dense.weight", {"num_hidden_layers": 1}),
        ("classifier.weight", {"architectures": ["BertModel"]}),
    ],
)
def test_tensors_with_a_meaning_of_their_own(tmp_path: Path, extra: str, changes: dict[str, Any]) -> None:
    state = tiny_state()
    state.setdefault(extra, torch.zeros(2))
    directory = write_checkpoint(tmp_path / "m", state, tiny_config(**changes))
    with pytest.raises(UnsupportedModelError, match="does not account for") as caught:
        load_checkpoint(directory)
    assert extra in str(caught.value) or "and 13 more" in str(caught.value)
    assert one_sentence(caught.value)


def test_unknown_head(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path / "m", tiny_state(), tiny_config())
    with pytest.raises(UnsupportedModelError, match="no head 'max': choose one of mean, cls, pooler"):
        load_checkpoint(directory, "max")  # type: ignore[arg-type]
