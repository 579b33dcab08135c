"""What a preset can choose for each operation, with its constants: frozen, validated models."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Frozen(BaseModel):
    """Immutable, and without keys that are not named."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Goldschmidt(Frozen):
    """Iteration with deflation (SecFormer, section 3): constants and count come from the calibrated range.

    ``iterations`` is an upper bound; fewer are run where the range needs fewer.
    """

    protocol: Literal["goldschmidt"]
    iterations: int = Field(ge=1, le=40)
    tolerance: float = Field(default=1e-4, gt=0, lt=1)


class Newton(Frozen):
    """Newton's iteration from a line over the calibrated range (CrypTen starts from an exponential).

    ``iterations`` is an upper bound; fewer are run where the range needs fewer.
    """

    protocol: Literal["newton"]
    iterations: int = Field(ge=1, le=60)
    tolerance: float = Field(default=1e-4, gt=0, lt=1)


class Seeded(Frozen):
    """A line for each of ``segments`` intervals an octave, selected by comparisons."""

    protocol: Literal["seeded"]
    segments: int = Field(default=16, ge=1, le=64)


Inverse = Annotated[Goldschmidt | Newton | Seeded, Field(discriminator="protocol")]


class FourierErf(Frozen):
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


class EvenSeries(Frozen):
    """GeLU as ``x / 2`` and an even cosine series of ``x erf(x / sqrt 2) / 2``: no comparison.

    Good for ``|x| <= cut`` only, which calibration checks. ``period`` must be a power of two.
    """

    protocol: Literal["even"]
    period: float = Field(gt=0)
    cut: float = Field(gt=0)
    terms: int = Field(ge=1, le=64)


class Quad(Frozen):
    """GeLU as one quadratic, ``c_0 + c_1 x + c_2 x^2`` (MPCFormer, section 3.1)."""

    protocol: Literal["quad"]
    coefficients: tuple[float, float, float] = (0.5, 0.25, 0.125)


class Polynomial(Frozen):
    """A function in pieces, a polynomial on each: coefficients from the constant up (PUMA, section 3.2).

    Serves GeLU, and tanh.
    """

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


class TanhGelu(Frozen):
    """GeLU as ``x / 2 (1 + tanh(scale (x + cubic x^3)))``, by the preset's tanh (CrypTen)."""

    protocol: Literal["tanh"]
    scale: float = 0.7978845608028654
    cubic: float = 0.044715


class ReluGelu(Frozen):
    """ReLU in GeLU's place (THE-X, section 3.2)."""

    protocol: Literal["relu"]


Gelu = Annotated[
    FourierErf | EvenSeries | Quad | Polynomial | TanhGelu | ReluGelu, Field(discriminator="protocol")
]
Tanh = Annotated[FourierTanh | Polynomial, Field(discriminator="protocol")]


class DealtExponential(Frozen):
    """exp from one opening and a dealt exp of its mask."""

    protocol: Literal["dealt"]


class LimitExponential(Frozen):
    """exp as ``(1 + x / 2^n)^(2^n)``, n squarings (CrypTen: 8; PUMA: 5)."""

    protocol: Literal["limit"]
    squarings: int = Field(ge=1, le=12)


Exponential = Annotated[DealtExponential | LimitExponential, Field(discriminator="protocol")]


class Tournament(Frozen):
    """The maximum by halving each row."""

    protocol: Literal["tournament"]


class Histogram(Frozen):
    """The highest bucket in use of a histogram over the calibrated range of scores.

    Where the range is too wide, or unknown, the tournament serves.
    """

    protocol: Literal["histogram"]


Maximum = Annotated[Tournament | Histogram, Field(discriminator="protocol")]


class TwoQuad(Frozen):
    """(x + offset)^2 over its row's sum (MPCFormer; SecFormer, section 3)."""

    protocol: Literal["2quad"]
    offset: float = 5.0
    division: Inverse


class TwoRelu(Frozen):
    """ReLU(x + offset)^power over its row's sum plus epsilon (MPCFormer, section 3.1: offset 0, power 1).

    THE-X's ReLU((x / 2 + 1)^3) is an eighth of that with offset 2 and power 3. A row without a positive
    x + offset has no weights at all, and its result is 0; epsilon keeps its division defined.
    """

    protocol: Literal["2relu"]
    offset: float = Field(default=0.0, ge=0, le=16)
    power: Literal[1, 2, 3] = 1
    epsilon: float = Field(default=2.0**-6, ge=2.0**-10, le=16)
    division: Inverse


class ExactSoftmax(Frozen):
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


Softmax = Annotated[TwoQuad | TwoRelu | ExactSoftmax, Field(discriminator="protocol")]

Comparison = Literal["tables", "adder"]
"""Dealt chunk tables on the masked opening, or a binary adder on shares (SecFormer, CrypTen)."""


class LayerNormChoice(Frozen):
    """LayerNorm by an inverse square root of the row's variance, or as ``gain x + offset`` alone.

    "affine" (THE-X, section 3.2) takes neither mean nor variance: a student learns gain and offset that make
    up for them. ``rsqrt`` serves inverse roots by themselves then.
    """

    protocol: Literal["normalised", "affine"] = "normalised"
    rsqrt: Inverse
