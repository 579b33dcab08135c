"""The dimensions of a decoder as GPT-2 is one, its parameters by house name, and random ones."""

from __future__ import annotations

import math
from typing import Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from secformer_rt.errors import BadConfigError
from secformer_rt.graph.architecture import INITIAL_STD
from secformer_rt.graph.ir import Parameter, ParameterKind

DecoderHead = Literal["next", "last"]
"""What is read off a text's last token: logits of the token that follows it, or its hidden state."""

Feed = Literal["gelu", "gelu_new", "none"]
Normalisation = Literal["layernorm", "none"]


class Decoder(BaseModel):
    """Everything public about a decoder: a GPT-2 (Radford et al., 2019), or AERO's softmax-only one.

    AERO (arXiv 2410.13060) has no ``normalisation`` and no ``activation``. Two matrices without an activation
    between them are one, so such a model's feed-forward has one matrix (hidden, hidden), and ``intermediate``
    is 0: how wide it was trained is nobody's business.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["decoder"] = "decoder"
    hidden: int = Field(ge=1, le=16384)
    layers: int = Field(ge=1, le=256)
    heads: int = Field(ge=1, le=256)
    intermediate: int = Field(ge=0, le=65536)
    vocabulary: int = Field(ge=1, le=1 << 21)
    positions: int = Field(default=1024, ge=1, le=65536)
    eps: float = Field(default=1e-5, ge=0, lt=1)
    normalisation: Normalisation = "layernorm"
    activation: Feed = "gelu_new"
    head: DecoderHead = "next"

    @property
    def head_size(self) -> int:
        """Columns of one attention head."""
        return self.hidden // self.heads

    @property
    def outputs(self) -> int:
        """Numbers that one text is answered with."""
        return self.vocabulary if self.head == "next" else self.hidden

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        if (self.activation == "none") != (self.intermediate == 0):
            raise ValueError("intermediate must be 0 with activation 'none', and positive with any other")
        return self


_SOFTMAX_ONLY = {"normalisation": "none", "activation": "none", "intermediate": 0}
_TINY = {"layers": 2, "hidden": 128, "heads": 2}
_SMALL = {"layers": 12, "hidden": 768, "heads": 12}
_SYNTHETIC: dict[str, dict[str, Any]] = {
    "gpt2-tiny": {**_TINY, "intermediate": 512},
    "aero-tiny": {**_TINY, **_SOFTMAX_ONLY},
    "gpt2": {**_SMALL, "intermediate": 3072},
    "aero": {**_SMALL, **_SOFTMAX_ONLY},
}
DECODER_NAMES = tuple(_SYNTHETIC)


def synthetic_decoder(name: str) -> Decoder:
    """GPT-2's published dimensions, those of a small one, and both with a softmax only.

    Raises:
        BadConfigError: there is no such name.
    """
    if name not in _SYNTHETIC:
        raise BadConfigError(f"There is no decoder {name!r}: choose one of {', '.join(_SYNTHETIC)}.")
    return Decoder.model_validate({"vocabulary": 50257, **_SYNTHETIC[name]})


def decoder_parameters(arch: Decoder) -> tuple[Parameter, ...]:
    """All parameters in the order of use; matrices are (inputs, outputs)."""
    hidden, wide = arch.hidden, arch.intermediate
    found = [
        Parameter("embeddings.table", (arch.vocabulary, hidden), ParameterKind.MATRIX),
        Parameter("embeddings.positions", (arch.positions, hidden), ParameterKind.OFFSET),
    ]

    def linear(name: str, inputs: int, outputs: int) -> None:
        found.append(Parameter(f"{name}.weight", (inputs, outputs), ParameterKind.MATRIX))
        found.append(Parameter(f"{name}.bias", (outputs,), ParameterKind.OFFSET))

    def norm(name: str) -> None:
        if arch.normalisation == "layernorm":
            found.append(Parameter(f"{name}.gain", (hidden,), ParameterKind.GAIN))
            found.append(Parameter(f"{name}.bias", (hidden,), ParameterKind.OFFSET))

    for index in range(arch.layers):
        layer = f"layer.{index}"
        norm(f"{layer}.attention.norm")
        for part in ("query", "key", "value", "output"):
            linear(f"{layer}.attention.{part}", hidden, hidden)
        norm(f"{layer}.norm")
        if wide:
            linear(f"{layer}.intermediate", hidden, wide)
        linear(f"{layer}.output", wide or hidden, hidden)
    norm("head.norm")
    if arch.head == "next":
        found.append(Parameter("head.logits.weight", (hidden, arch.vocabulary), ParameterKind.MATRIX))
    return tuple(found)


def synthetic_decoder_parameters(arch: Decoder, seed: int = 0) -> dict[str, Tensor]:
    """Random float32 parameters, for runs where only shapes and costs matter.

    With LayerNorms matrices are N(0, 0.02) as at GPT-2's initialisation, and 1/sqrt(d) is *not* folded into
    the query, as in :func:`synthetic_parameters`. Without, nothing but the matrices keeps the residual's
    size: token rows are N(0, 1), what is added to the residual is small by the root of how many add, and
    scores are N(0, 4). Not for secrets: the generator is torch's.
    """
    generator = torch.Generator().manual_seed(seed)
    values: dict[str, Tensor] = {}
    for parameter in decoder_parameters(arch):
        name, shape = parameter.name, parameter.shape
        if parameter.kind is ParameterKind.GAIN:
            values[name] = torch.ones(shape)
        elif len(shape) == 1:
            values[name] = torch.zeros(shape)
        else:
            bare = arch.normalisation == "none" and parameter.kind is ParameterKind.MATRIX
            std = _scale(arch, name, shape[0]) if bare else INITIAL_STD
            values[name] = std * torch.randn(shape, generator=generator)
    return values


def _scale(arch: Decoder, name: str, inputs: int) -> float:
    """The standard deviation of a matrix of a decoder without LayerNorms."""
    if name == "embeddings.table":
        return 1.0
    keeping = 1 / math.sqrt(inputs)
    if name.endswith(".output.weight"):
        return keeping / math.sqrt(2 * arch.layers)
    return keeping * 2 / math.sqrt(arch.head_size) if ".query." in name else keeping
