"""Products of sums, multiplied out and added up in one pass over memory, modulo 2^64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor

from secformer_rt.ring.jit import as_array, compiled, empty
from secformer_rt.ring.words import signed

Coefficient = tuple[Tensor | int, int]  # times two to the power of the second
Leaves = Mapping[tuple[int, ...], Tensor | int]
NONE = -1  # an operand that is not there


def multilinear(
    factors: Sequence[Sequence[Coefficient]],
    leaves: Leaves,
    shape: tuple[int, ...],
    weights: Tensor | None = None,
) -> Tensor:
    """The sum over leaves of the leaf times one coefficient of each factor, which its key chooses.

    Args:
        factors: coefficients, int64 tensors that broadcast to ``shape`` or integers.
        leaves: the same; keys have an index for every factor.
        shape: of the result.
        weights: (J,) int64; if given, the result's first axis, of length J, is added up times these.

    Returns:
        int64, contiguous.
    """
    if weights is not None and len(shape) == 1:
        return (multilinear(factors, leaves, shape) * weights).sum()
    if compiled() and prod(shape) >= 64:
        return _fused(factors, leaves, shape, weights)
    total = torch.zeros(shape, dtype=torch.int64)
    for key, leaf in leaves.items():
        value: Tensor | int = leaf
        for factor, i in zip(factors, key, strict=True):
            coefficient, exponent = factor[i]
            value = signed(value) * coefficient if isinstance(value, int) else value * coefficient
            value = value << exponent
        total += signed(value) if isinstance(value, int) else value
    if weights is None:
        return total
    return (total * weights.reshape(-1, *([1] * (len(shape) - 1)))).sum(0)


def _fused(
    factors: Sequence[Sequence[Coefficient]],
    leaves: Leaves,
    shape: tuple[int, ...],
    weights: Tensor | None,
) -> Tensor:
    from secformer_rt.ring import fused

    kept = 0 if weights is None else 1  # axes that stay by themselves
    program = _Program(_flattened(shape, factors, leaves, kept), len(shape))
    program.level(factors, leaves, ())
    rows, columns = prod(program.shape[:-1]), program.shape[-1]
    table = np.array([row for _, row in program.operands.values()], dtype=np.int64).reshape(-1, 3)
    code = np.array(program.code, dtype=np.int64).reshape(-1, 5)
    sums = np.empty((len(factors) + 2, fused.LANE), np.int64)
    if weights is None:
        out, added = empty((rows, columns), torch.int64), np.empty(0, np.int64)
    else:
        out, added = torch.zeros((rows // shape[0], columns), dtype=torch.int64), as_array(weights)
    fused.multilinear(code, table, sums, sums.ctypes.data, added, out.numpy(), rows)
    return out.view(shape if weights is None else shape[1:])


def _flattened(
    shape: tuple[int, ...],
    factors: Sequence[Sequence[Coefficient]],
    leaves: Leaves,
    kept: int,
) -> tuple[int, ...]:
    """The shape with its last axes as one: as many as no operand is spread along in part, less some kept.

    The work of a row's instructions is spent on long rows better than on short ones.
    """
    given = [coefficient for factor in factors for coefficient, _ in factor]
    shapes = [
        (1,) * (len(shape) - t.ndim) + tuple(t.shape)
        for t in (*given, *leaves.values())
        if isinstance(t, Tensor)
    ]
    axis = len(shape) - 1
    while axis > kept and all(s[axis - 1 :] == shape[axis - 1 :] or prod(s[axis - 1 :]) == 1 for s in shapes):
        axis -= 1
    return (*shape[:axis], prod(shape[axis:]))


class _Program:
    """Instructions ``(level, constant, operand, leaf, shift)`` for :func:`fused.multilinear`.

    They add ``constant * operand * leaf`` to the sum of a level; a leaf of -2 is the sum of the next level,
    which starts again at 0. A constant is ``2^shift``, unless that is -1.
    """

    SUM = -2

    def __init__(self, shape: tuple[int, ...], axes: int) -> None:
        self.shape, self._axes = shape, axes
        self.code: list[tuple[int, int, int, int, int]] = []
        self.operands: dict[int, tuple[Tensor, tuple[int, int, int]]] = {}
        self._numbers: dict[int, int] = {}

    def level(
        self,
        factors: Sequence[Sequence[Coefficient]],
        leaves: Leaves,
        chosen: tuple[int, ...],
    ) -> bool:
        """The code of one factor's sum, given those before; False if there is nothing to add up."""
        depth = len(chosen)
        some = False
        for i, (coefficient, exponent) in enumerate(factors[depth]):
            key = (*chosen, i)
            leaf = self.SUM
            constant = 1 << exponent
            if depth + 1 < len(factors):
                if not self.level(factors, leaves, key):
                    continue
            elif key not in leaves:
                continue
            else:
                value = leaves[key]
                if isinstance(value, int):
                    constant, leaf = constant * value, NONE
                else:
                    leaf = self._number(value)
            if isinstance(coefficient, int):
                constant, operand = constant * coefficient, NONE
            else:
                operand = self._number(coefficient)
            is_power = 0 < constant < 1 << 64 and not constant & (constant - 1)
            shift = constant.bit_length() - 1 if is_power else -1
            self.code.append((depth, signed(constant), operand, leaf, shift))
            some = True
        return some

    def _number(self, t: Tensor) -> int:
        if id(t) not in self._numbers:
            self._numbers[id(t)] = len(self._numbers)
            self.operands[id(t)] = self._strided(t)
        return self._numbers[id(t)]

    def _strided(self, t: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """An operand in memory, and its address with the words from row to row and from column to column."""
        shape = (1,) * (self._axes - t.ndim) + tuple(t.shape)
        last = len(self.shape) - 1
        leading, columns = shape[:last], prod(shape[last:])
        by_row = 0 if prod(leading) == 1 else columns
        if by_row and leading != self.shape[:-1]:
            t = t.expand(*self.shape[:-1], *shape[last:])
        t = t.contiguous()
        if t.data_ptr() % 8:
            t = t.clone()
        return t, (t.data_ptr(), by_row, 0 if columns == 1 else 1)
