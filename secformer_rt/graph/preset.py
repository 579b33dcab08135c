"""Presets: which approximation and protocol serves which operation, with its constants.

A preset is a YAML file validated into frozen models. The plaintext executor and the secure
protocols read the same object, so that both compute the same function.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from secformer_rt.errors import BadConfigError
from secformer_rt.graph.choices import (
    Comparison,
    DealtExponential,
    EvenSeries,
    ExactSoftmax,
    Exponential,
    FourierErf,
    FourierTanh,
    Frozen,
    Gelu,
    Goldschmidt,
    Histogram,
    Inverse,
    LayerNormChoice,
    LimitExponential,
    Newton,
    Polynomial,
    Quad,
    ReluGelu,
    Seeded,
    Softmax,
    Tanh,
    TanhGelu,
    Tournament,
    TwoQuad,
    TwoRelu,
)

__all__ = [
    "Comparison",
    "DealtExponential",
    "EvenSeries",
    "ExactSoftmax",
    "Exponential",
    "FixedPointBits",
    "FourierErf",
    "FourierTanh",
    "Gelu",
    "Goldschmidt",
    "Histogram",
    "Inverse",
    "LayerNormChoice",
    "LimitExponential",
    "Newton",
    "Polynomial",
    "Preset",
    "Quad",
    "ReluGelu",
    "Seeded",
    "Softmax",
    "Tanh",
    "TanhGelu",
    "Tournament",
    "TwoQuad",
    "TwoRelu",
    "explain",
    "load_preset",
]


SERIES_BITS = 29  # of a period, with the fraction bits of what GeLU reads


class FixedPointBits(Frozen):
    """Fraction bits. docs/protocols.md says why these are the defaults."""

    activation: int = Field(default=12, ge=6, le=16)  # what query, key and value matrices multiply
    hidden: int = Field(default=18, ge=12, le=20)  # normalised values elsewhere: residuals, dense matrices
    function: int = Field(default=12, ge=6, le=16)  # arguments of non-linear functions; attention weights
    weight: int = Field(default=14, ge=6, le=18)  # query, key and value matrices; gains
    projection: int = Field(default=14, ge=6, le=18)  # the matrix after attention
    dense: int = Field(default=18, ge=6, le=20)  # the other matrices
    table: int = Field(default=16, ge=6, le=20)  # embeddings and offsets
    range: int = Field(default=8, ge=3, le=12)  # arguments of GeLU and tanh are below 2^range
    truncation: Literal["dealt", "local"] = "dealt"  # local fails at random: docs/protocols.md
    # As narrow as calibrated ranges allow, or 64 bits. Narrow ones take activation for what matrices read,
    # weight for all matrices and gains, function and table; the others do not matter.
    rings: Literal["full", "narrow"] = "full"

    @model_validator(mode="after")
    def _one_scale(self) -> Self:
        if self.rings == "narrow" and not self.weight == self.projection == self.dense:
            raise ValueError("narrow rings need the same weight, projection and dense")
        if self.rings == "narrow" and self.activation + self.weight < 24:  # those of a residual's mean
            raise ValueError("narrow rings need activation and weight to add up to 24 at least")
        if self.rings == "narrow" and self.truncation == "local":
            raise ValueError("narrow rings need dealt truncation")
        return self


class Preset(Frozen):
    """A named choice of protocol for every operation."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    description: str
    fixed_point: FixedPointBits = FixedPointBits()
    comparison: Comparison = "tables"
    gelu: Gelu
    # Instead of it, the first whose cut a layer's calibrated inputs stay within, with half the headroom.
    gelu_within: tuple[EvenSeries, ...] = ()
    softmax: Softmax
    layernorm: LayerNormChoice
    tanh: Tanh

    @model_validator(mode="after")
    def _together(self) -> Self:
        if isinstance(self.gelu, TanhGelu) and not isinstance(self.tanh, FourierTanh):
            raise ValueError("gelu by tanh needs a tanh by fourier")
        if self.fixed_point.rings == "full":
            return self
        argument = self.fixed_point.activation + self.fixed_point.dense
        if any(series.period > 2.0 ** (SERIES_BITS - argument) for series in self.gelu_within):
            raise ValueError(
                f"narrow rings serve even series up to a period of {2.0 ** (SERIES_BITS - argument):g}"
            )
        if isinstance(self.softmax, TwoRelu):
            raise ValueError("narrow rings serve softmax by 2quad or exact: take full rings for 2relu")
        if self.layernorm.protocol == "affine":
            raise ValueError("narrow rings need a LayerNorm that is normalised: take full rings for affine")
        return self


def load_preset(name_or_path: str, directory: Path) -> Preset:
    """Read the preset ``name`` of ``directory``, or the YAML file at a path.

    Raises:
        BadConfigError: there is no such preset, or a key of it is wrong.
    """
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"}:
        path = directory / f"{name_or_path}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in directory.glob("*.yaml")))
        raise BadConfigError(
            f"There is no preset {name_or_path!r}: choose one of {known}, or name a YAML file."
        )
    try:
        return Preset.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValidationError) as error:
        raise BadConfigError(f"Preset {path} is not valid: {explain(error)}.") from error


def explain(error: yaml.YAMLError | ValidationError) -> str:
    """The first thing that is wrong, as 'key: what is wrong', on one line."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        return f"{key}: {first['msg'][0].lower()}{first['msg'][1:]}"
    return " ".join(str(error).split())
