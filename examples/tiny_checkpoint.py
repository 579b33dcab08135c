"""A checkpoint that is made up on the spot: two small layers of random weights, in Hugging Face's format.

It lets the other examples run in seconds and without a download. Its words are those of some texts; what it
makes of them is the same every time, and means nothing.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import torch
from safetensors.torch import save_file

from secformer_rt.errors import SecformerError

HIDDEN, LAYERS, HEADS, INTERMEDIATE, POSITIONS = 64, 2, 2, 128, 64
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def run_example(work: Callable[[Path], None], texts: Sequence[str], labels: Sequence[str] = ()) -> NoReturn:
    """Work with the checkpoint of the command line, or else with a tiny one; an error is one sentence."""
    with tempfile.TemporaryDirectory() as directory:
        try:
            if len(sys.argv) > 1:
                work(Path(sys.argv[1]))
            else:
                work(write_tiny_checkpoint(Path(directory), texts, labels))
        except SecformerError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(error.exit_code)
    sys.exit(0)


def write_tiny_checkpoint(directory: Path, texts: Sequence[str], labels: Sequence[str] = ()) -> Path:
    """An encoder, or a classifier if there are labels, with a tokenizer that knows the words of ``texts``."""
    words = sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]", text.lower())})
    (directory / "vocab.txt").write_text("\n".join([*SPECIAL, *words]) + "\n", encoding="utf-8")
    config = {
        "architectures": ["BertForSequenceClassification" if labels else "BertModel"],
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": INTERMEDIATE,
        "vocab_size": len(SPECIAL) + len(words),
        "max_position_embeddings": POSITIONS,
        "id2label": {str(index): label for index, label in enumerate(labels)},
    }
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(_weights(len(SPECIAL) + len(words), len(labels)), directory / "model.safetensors")
    return directory


def _weights(vocabulary: int, labels: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    found: dict[str, torch.Tensor] = {}

    def linear(name: str, inputs: int, outputs: int) -> None:
        found[f"{name}.weight"] = torch.randn(outputs, inputs, generator=generator) / (2 * inputs**0.5)
        found[f"{name}.bias"] = torch.zeros(outputs)

    def norm(name: str) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = torch.ones(HIDDEN), torch.zeros(HIDDEN)

    # Words weigh more than their places, so that texts with words in common are alike.
    for table, rows, scale in (
        ("word", vocabulary, 1.0),
        ("position", POSITIONS, 0.1),
        ("token_type", 2, 0.1),
    ):
        rows_of_noise = torch.randn(rows, HIDDEN, generator=generator)
        found[f"embeddings.{table}_embeddings.weight"] = scale * rows_of_noise
    norm("embeddings.LayerNorm")
    for index in range(LAYERS):
        layer = f"encoder.layer.{index}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            linear(f"{layer}.attention.{part}", HIDDEN, HIDDEN)
        norm(f"{layer}.attention.output.LayerNorm")
        linear(f"{layer}.intermediate.dense", HIDDEN, INTERMEDIATE)
        linear(f"{layer}.output.dense", INTERMEDIATE, HIDDEN)
        norm(f"{layer}.output.LayerNorm")
    if labels:
        linear("pooler.dense", HIDDEN, HIDDEN)
        linear("classifier", HIDDEN, labels)
    return found
