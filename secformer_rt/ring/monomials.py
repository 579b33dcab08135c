"""Sums of products of tensors modulo 2^64, in one pass over memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor

from secformer_rt.ring.jit import as_array, compiled, empty

Factor = Tensor | int


@dataclass(frozen=True, slots=True)
class Monomial:
    """``(sum over parts of the product of its factors, times 2^exponent) * share``; share may be 1."""

    parts: tuple[tuple[tuple[Factor, ...], int], ...]
    share: Tensor | None


def sum_of_products(monomials: Sequence[Monomial], shape: tuple[int, ...]) -> Tensor:
    """The sum of all monomials.

    Args:
        monomials: at least one; their tensors are int64 and broadcast to ``shape``.
        shape: of the result.

    Returns:
        int64, contiguous.
    """
    if compiled() and prod(shape) >= 64:
        return _fused(monomials, shape)
    total = torch.zeros(shape, dtype=torch.int64)
    for monomial in monomials:
        factor: Factor = 0
        for factors, exponent in monomial.parts:
            value: Factor = 1
            for f in factors:
                value = f * value
            factor = factor + (value << exponent)
        total += factor if monomial.share is None else factor * monomial.share
    return total


def _fused(monomials: Sequence[Monomial], shape: tuple[int, ...]) -> Tensor:
    from secformer_rt.ring import fused

    columns = shape[-1]
    rows = prod(shape[:-1])
    operands: dict[int, tuple[np.ndarray, int, int]] = {}  # by id: array, strides in words
    numbers: dict[int, int] = {}

    def number(t: Tensor) -> int:
        if id(t) not in numbers:
            numbers[id(t)] = len(numbers)
            operands[id(t)] = _strided(t, shape)
        return numbers[id(t)]

    program: list[int] = []
    for monomial in monomials:
        program += [len(monomial.parts), -1 if monomial.share is None else number(monomial.share)]
        for factors, exponent in monomial.parts:
            constant, named = 1, []
            for f in factors:
                if isinstance(f, int):
                    constant *= f
                else:
                    named.append(number(f))
            program += [_signed(constant << exponent), len(named), *named]
    out = empty((rows, columns), torch.int64)
    table = np.array(
        [[a.ctypes.data, by_row, by_column] for a, by_row, by_column in operands.values()], dtype=np.int64
    ).reshape(-1, 3)
    fused.sum_of_products(np.array(program, dtype=np.int64), table, out.numpy())
    return out.view(shape)


def _signed(value: int) -> int:
    """An integer modulo 2^64 as int64 holds it."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def _strided(t: Tensor, shape: tuple[int, ...]) -> tuple[np.ndarray, int, int]:
    """An operand as (array, words from row to row, words from column to column)."""
    full = (1,) * (len(shape) - t.ndim) + tuple(t.shape)
    if prod(full[:-1]) == 1:
        by_row = 0
    elif full[:-1] == shape[:-1]:
        by_row = full[-1]
    else:
        t, by_row = t.expand(*shape[:-1], full[-1]), full[-1]
    array = as_array(t.contiguous())
    return array, by_row, 0 if full[-1] == 1 else 1
