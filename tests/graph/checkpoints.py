"""Random checkpoints, written the way Hugging Face writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

HIDDEN, HEADS, LAYERS, INTERMEDIATE, VOCABULARY, POSITIONS, LABELS = 128, 2, 2, 512, 97, 40, 3


def tiny_config(**changes: Any) -> dict[str, Any]:
    config = {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": INTERMEDIATE,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "position_embedding_type": "absolute",
        "id2label": {"0": "no", "1": "perhaps", "2": "yes"},
    }
    config.update(changes)
    return config


def tiny_state(seed: int = 0, *, classifier: bool = True) -> dict[str, Tensor]:
    """Weights large enough that attention, GeLU and tanh leave their linear range."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, std: float = 0.15, mean: float = 0.0) -> Tensor:
        return mean + std * torch.randn(shape, generator=generator)

    state = {
        "embeddings.word_embeddings.weight": draw(VOCABULARY, HIDDEN),
        "embeddings.position_embeddings.weight": draw(POSITIONS, HIDDEN),
        "embeddings.token_type_embeddings.weight": draw(2, HIDDEN),
    }

    def linear(name: str, inputs: int, outputs: int) -> None:
        state[f"{name}.weight"] = draw(outputs, inputs)
        state[f"{name}.bias"] = draw(outputs)

    def norm(name: str) -> None:
        state[f"{name}.weight"] = draw(HIDDEN, mean=1.0)
        state[f"{name}.bias"] = draw(HIDDEN)

    norm("embeddings.LayerNorm")
    for index in range(LAYERS):
        layer = f"encoder.layer.{index}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            linear(f"{layer}.attention.{part}", HIDDEN, HIDDEN)
        norm(f"{layer}.attention.output.LayerNorm")
        linear(f"{layer}.intermediate.dense", HIDDEN, INTERMEDIATE)
        linear(f"{layer}.output.dense", INTERMEDIATE, HIDDEN)
        norm(f"{layer}.output.LayerNorm")
    linear("pooler.dense", HIDDEN, HIDDEN)
    if classifier:
        linear("classifier", HIDDEN, LABELS)
    return state


def write_checkpoint(
    directory: Path,
    state: Mapping[str, Tensor],
    config: Mapping[str, Any],
    *,
    suffix: str = "safetensors",
    prefix: bool = False,
) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    named = {
        (name if name.startswith("classifier") or not prefix else f"bert.{name}"): value
        for name, value in state.items()
    }
    if suffix == "safetensors":
        save_file(named, directory / "model.safetensors", metadata={"format": "pt"})
    else:
        torch.save(named, directory / "pytorch_model.bin")
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return directory
