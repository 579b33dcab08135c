"""Presets: which approximation and protocol serves which operation, with its constants.

A preset is a YAML file validated into frozen models. The plaintext executor and the secure
protocols read the same object, so that both compute the same function.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from secformer_rt.errors import BadConfigError


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Goldschmidt(_Frozen):
    """Iteration with deflation (SecFormer, section 3): constants and count come from the calibrated range.

    ``iterations`` is an upper bound; fewer are run where the range needs fewer.
    """

    protocol: Literal["goldschmidt"]
    iterations: int = Field(ge=1, le=40)
    tolerance: float = Field(default=1e-4, gt=0, lt=1)


class Newton(_Frozen):
    """Newton's iteration from a line over the calibrated range (CrypTen starts from an exponential).

    ``iterations`` is an upper bound; fewer are run where the range needs fewer.
    """

    protocol: Literal["newton"]
    iterations: int = Field(ge=1, le=60)
    tolerance: float = Field(default=1e-4, gt=0, lt=1)


class Seeded(_Frozen):
    """A line for each of ``segments`` intervals an octave, selected by comparisons."""

    protocol: Literal["seeded"]
    segments: int = Field(default=16, ge=1, le=64)


Inverse = Annotated[Goldschmidt | Newton | Seeded, Field(discriminator="protocol")]


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


class EvenSeries(_Frozen):
    """GeLU as ``x / 2`` and an even cosine series of ``x erf(x / sqrt 2) / 2``: no comparison.

    Good for ``|x| <= cut`` only, which calibration checks. ``period`` must be a power of two.
    """

    protocol: Literal["even"]
    period: float = Field(gt=0)
    cut: float = Field(gt=0)
    terms: int = Field(ge=1, le=64)


class Quad(_Frozen):
    """GeLU as one quadratic, ``c_0 + c_1 x + c_2 x^2`` (MPCFormer, section 3.1)."""

    protocol: Literal["quad"]
    coefficients: tuple[float, float, float] = (0.5, 0.25, 0.125)


class Polynomial(_Frozen):
    """GeLU in pieces, a polynomial on each: coefficients from the constant up (PUMA, section 3.2)."""

    protocol: Literal["polynomial"]
    cuts: tuple[float, ...] = Field(min_length=1, max_length=15)
    pieces: tuple[tuple[float, ...], ...]

    @model_validator(mode="after")
    def _matching(self) -> Self:
        if len(self.pieces) != len(self.cuts) + 1:
            raise ValueError(f"{len(self.cuts)} cuts separate {len(self.cuts) + 1} pieces")
        if list(self.cuts) != sorted(set(self.cuts)):
            raise ValueError("cuts must increase")
        if any(not 1 <= len(piece) <= 7 for piece in self.pieces):
            raise ValueError("a piece has one to seven coefficients")
        return self


class TanhGelu(_Frozen):
    """GeLU as ``x / 2 (1 + tanh(scale (x + cubic x^3)))``, by the preset's tanh (CrypTen)."""

    protocol: Literal["tanh"]
    scale: float = 0.7978845608028654
    cubic: float = 0.044715


Gelu = Annotated[FourierErf | EvenSeries | Quad | Polynomial | TanhGelu, Field(discriminator="protocol")]


class DealtExponential(_Frozen):
    """exp from one opening and a dealt exp of its mask."""

    protocol: Literal["dealt"]


class LimitExponential(_Frozen):
    """exp as ``(1 + x / 2^n)^(2^n)``, n squarings (CrypTen: 8; PUMA: 5)."""

    protocol: Literal["limit"]
    squarings: int = Field(ge=1, le=12)


Exponential = Annotated[DealtExponential | LimitExponential, Field(discriminator="protocol")]


class Tournament(_Frozen):
    """The maximum by halving each row."""

    protocol: Literal["tournament"]


class Histogram(_Frozen):
    """The highest bucket in use of a histogram over the calibrated range of scores.

    Where the range is too wide, or unknown, the tournament serves.
    """

    protocol: Literal["histogram"]


Maximum = Annotated[Tournament | Histogram, Field(discriminator="protocol")]


class TwoQuad(_Frozen):
    """(x + offset)^2 over its row's sum (MPCFormer; SecFormer, section 3)."""

    protocol: Literal["2quad"]
    offset: float = 5.0
    division: Inverse


class ExactSoftmax(_Frozen):
    """exp(x - max) over its row's sum; exp is 0 below ``-clip``. A dealt exp clips at 8 or 16.

    A histogram leaves the maximum open by 2 or 4, which only a dealt exp of clip 16 has room for.
    """

    protocol: Literal["exact"]
    clip: float = Field(default=16, ge=4, le=64)
    exponential: Exponential = DealtExponential(protocol="dealt")
    maximum: Maximum = Tournament(protocol="tournament")
    division: Inverse

    @model_validator(mode="after")
    def _window(self) -> Self:
        if isinstance(self.exponential, DealtExponential) and self.clip not in (8, 16):
            raise ValueError("a dealt exponential clips at 8 or 16: change clip, or choose limit")
        dealt = isinstance(self.exponential, DealtExponential) and self.clip == 16
        if isinstance(self.maximum, Histogram) and not dealt:
            raise ValueError("a histogram needs the dealt exponential and clip 16")
        return self


Softmax = Annotated[TwoQuad | ExactSoftmax, Field(discriminator="protocol")]

Comparison = Literal["tables", "adder"]
"""Dealt chunk tables on the masked opening, or a binary adder on shares (SecFormer, CrypTen)."""


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
    truncation: Literal["dealt", "local"] = "dealt"  # local fails at random: docs/protocols.md
    # As narrow as calibrated ranges allow, or 64 bits. Narrow ones take activation for what matrices read,
    # weight for all matrices and gains, function and table; the others do not matter.
    rings: Literal["full", "narrow"] = "full"

    @model_validator(mode="after")
    def _one_scale(self) -> Self:
        if self.rings == "narrow" and not self.weight == self.projection == self.dense:
            raise ValueError("narrow rings need the same weight, projection and dense")
        if self.rings == "narrow" and self.truncation == "local":
            raise ValueError("narrow rings need dealt truncation")
        return self


class Preset(_Frozen):
    """A named choice of protocol for every operation."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    description: str
    fixed_point: FixedPointBits = FixedPointBits()
    comparison: Comparison = "tables"
    gelu: Gelu
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
