"""Functions emitted in LLVM IR, and calls to them from compiled loops by their address.

So a loop that is kept on disk does not depend on them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import llvmlite.ir as ir  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

numba: Any = importlib.import_module("numba")
extending: Any = importlib.import_module("numba.extending")


def _body(_typing: Any, address: Any, given: Any) -> Any:
    kinds = [kind if isinstance(kind, numba.types.Array) else numba.int64 for kind in given]

    def generate(context: Any, builder: Any, _signature: Any, values: list[Any]) -> Any:
        word = ir.IntType(64)
        rest = [(kind, builder.extract_value(values[1], at)) for at, kind in enumerate(kinds)]
        passed = []
        while rest:
            kind, value = rest.pop(0)
            if isinstance(kind, numba.types.Array):
                data = context.make_array(kind)(context, builder, value).data
                value = builder.ptrtoint(builder.gep(data, [rest.pop(0)[1]]), word)
            passed.append(value)
        pointer = ir.FunctionType(ir.VoidType(), [word] * len(passed)).as_pointer()
        builder.call(builder.inttoptr(values[0], pointer), passed)
        return context.get_dummy_value()

    return numba.void(address, numba.types.Tuple(kinds)), generate


# ``call(address, operands)`` calls a C function of 64-bit integers; in the tuple of operands, an array and
# the offset after it, in words, are one address.
call: Any = extending.intrinsic(_body)


def compiled_function(emit: Callable[..., None], count: int) -> Any:
    """A C function of ``count`` 64-bit integers whose body ``emit(builder, *integers)`` emits.

    Returns:
        What has the address that :data:`call` takes as ``.address``, and has to outlive its use.
    """

    def body(_typing: Any, given: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, values: list[Any]) -> Any:
            emit(builder, *(builder.extract_value(values[0], at) for at in range(count)))
            return context.get_dummy_value()

        return numba.void(given), generate

    emitted = extending.intrinsic(body)
    with_arguments = {
        0: lambda: emitted(()),
        1: lambda a: emitted((a,)),
        3: lambda a, b, c: emitted((a, b, c)),
        4: lambda a, b, c, d: emitted((a, b, c, d)),
        5: lambda a, b, c, d, e: emitted((a, b, c, d, e)),
        6: lambda a, b, c, d, e, f: emitted((a, b, c, d, e, f)),
        7: lambda a, b, c, d, e, f, g: emitted((a, b, c, d, e, f, g)),
        8: lambda a, b, c, d, e, f, g, h: emitted((a, b, c, d, e, f, g, h)),
        11: lambda a, b, c, d, e, f, g, h, i, j, k: emitted((a, b, c, d, e, f, g, h, i, j, k)),
    }
    return numba.cfunc(numba.void(*[numba.int64] * count))(with_arguments[count])


@dataclass(frozen=True, slots=True, eq=False)
class Compiled:
    """Functions that a compiled loop finds by their place."""

    functions: tuple[Any, ...]  # kept, so that the addresses stay good
    addresses: NDArray[np.int64]


def compile_functions(*emitted: tuple[Callable[..., None], int]) -> Compiled:
    """:func:`compiled_function` of each pair of what emits it and its number of arguments."""
    functions = tuple(compiled_function(emit, count) for emit, count in emitted)
    return Compiled(functions, np.array([function.address for function in functions], np.int64))
