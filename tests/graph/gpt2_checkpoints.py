"""Random GPT-2 checkpoints, and softmax-only ones, as Hugging Face writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .checkpoints import write_checkpoint

HIDDEN, HEADS, LAYERS, INNER, VOCABULARY, POSITIONS = 64, 4, 2, 96, 50, 24
BARE = {"activation_function": "linear", "normalization": "none"}


def config(**changes: Any) -> dict[str, Any]:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "n_embd": HIDDEN,
        "n_head": HEADS,
        "n_layer": LAYERS,
        "n_inner": INNER,
        "n_positions": POSITIONS,
        "vocab_size": VOCABULARY,
        "layer_norm_epsilon": 1e-5,
        **changes,
    }


def state(*, bare: bool = False, positions: int = POSITIONS, seed: int = 0) -> dict[str, Tensor]:
    """Weights large enough that attention and GeLU leave their linear range; ``bare`` ones have no norms."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, std: float = 0.15, mean: float = 0.0) -> Tensor:
        return mean + std * torch.randn(shape, generator=generator)

    found = {"wte.weight": draw(VOCABULARY, HIDDEN, std=0.5), "wpe.weight": draw(positions, HIDDEN)}

    def linear(name: str, inputs: int, outputs: int) -> None:
        found[f"{name}.weight"] = draw(inputs, outputs, std=0.1 if bare else 0.15)
        found[f"{name}.bias"] = draw(outputs)

    def norm(name: str) -> None:
        if not bare:
            found[f"{name}.weight"] = draw(HIDDEN, mean=1.0)
            found[f"{name}.bias"] = draw(HIDDEN)

    for index in range(LAYERS):
        layer = f"h.{index}"
        norm(f"{layer}.ln_1")
        linear(f"{layer}.attn.c_attn", HIDDEN, 3 * HIDDEN)
        linear(f"{layer}.attn.c_proj", HIDDEN, HIDDEN)
        norm(f"{layer}.ln_2")
        linear(f"{layer}.mlp.c_fc", HIDDEN, INNER)
        linear(f"{layer}.mlp.c_proj", INNER, HIDDEN)
    norm("ln_f")
    return found


def write(directory: Path, tensors: dict[str, Tensor], **changes: Any) -> Path:
    return write_checkpoint(directory, tensors, config(**changes))


def write_tokenizer(directory: Path) -> Path:
    """GPT-2's kind: single bytes and one pair of them, and nothing around a text."""
    words = [*"abcdefghijklmnopqrstuvwxyz", "Ġ", "th", "Ġth", "<|endoftext|>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    (directory / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (directory / "merges.txt").write_text("#version: 0.2\nt h\nĠ th\n", encoding="utf-8")
    return directory
