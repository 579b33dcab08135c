"""Fixed-point encoding of real numbers in Z_2^64."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from secformer_rt.errors import OutOfRangeError

# One bit of headroom below the sign, so that the sum of two encoded numbers does not wrap.
LIMIT_BITS = 62


def encode(x: Tensor, frac: int) -> Tensor:
    """Encode x as round(x * 2^frac), ties to even; exact for float64 input.

    Args:
        x: floating-point tensor of any shape.
        frac: fraction bits, 0 to 62.

    Returns:
        int64 tensor of x's shape.

    Raises:
        OutOfRangeError: an element is not finite, or not less than 2^62 once scaled.
        TypeError: x is not a floating-point tensor.
        ValueError: frac is out of its range.
    """
    _check_frac(frac)
    if not x.dtype.is_floating_point:
        raise TypeError(f"encode takes a floating-point tensor, not {x.dtype}")
    if x.is_meta:
        return torch.empty(x.shape, dtype=torch.int64, device="meta")
    # The factor is a power of two, so only what overflows, and is refused below, can be inexact.
    scaled = x.to(torch.float64) * 2.0**frac
    if not bool((scaled.abs() < 2.0**LIMIT_BITS).all()):
        raise OutOfRangeError(_refusal("A tensor holds a number that", frac))
    return scaled.round_().to(torch.int64)


def encode_scalar(value: float, frac: int) -> int:
    """Encode one number as :func:`encode` does, as a signed integer."""
    _check_frac(frac)
    if not math.isfinite(value) or abs(value) >= 2.0 ** (LIMIT_BITS - frac):
        raise OutOfRangeError(_refusal(f"{value!r}", frac))
    return round(math.ldexp(value, frac))


def decode(x: Tensor, frac: int) -> Tensor:
    """Decode ring elements, read as signed, to x / 2^frac.

    Args:
        x: int64 tensor of any shape.
        frac: fraction bits, 0 to 62.

    Returns:
        float64 tensor of x's shape; rounded where an element needs more than 53 bits.
    """
    _check_frac(frac)
    if x.dtype != torch.int64:
        raise TypeError(f"decode takes an int64 tensor, not {x.dtype}")
    if x.is_meta:
        return torch.empty(x.shape, dtype=torch.float64, device="meta")
    return x.to(torch.float64) * 2.0**-frac


def _check_frac(frac: int) -> None:
    if not 0 <= frac <= LIMIT_BITS:
        raise ValueError(f"frac must be between 0 and {LIMIT_BITS}, not {frac}")


def _refusal(subject: str, frac: int) -> str:
    return (
        f"{subject} does not fit fixed point with {frac} fraction bits: it must be finite and less than "
        f"2^{LIMIT_BITS - frac} in magnitude."
    )
