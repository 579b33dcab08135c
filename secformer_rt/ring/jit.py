"""Which kernels run here, and how they are compiled.

The choice follows the processor; ``SECFORMER_RT_KERNELS``, one of :class:`Backend`, overrides it.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import os
import sys
from collections.abc import Callable
from enum import StrEnum
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secformer_rt.errors import BadConfigError

Function = TypeVar("Function", bound=Callable[..., Any])

OVERRIDE = "SECFORMER_RT_KERNELS"

# Linux on x86-64: the system call's number, its request, and the state that the request is for.
_ARCH_PRCTL, _ASK_FOR_STATE, _TILES = 158, 0x1023, 18

_NUMPY_TYPES = {
    torch.int64: np.int64,
    torch.int32: np.int32,
    torch.int16: np.int16,
    torch.uint8: np.uint8,
}


class Backend(StrEnum):
    """How the ring kernels are run."""

    PLAIN = "plain"  # torch and numpy only
    SPLIT = "split"  # compiled; 64-bit products from 32-bit halves
    WIDE = "wide"  # compiled; native 64-bit products, for AVX-512 DQ
    DOT = "dot"  # as wide, and 32-bit products from 16-bit dot products, for AVX-512 VNNI
    AMX = "amx"  # products from products of bytes by the processor's matrix unit


@functools.cache
def backend() -> Backend:
    """The backend of this process, chosen once at first use.

    Raises:
        BadConfigError: the override names no backend, or one that this machine lacks something for.
    """
    wanted = os.environ.get(OVERRIDE, "")
    if wanted not in ("", *Backend):
        choices = ", ".join(Backend)
        raise BadConfigError(f"{OVERRIDE} is {wanted!r}; set it to one of {choices}, or unset it.")
    if wanted == Backend.PLAIN:
        return Backend.PLAIN
    try:
        numba: Any = importlib.import_module("numba")
    except ImportError:
        if wanted:
            raise BadConfigError(f"{OVERRIDE} is {wanted!r}, which needs numba; install it.") from None
        return Backend.PLAIN
    if wanted == Backend.DOT and not has("avx2"):
        raise BadConfigError(f"{OVERRIDE} is {wanted!r}, which needs a processor with AVX2; unset it.")
    if wanted == Backend.AMX and not has_matrix_unit():
        raise BadConfigError(f"{OVERRIDE} is {wanted!r}, which needs a processor with AMX; unset it.")
    chosen = Backend(wanted) if wanted else _fastest()
    if chosen is Backend.DOT and numba.config.CPU_FEATURES is None:
        # LLVM takes a dot product apart where it expects to wait for the sum; these loops do not wait.
        numba.config.CPU_FEATURES = f"{_features().flatten()},+fast-dpwssd"
    return chosen


def _fastest() -> Backend:
    if not (has("avx512dq") and has("avx512f")):
        return Backend.SPLIT
    if has_matrix_unit():
        return Backend.AMX
    return Backend.DOT if has("avx512vnni") else Backend.WIDE


def has(feature: str) -> bool:
    """Whether the processor has a feature, by LLVM's name."""
    return bool(_features().get(feature))


def has_matrix_unit() -> bool:
    """Whether there is a matrix unit for bytes (AMX), and Linux grants this process its registers."""
    if not (has("amx-int8") and has("avx512bw")) or sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None).syscall(_ARCH_PRCTL, _ASK_FOR_STATE, _TILES) == 0)


def _features() -> Any:
    return importlib.import_module("llvmlite.binding").get_host_cpu_features()


def compiled() -> bool:
    """Whether the compiled kernels are in use."""
    return backend() is not Backend.PLAIN


def inlined(function: Function) -> Function:
    """Compile a helper that only compiled functions of the same module call."""
    numba: Any = importlib.import_module("numba")
    return cast(Function, numba.njit(nogil=True)(function))


def compile_now(*signatures: str) -> Callable[[Function], Function]:
    """Compile a function for its signatures, with the machine code kept on disk where that works.

    The on-disk cache notices changes of the function's own module only, so everything that a function
    calls has to live in its module or be passed in.
    """
    numba: Any = importlib.import_module("numba")

    def decorate(function: Function) -> Function:
        try:
            return cast(Function, numba.njit(list(signatures), nogil=True, cache=True)(function))
        except Exception:
            # No writable place, a full disk, a damaged entry: the cache only saves time. An error of
            # the function itself comes up again below.
            return cast(Function, numba.njit(list(signatures), nogil=True)(function))

    return decorate


def as_array(x: Tensor) -> NDArray[Any]:
    """A numpy view of a CPU tensor of any strides; copied only if its memory is not aligned.

    Compiled functions accept aligned arrays only, and a buffer received from elsewhere may start anywhere.
    """
    array: NDArray[Any] = x.numpy()
    return array if array.flags.aligned else array.copy()


def as_flat(x: Tensor) -> NDArray[Any]:
    """The elements of a CPU tensor in order, on one axis; copied only if they do not lie so."""
    return as_array(x).ravel()


def any_meta(*tensors: Tensor) -> bool:
    """Whether any of the tensors has no data, which makes the call a dry run for planning."""
    return any(x.is_meta for x in tensors)


Place = Callable[[tuple[int, ...], torch.dtype], Tensor]  # gives memory to write a tensor to


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor of a type that the ring uses, on huge pages where the system has them to offer.

    numpy asks for huge pages for large arrays and torch does not; first touches then cost far less. Nor does
    it let go of the interpreter, for which other threads of a party wait.
    """
    if 0 in shape:
        return torch.empty(shape, dtype=dtype)
    return torch.from_numpy(np.empty(tuple(shape), _NUMPY_TYPES[dtype]))
