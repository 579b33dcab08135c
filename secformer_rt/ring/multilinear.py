"""Products of sums, multiplied out and added up in one pass over memory, modulo 2^64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secformer_rt.ring.jit import as_array, compiled, empty
from secformer_rt.ring.words import signed

Coefficient = tuple[Tensor | int, int]  # times two to the power of the second
Leaves = Mapping[tuple[int, ...], Tensor | int]
NONE, SUM = -1, -2  # in place of an operand: one that is not there, the sum of the next level


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

    operands = _Operands()
    program = _compiled(
        tuple(shape),
        tuple(tuple((*operands.place(value), exponent) for value, exponent in factor) for factor in factors),
        tuple((key, *operands.place(leaf)) for key, leaf in leaves.items()),
        tuple(t.shape for t in operands.tensors),
        0 if weights is None else 1,
    )
    _kept, table = program.table(operands.tensors)  # until it has been read
    rows, columns = prod(program.shape[:-1]), program.shape[-1]
    sums = np.empty((len(factors) + 2, fused.LANE), np.int64)
    if weights is None:
        out, added = empty((rows, columns), torch.int64), np.empty(0, np.int64)
    else:
        out, added = torch.zeros((rows // shape[0], columns), dtype=torch.int64), as_array(weights)
    fused.multilinear(program.code, table, sums, sums.ctypes.data, added, out.numpy(), rows)
    return out.view(shape if weights is None else shape[1:])


class _Operands:
    """The tensors of one call, each once, by number."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self._numbers: dict[int, int] = {}

    def place(self, value: Tensor | int) -> tuple[int, int]:
        """The number of a tensor and a factor of 1, or NONE and an integer."""
        if isinstance(value, int):
            return NONE, value
        number = self._numbers.setdefault(id(value), len(self.tensors))
        if number == len(self.tensors):
            self.tensors.append(value)
        return number, 1


@dataclass(frozen=True, slots=True, eq=False)
class _Program:
    """Instructions for :func:`fused.multilinear`, ``code``, and how they read each operand.

    Attributes:
        shape: the result's, its last axes as one.
        code: (C, 5), see :func:`_level`.
        expanded: what each operand is expanded to before, if anything.
        steps: (N, 2), each operand's words from row to row and from column to column.
    """

    shape: tuple[int, ...]
    code: NDArray[np.int64]
    expanded: tuple[tuple[int, ...] | None, ...]
    steps: NDArray[np.int64]

    def table(self, operands: Sequence[Tensor]) -> tuple[list[Tensor], NDArray[np.int64]]:
        """The operands as they are read, and (N, 3): their addresses and steps."""
        held, addresses = [], np.empty((len(operands), 3), np.int64)
        for number, (t, expanded) in enumerate(zip(operands, self.expanded, strict=True)):
            t = (t if expanded is None else t.expand(expanded)).contiguous()
            held.append(t.clone() if t.data_ptr() % t.element_size() else t)
            addresses[number, 0] = held[-1].data_ptr()
        addresses[:, 1:] = self.steps
        return held, addresses


# A tensor's number or NONE, and an integer.
_Factors = tuple[tuple[tuple[int, int, int], ...], ...]  # with the exponents
_Leaves = tuple[tuple[tuple[int, ...], int, int], ...]  # behind their keys


@lru_cache(maxsize=4096)
def _compiled(
    shape: tuple[int, ...],
    factors: _Factors,
    leaves: _Leaves,
    operands: tuple[tuple[int, ...], ...],
    kept: int,
) -> _Program:
    """The program for operands of these shapes: run after run multiplies the same ones out."""
    flat = _flattened(shape, operands, kept)
    instructions: list[tuple[int, int, int, int, int]] = []
    _level(factors, {key: place for key, *place in leaves}, (), instructions)
    code = np.array(instructions, dtype=np.int64).reshape(-1, 5)
    expanded, steps = [], np.empty((len(operands), 2), np.int64)
    for number, operand in enumerate(operands):
        whole = (1,) * (len(shape) - len(operand)) + tuple(operand)
        leading, columns = whole[: len(flat) - 1], prod(whole[len(flat) - 1 :])
        by_row = 0 if prod(leading) == 1 else columns
        is_spread = by_row and leading != flat[:-1]
        expanded.append((*flat[:-1], *whole[len(flat) - 1 :]) if is_spread else None)
        steps[number] = by_row, 0 if columns == 1 else 1
    return _Program(flat, code, tuple(expanded), steps)


def _flattened(shape: tuple[int, ...], operands: Sequence[tuple[int, ...]], kept: int) -> tuple[int, ...]:
    """The shape with its last axes as one: as many as no operand is spread along in part, less some kept.

    The work of a row's instructions is spent on long rows better than on short ones.
    """
    shapes = [(1,) * (len(shape) - len(operand)) + tuple(operand) for operand in operands]
    axis = len(shape) - 1
    while axis > kept and all(s[axis - 1 :] == shape[axis - 1 :] or prod(s[axis - 1 :]) == 1 for s in shapes):
        axis -= 1
    return (*shape[:axis], prod(shape[axis:]))


def _level(
    factors: _Factors,
    leaves: Mapping[tuple[int, ...], Sequence[int]],
    chosen: tuple[int, ...],
    code: list[tuple[int, int, int, int, int]],
) -> bool:
    """The code of one factor's sum, given those before; False if there is nothing to add up.

    Instructions are ``(level, constant, operand, leaf, shift)``: they add ``constant * operand * leaf`` to
    the sum of a level; a leaf of SUM is the sum of the next level, which starts again at 0. A constant is
    ``2^shift``, unless that is -1.
    """
    depth = len(chosen)
    some = False
    for i, (operand, constant, exponent) in enumerate(factors[depth]):
        key = (*chosen, i)
        leaf = SUM
        constant <<= exponent
        if depth + 1 < len(factors):
            if not _level(factors, leaves, key, code):
                continue
        elif key not in leaves:
            continue
        else:
            leaf, factor = leaves[key]
            constant *= factor
        is_power = 0 < constant < 1 << 64 and not constant & (constant - 1)
        shift = constant.bit_length() - 1 if is_power else -1
        code.append((depth, signed(constant), operand, leaf, shift))
        some = True
    return some
