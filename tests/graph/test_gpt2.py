"""Decoders: their graph, and their checkpoints against a second implementation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from secformer_rt.errors import BadCheckpointError, BadConfigError, BadInputError, UnsupportedModelError
from secformer_rt.graph.batch import Batch
from secformer_rt.graph.bert import Embedding
from secformer_rt.graph.checkpoint import Checkpoint, load_checkpoint
from secformer_rt.graph.decoder import DECODER_NAMES, Decoder, decoder_parameters, synthetic_decoder
from secformer_rt.graph.executor import execute
from secformer_rt.graph.gpt2 import build_decoder
from secformer_rt.graph.ir import Attend, Gelu, LayerNorm, Linear
from secformer_rt.graph.models import (
    as_encoder,
    batch_inputs,
    build_graph,
    random_parameters,
    synthetic_model,
)
from secformer_rt.graph.preset import Preset
from secformer_rt.graph.tokenizer import Tokenizer

from . import reference
from .gpt2_checkpoints import BARE, HEADS, HIDDEN, INNER, POSITIONS, VOCABULARY, state, write, write_tokenizer

IDS = torch.randint(VOCABULARY, (3, 9), generator=torch.Generator().manual_seed(7))
RAGGED = Batch(IDS, torch.zeros_like(IDS), torch.tensor([9, 4, 1]))
LAST = (torch.arange(3), RAGGED.lengths - 1)


def plaintext(
    checkpoint: Checkpoint, batch: Batch, embedding: Embedding = "private", preset: Preset | None = None
) -> Tensor:
    arch, parameters = checkpoint.architecture, checkpoint.parameters
    graph = build_graph(arch, batch.size, batch.tokens, masked=batch.padded, embedding=embedding)
    inputs = batch_inputs(arch, embedding, batch, parameters)
    assert {name: tuple(x.shape) for name, x in inputs.items()} == {w.name: w.shape for w in graph.inputs}
    return execute(graph, parameters, inputs, preset, keep_outputs_only=True)[graph.outputs[0]]


@pytest.mark.parametrize("embedding", get_args(Embedding))
@pytest.mark.parametrize("bare", [False, True], ids=["gpt2", "softmax-only"])
def test_logits_equal_the_reference(tmp_path: Path, bare: bool, embedding: Embedding) -> None:
    tensors = state(bare=bare)
    checkpoint = load_checkpoint(write(tmp_path, tensors, **(BARE if bare else {})))
    hidden = reference.gpt2(tensors, IDS, HEADS)[LAST]
    expected = hidden @ tensors["wte.weight"].double().t()
    found = plaintext(checkpoint, RAGGED, embedding)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 1
    whole = Batch(IDS, torch.zeros_like(IDS), torch.full((3,), 9))
    torch.testing.assert_close(plaintext(checkpoint, whole)[0], expected[0], rtol=1e-5, atol=1e-5)
    assert set(checkpoint.report.used) == set(tensors)


def test_an_encoder_answers_with_a_hidden_state(tmp_path: Path) -> None:
    tensors = state()
    checkpoint = load_checkpoint(write(tmp_path, tensors, architectures=["GPT2Model"]))
    expected = reference.gpt2(tensors, IDS, HEADS)[LAST]
    torch.testing.assert_close(plaintext(checkpoint, RAGGED), expected, rtol=1e-5, atol=1e-5)
    assert checkpoint.architecture.outputs == HIDDEN


def test_a_feed_forward_without_activation_is_one_matrix(tmp_path: Path) -> None:
    tensors = state(bare=True)
    checkpoint = load_checkpoint(write(tmp_path, tensors, **BARE))
    arch = checkpoint.architecture
    assert isinstance(arch, Decoder)
    assert (arch.intermediate, arch.normalisation, arch.activation) == (0, "none", "none")
    assert checkpoint.parameters["layer.1.output.weight"].shape == (HIDDEN, HIDDEN)
    assert not any(str(INNER) in repr(p.shape) for p in decoder_parameters(arch))
    graph = build_decoder(arch, 1, 5, masked=False, embedding="private")
    assert not any(isinstance(node.op, Gelu | LayerNorm) for node in graph.nodes)
    assert sum(isinstance(node.op, Linear) for node in graph.nodes) == 2 * 5 + 1


def test_only_the_last_row_goes_on(tmp_path: Path) -> None:
    arch = synthetic_decoder("gpt2-tiny")
    graph = build_decoder(arch, 2, 5, masked=True, embedding="private")
    assert [wire.name for wire in graph.inputs] == ["one_hot", "last"]
    assert graph.shapes["layer.0.gelu"] == (2, 5, 512)
    assert graph.shapes["layer.1.gelu"] == (2, 512)
    assert graph.shapes[graph.outputs[0]] == (2, 50257)
    assert {node.op for node in graph.nodes if isinstance(node.op, Attend)} == {Attend(causal=True)}
    assert {node.op for node in graph.nodes if isinstance(node.op, Gelu)} == {Gelu("tanh")}


@pytest.mark.parametrize("name", [None, "exact", "secformer", "mpcformer"])
def test_what_comes_later_changes_nothing(
    tmp_path: Path, preset: Callable[[str], Preset], name: str | None
) -> None:
    checkpoint = load_checkpoint(write(tmp_path, state()))
    chosen = None if name is None else preset(name)
    found = plaintext(checkpoint, RAGGED, preset=chosen)
    other = IDS.clone()
    other[1, 4:] = (IDS[1, 4:] + 1) % VOCABULARY
    changed = Batch(other, torch.zeros_like(IDS), RAGGED.lengths)
    torch.testing.assert_close(plaintext(checkpoint, changed, preset=chosen), found)
    for row, length in enumerate(RAGGED.lengths.tolist()):
        ids = IDS[row : row + 1, :length]
        alone = Batch(ids, torch.zeros_like(ids), torch.tensor([length]))
        torch.testing.assert_close(plaintext(checkpoint, alone, preset=chosen)[0], found[row])


def test_weights_of_a_language_model_of_its_own(tmp_path: Path) -> None:
    tensors = state()
    named = {f"transformer.{name}": value for name, value in tensors.items()}
    named["lm_head.weight"] = 2 * tensors["wte.weight"]
    named["transformer.h.0.attn.bias"] = torch.ones(1, 1, POSITIONS, POSITIONS).tril()
    untied = load_checkpoint(write(tmp_path / "a", named, tie_word_embeddings=False))
    tied = load_checkpoint(write(tmp_path / "b", tensors))
    torch.testing.assert_close(plaintext(untied, RAGGED), 2 * plaintext(tied, RAGGED))
    assert untied.report.unused == ("h.0.attn.bias",)
    with pytest.raises(BadCheckpointError, match=r"lacks the tensor lm_head\.weight"):
        load_checkpoint(write(tmp_path / "c", tensors, tie_word_embeddings=False))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"activation_function": "relu"}, "activation_function 'relu': only 'gelu_new'"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx True"),
        ({"normalization": "rms"}, "normalization 'rms': only 'layernorm' and 'none'"),
        ({"architectures": ["GPT2ForSequenceClassification"]}, "only GPT2LMHeadModel and GPT2Model"),
        ({"normalization": "none"}, r"does not account for \(h\.0\.ln_1"),
    ],
)
def test_unsupported(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(UnsupportedModelError, match=named):
        load_checkpoint(write(tmp_path, state(), **changes))


def test_broken(tmp_path: Path) -> None:
    tensors = state()
    with pytest.raises(BadCheckpointError, match=r"configuration of a GPT-2 \(hidden: "):
        load_checkpoint(write(tmp_path / "a", tensors, n_embd=None))
    with pytest.raises(BadCheckpointError, match=r"c_fc\.weight .* has shape \(64, 96\).* \(64, 256\)"):
        load_checkpoint(write(tmp_path / "b", tensors, n_inner=None))
    with pytest.raises(BadCheckpointError, match=r"lacks the tensor h\.0\.ln_1"):
        load_checkpoint(write(tmp_path / "c", state(bare=True)))
    with pytest.raises(UnsupportedModelError, match="decoder, which has no head 'mean'"):
        load_checkpoint(write(tmp_path / "d", tensors), "mean")


def test_its_tokenizer_puts_nothing_around_a_text(tmp_path: Path) -> None:
    write_tokenizer(write(tmp_path, state()))
    tokenizer = Tokenizer.load(tmp_path)
    batch = tokenizer.encode(["the th", "a", "<|endoftext|>"])
    assert batch.token_ids[0].tolist() == [27, 4, 28]
    assert batch.lengths.tolist() == [3, 1, 1]
    assert batch.token_ids[2, 0] == 29
    assert (tokenizer.positions, tokenizer.spell(28)) == (POSITIONS, '" th"')
    assert load_checkpoint(tmp_path).tokenizer == tmp_path / "vocab.json"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": 127}, "multiple of heads"),
        ({"intermediate": 0}, "intermediate must be 0 with activation 'none'"),
        ({"activation": "none"}, "intermediate must be 0 with activation 'none'"),
        ({"kind": "encoder"}, "kind"),
        ({"head": "mean"}, "head"),
    ],
)
def test_inconsistent_dimensions(changes: dict[str, object], message: str) -> None:
    values = synthetic_decoder("gpt2-tiny").model_dump() | changes
    with pytest.raises(ValidationError, match=message):
        Decoder.model_validate(values)


def test_synthetic_models() -> None:
    assert set(DECODER_NAMES) == {"gpt2-tiny", "aero-tiny", "gpt2", "aero"}
    sizes = dict.fromkeys(DECODER_NAMES, 0)
    for name in DECODER_NAMES:
        arch = synthetic_decoder(name)
        assert Decoder.model_validate_json(arch.model_dump_json()) == arch
        sizes[name] = sum(torch.Size(p.shape).numel() for p in decoder_parameters(arch))
    assert sizes["gpt2"] - 768 * 50257 == pytest.approx(124.4e6, rel=1e-3)  # published, where tables are one
    assert sizes["gpt2"] - sizes["aero"] == 12 * (768 * (8 * 768 - 768) + 3072 + 4 * 768) + 2 * 768
    for name in ("gpt2-tiny", "aero-tiny"):
        arch = synthetic_decoder(name)
        values = random_parameters(arch)
        assert {n: tuple(v.shape) for n, v in values.items()} == {
            p.name: p.shape for p in decoder_parameters(arch)
        }
    with pytest.raises(BadConfigError, match="choose one of gpt2-tiny, aero-tiny"):
        synthetic_decoder("gpt3")
    with pytest.raises(BadConfigError, match=r"choose one of bert-tiny, .*, gpt2-tiny, aero-tiny"):
        synthetic_model("gpt3")


def test_what_serves_encoders_only_says_so() -> None:
    bert, gpt2 = synthetic_model("bert-tiny"), synthetic_model("gpt2-tiny")
    assert as_encoder(bert, "b", "distill") is bert
    with pytest.raises(UnsupportedModelError, match="g is a decoder, and distill serves encoders only"):
        as_encoder(gpt2, "g", "distill")


def test_sizes_and_ids_that_do_not_fit() -> None:
    arch = Decoder(hidden=8, layers=1, heads=2, intermediate=12, vocabulary=11, positions=6)

    def ask(tokens: int, *, token: int = 1, length: int | None = None, masked: bool = False) -> None:
        ids = torch.full((1, tokens), token)
        batch = Batch(ids, ids, torch.tensor([tokens if length is None else length]))
        assert batch.padded == masked
        batch_inputs(arch, "private", batch)

    with pytest.raises(BadConfigError, match="7 tokens are more than the model's 6 positions"):
        build_decoder(arch, 1, 7, masked=False, embedding="private")
    with pytest.raises(BadConfigError, match="at least 1"):
        build_decoder(arch, 0, 4, masked=False, embedding="private")
    with pytest.raises(BadInputError, match="7 tokens are more than"):
        ask(7)
    with pytest.raises(BadInputError, match="Token 11 is not among the model's 11"):
        ask(3, token=11)
    with pytest.raises(BadInputError, match="Token -1 is not among"):
        ask(3, token=-1)
    with pytest.raises(ValueError, match="lengths must be within 1 and 3"):
        ask(3, length=0, masked=True)
