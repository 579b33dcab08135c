"""Presets: which approximation and protocol serves which operation, with its constants.

A preset is a YAML file validated into frozen models. The plaintext executor and the secure
protocols read the same object, so that both compute the same function.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from secformer_rt.errors import BadConfigError


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Goldschmidt(_Frozen):
    """Iteration with deflation (SecFormer, section 3): eta and the count come from calibration.

    ``iterations`` is an upper bound; fewer are run where the calibrated range needs fewer.
    """

    protocol: Literal["goldschmidt"]
    iterations: int = Field(ge=1, le=40)
    tolerance: float = Field(default=1e-4, gt=0, lt=1)


class Seeded(_Frozen):
    """A line for each of ``segments`` intervals an octave, selected by comparisons."""

    protocol: Literal["seeded"]
    segments: int = Field(default=16, ge=1, le=64)


Inverse = Annotated[Goldschmidt | Seeded, Field(discriminator="protocol")]


class FourierErf(_Frozen):
    """erf(x / sqrt 2) as an odd sine series inside ``|x| <= cut``, and its sign outside.

    ``period`` is in units of x. ``coefficients`` empty means: fitted by least squares.
    """

    protocol: Literal["fourier"]
    period: float = Field(gt=0)
    cut: float = Field(gt=0)
    terms: int = Field(default=0, ge=0, le=64)
    coefficients: tuple[float, ...] = ()


class FourierTanh(FourierErf):
    """tanh(x) as an odd sine series inside ``|x| <= cut``, and its sign outside."""


class TwoQuad(_Frozen):
    """(x + offset)^2 over its row's sum (MPCFormer; SecFormer, section 3)."""

    protocol: Literal["2quad"]
    offset: float = 5.0
    division: Inverse


class ExactSoftmax(_Frozen):
    """exp(x - max) over its row's sum; exp is 0 below ``-clip``."""

    protocol: Literal["exact"]
    clip: Literal[8, 16] = 16
    division: Inverse


Softmax = Annotated[TwoQuad | ExactSoftmax, Field(discriminator="protocol")]


class LayerNormChoice(_Frozen):
    """LayerNorm by an inverse square root of the row's variance."""

    rsqrt: Inverse


class FixedPointBits(_Frozen):
    """Fraction bits. docs/protocols.md says why these are the defaults."""

    activation: int = Field(default=12, ge=6, le=16)  # what query, key and value matrices multiply
    hidden: int = Field(default=18, ge=12, le=20)  # normalised values elsewhere: residuals, dense matrices
    function: int = Field(default=12, ge=6, le=16)  # arguments of non-linear functions; attention weights
    weight: int = Field(default=14, ge=6, le=18)  # query, key and value matrices; gains
    projection: int = Field(default=14, ge=6, le=18)  # the matrix after attention
    dense: int = Field(default=18, ge=6, le=20)  # the other matrices
    table: int = Field(default=16, ge=6, le=20)  # embeddings and offsets
    range: int = Field(default=8, ge=3, le=12)  # arguments of GeLU and tanh are below 2^range


class Preset(_Frozen):
    """A named choice of protocol for every operation."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    description: str
    fixed_point: FixedPointBits = FixedPointBits()
    gelu: FourierErf
    softmax: Softmax
    layernorm: LayerNormChoice
    tanh: FourierTanh


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
