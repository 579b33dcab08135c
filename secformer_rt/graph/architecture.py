"""The dimensions of a BERT, its parameters by house name, and random models for synthetic runs."""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from secformer_rt.errors import BadConfigError
from secformer_rt.graph.ir import Parameter, ParameterKind, Shape

Head = Literal["mean", "cls", "pooler", "classifier"]
"""What is read off the last layer: the mean of all rows, that of [CLS], tanh(dense([CLS])), or logits."""

Activation = Literal["tanh", "relu"]

INITIAL_STD = 0.02


class Architecture(BaseModel):
    """Everything public about a model. It travels to the servers as JSON, in a manifest.

    ``labels`` is the number of logits of a classifier, and 0 for every other head. ``activation`` is
    between the classifier's two layers. With one token type, the types of tokens do not matter.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden: int = Field(ge=1, le=16384)
    layers: int = Field(ge=1, le=256)
    heads: int = Field(ge=1, le=256)
    intermediate: int = Field(ge=1, le=65536)
    vocabulary: int = Field(ge=1, le=1 << 21)
    positions: int = Field(default=512, ge=1, le=65536)
    token_types: int = Field(default=2, ge=1, le=256)
    eps: float = Field(default=1e-12, ge=0, lt=1)
    head: Head = "mean"
    labels: int = Field(default=0, ge=0, le=65536)
    activation: Activation = "tanh"

    @property
    def head_size(self) -> int:
        """Columns of one attention head."""
        return self.hidden // self.heads

    @property
    def outputs(self) -> int:
        """Numbers that one text is answered with."""
        return self.labels or self.hidden

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        if self.activation != "tanh" and self.head != "classifier":
            raise ValueError("activation must be tanh with any head but 'classifier'")
        if (self.head == "classifier") != (self.labels > 0):
            raise ValueError("labels must be positive with head 'classifier', and 0 with any other")
        return self


_SYNTHETIC: dict[str, dict[str, int]] = {
    "bert-tiny": {"layers": 2, "hidden": 128, "heads": 2, "intermediate": 512},
    "bert-base": {"layers": 12, "hidden": 768, "heads": 12, "intermediate": 3072},
    "bert-large": {"layers": 24, "hidden": 1024, "heads": 16, "intermediate": 4096},
}
SYNTHETIC_NAMES = tuple(_SYNTHETIC)


def synthetic_architecture(name: str, head: Head = "mean", labels: int = 0) -> Architecture:
    """The dimensions of a published BERT (Devlin et al., arXiv 1810.04805; Turc et al., arXiv 1908.08962).

    Raises:
        BadConfigError: there is no such name, or ``labels`` does not fit ``head``.
    """
    if name not in _SYNTHETIC:
        raise BadConfigError(f"There is no architecture {name!r}: choose one of {', '.join(_SYNTHETIC)}.")
    if (head == "classifier") != (labels > 0):
        raise BadConfigError(f"{labels} labels do not fit head {head!r}: give labels to a classifier only.")
    return Architecture.model_validate(
        {"vocabulary": 30522, "head": head, "labels": labels, **_SYNTHETIC[name]}
    )


def parameter_list(arch: Architecture) -> tuple[Parameter, ...]:
    """All parameters in the order of use; matrices are (inputs, outputs).

    "embeddings.table" holds the word rows and below them the token-type rows, so that a one-hot row
    with two ones fetches both sums in one matmul.
    """
    hidden = arch.hidden
    found = [
        Parameter("embeddings.table", (arch.vocabulary + arch.token_types, hidden), ParameterKind.MATRIX),
        Parameter("embeddings.positions", (arch.positions, hidden), ParameterKind.OFFSET),
        *_norm("embeddings.norm", hidden),
    ]
    for index in range(arch.layers):
        layer = f"layer.{index}"
        for part in ("query", "key", "value", "output"):
            found += _linear(f"{layer}.attention.{part}", (hidden, hidden))
        found += _norm(f"{layer}.attention.norm", hidden)
        found += _linear(f"{layer}.intermediate", (hidden, arch.intermediate))
        found += _linear(f"{layer}.output", (arch.intermediate, hidden))
        found += _norm(f"{layer}.norm", hidden)
    if arch.head in {"pooler", "classifier"}:
        found += _linear("head.pooler", (hidden, hidden))
    if arch.head == "classifier":
        found += _linear("head.logits", (hidden, arch.labels))
    return tuple(found)


def synthetic_parameters(arch: Architecture, seed: int = 0) -> dict[str, Tensor]:
    """Random float32 parameters, for runs where only shapes and costs matter.

    Matrices and position rows are N(0, 0.02) as at BERT's initialisation; gains are 1 and offsets 0.
    1/sqrt(d) is *not* folded into the query: it would leave the attention of an untrained model almost
    uniform, whereas scores sqrt(d) times larger exercise the softmax. Not for secrets: the generator is
    torch's.
    """
    generator = torch.Generator().manual_seed(seed)
    values: dict[str, Tensor] = {}
    for parameter in parameter_list(arch):
        if parameter.kind is ParameterKind.GAIN:
            values[parameter.name] = torch.ones(parameter.shape)
        elif len(parameter.shape) == 1:
            values[parameter.name] = torch.zeros(parameter.shape)
        else:
            values[parameter.name] = INITIAL_STD * torch.randn(parameter.shape, generator=generator)
    return values


def _linear(name: str, shape: Shape) -> list[Parameter]:
    return [
        Parameter(f"{name}.weight", shape, ParameterKind.MATRIX),
        Parameter(f"{name}.bias", shape[1:], ParameterKind.OFFSET),
    ]


def _norm(name: str, hidden: int) -> list[Parameter]:
    return [
        Parameter(f"{name}.gain", (hidden,), ParameterKind.GAIN),
        Parameter(f"{name}.bias", (hidden,), ParameterKind.OFFSET),
    ]
