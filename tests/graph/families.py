"""RoBERTa and DistilBERT as random checkpoints, and once more in plain torch from their own tensor names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from . import reference
from .checkpoints import (
    HEADS,
    HIDDEN,
    INTERMEDIATE,
    LABELS,
    LAYERS,
    POSITIONS,
    VOCABULARY,
    tiny_config,
    tiny_state,
    write_checkpoint,
)

State = dict[str, Tensor]
Forward = Callable[[Mapping[str, Tensor], Tensor, Tensor, Tensor], Tensor]


def _dense(state: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{name}.weight"].double(), state[f"{name}.bias"].double())


# BERT


def _bert_hidden(state: Mapping[str, Tensor], ids: Tensor, types: Tensor, mask: Tensor) -> Tensor:
    return reference.encode(state, ids, types, mask, HEADS)


# RoBERTa: two rows of the position table are never read, and the head is another.


def _roberta_state() -> State:
    state = tiny_state(1)
    state["embeddings.token_type_embeddings.weight"] = state["embeddings.token_type_embeddings.weight"][:1]
    for part in ("weight", "bias"):
        state[f"classifier.dense.{part}"] = state.pop(f"pooler.dense.{part}")
        state[f"classifier.out_proj.{part}"] = state.pop(f"classifier.{part}")
    return {name: value.contiguous() for name, value in state.items()}


def _roberta_hidden(state: Mapping[str, Tensor], ids: Tensor, types: Tensor, mask: Tensor) -> Tensor:
    positions = "embeddings.position_embeddings.weight"
    moved = {**state, positions: state[positions][2:]}
    return reference.encode(moved, ids, torch.zeros_like(types), mask, HEADS, eps=1e-5)


def _roberta_logits(state: Mapping[str, Tensor], hidden: Tensor) -> Tensor:
    return _dense(state, "classifier.out_proj", torch.tanh(_dense(state, "classifier.dense", hidden[:, 0])))


# DistilBERT


def _distil_state() -> State:
    def renamed(name: str) -> str:
        for theirs, ours in (
            ("encoder.layer", "transformer.layer"),
            ("attention.self.query", "attention.q_lin"),
            ("attention.self.key", "attention.k_lin"),
            ("attention.self.value", "attention.v_lin"),
            ("attention.output.dense", "attention.out_lin"),
            ("attention.output.LayerNorm", "sa_layer_norm"),
            ("intermediate.dense", "ffn.lin1"),
            ("output.dense", "ffn.lin2"),
            ("output.LayerNorm", "output_layer_norm"),
            ("pooler.dense", "pre_classifier"),
        ):
            name = name.replace(theirs, ours)
        return name

    state = {renamed(name): value for name, value in tiny_state(2).items()}
    del state["embeddings.token_type_embeddings.weight"]
    return state


def _distil_hidden(state: Mapping[str, Tensor], ids: Tensor, types: Tensor, mask: Tensor) -> Tensor:
    def norm(name: str, x: Tensor) -> Tensor:
        weight, bias = state[f"{name}.weight"].double(), state[f"{name}.bias"].double()
        return F.layer_norm(x, weight.shape, weight, bias, 1e-12)

    words = state["embeddings.word_embeddings.weight"].double()[ids]
    x = words + state["embeddings.position_embeddings.weight"].double()[: ids.shape[1]]
    x = norm("embeddings.LayerNorm", x)
    for index in range(LAYERS):
        layer = f"transformer.layer.{index}"
        query, key, value = (
            _dense(state, f"{layer}.attention.{part}_lin", x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for part in "qkv"
        )
        context = F.scaled_dot_product_attention(query, key, value, mask[:, None, None].bool())
        context = context.transpose(1, 2).flatten(2)
        x = norm(f"{layer}.sa_layer_norm", _dense(state, f"{layer}.attention.out_lin", context) + x)
        inner = _dense(state, f"{layer}.ffn.lin2", F.gelu(_dense(state, f"{layer}.ffn.lin1", x)))
        x = norm(f"{layer}.output_layer_norm", inner + x)
    return x


def _distil_logits(state: Mapping[str, Tensor], hidden: Tensor) -> Tensor:
    return _dense(state, "classifier", torch.relu(_dense(state, "pre_classifier", hidden[:, 0])))


def _distil_config() -> dict[str, Any]:
    return {
        "architectures": ["DistilBertForSequenceClassification"],
        "model_type": "distilbert",
        "activation": "gelu",
        "dim": HIDDEN,
        "n_layers": LAYERS,
        "n_heads": HEADS,
        "hidden_dim": INTERMEDIATE,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": POSITIONS,
        "sinusoidal_pos_embds": False,
        "id2label": {str(index): f"label {index}" for index in range(LABELS)},
    }


@dataclass(frozen=True)
class Case:
    """A family as others write it."""

    config: dict[str, Any]
    state: State
    prefix: str
    encoder_class: str
    positions: int
    hidden: Forward
    logits: Callable[[Mapping[str, Tensor], Tensor], Tensor]

    def write(self, directory: Path, **changes: Any) -> Path:
        """The classifier's checkpoint, with the names that it has on disk."""
        encoder = ("embeddings.", "encoder.", "transformer.", "pooler.")
        named = {
            f"{self.prefix}.{name}" if name.startswith(encoder) else name: value
            for name, value in self.state.items()
        }
        return write_checkpoint(directory, named, {**self.config, **changes})

    def write_encoder(self, directory: Path, **changes: Any) -> Path:
        """The encoder alone, with a head that it was trained with and that nobody reads."""
        heads = ("classifier", "pre_classifier")
        state = {name: value for name, value in self.state.items() if not name.startswith(heads)}
        state |= {"lm_head.bias": torch.zeros(VOCABULARY)} if "roberta" in self.prefix else {}
        state |= {"vocab_projector.bias": torch.zeros(VOCABULARY)} if self.prefix == "distilbert" else {}
        config = {**self.config, "architectures": [self.encoder_class], **changes}
        return write_checkpoint(directory, state, config)


def _roberta(model_type: str, name: str) -> Case:
    config = tiny_config(
        architectures=[f"{name}ForSequenceClassification"],
        model_type=model_type,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        pad_token_id=1,
    )
    positions = POSITIONS - 2
    return Case(
        config, _roberta_state(), "roberta", f"{name}Model", positions, _roberta_hidden, _roberta_logits
    )


CASES = {
    "bert": Case(tiny_config(), tiny_state(), "bert", "BertModel", POSITIONS, _bert_hidden, reference.logits),
    "roberta": _roberta("roberta", "Roberta"),
    "xlm-roberta": _roberta("xlm-roberta", "XLMRoberta"),
    "distilbert": Case(
        _distil_config(),
        _distil_state(),
        "distilbert",
        "DistilBertModel",
        POSITIONS,
        _distil_hidden,
        _distil_logits,
    ),
}
