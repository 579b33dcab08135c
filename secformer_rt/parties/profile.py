"""Where the seconds of a run go: counters around kernels, keystreams, packing and links, on request only.

While a run is profiled, the functions that do work in bulk are replaced, wherever they have been imported, by
ones that count the time of the thread that runs it; other runs pass through. Afterwards all is as before.
What comes out are seconds by kind of work: never a value, a size or an address.
"""

from __future__ import annotations

import inspect
import math
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from types import ModuleType
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from secformer_rt.ring.prg import Prg
from secformer_rt.transport.link import Link

MATMUL: Final = "matmul"
ELEMENTWISE: Final = "elementwise"
PRG: Final = "prg"
PACKING: Final = "packing"
SEND: Final = "send"
RECEIVE: Final = "receive"  # with the wait for the other end
REST: Final = "rest"  # Python: protocols, scheduler, and whatever nobody counts
ALIKE: Final = (ELEMENTWISE, PACKING)  # whose calls are compared with others like them

PACKAGE: Final = "secformer_rt."
RING: Final = f"{PACKAGE}ring."
_INSIDE: Final = tuple(
    RING + name
    for name in (
        "buffers",
        "dots",
        "emitter",
        "fused",
        "fused_bits",
        "fused_choices",
        "gemm",
        "harmonics",
        "jit",
        "limb_gemm",
        "limb_products",
        "limbs",
        "native",
        "prg",
        "streams",
        "tile",
        "tile_products",
        "winograd",
    )
)
_KINDS: Final = {
    "matmul": MATMUL,
    "matmul_packed": MATMUL,
    "pack": MATMUL,
    "pack_words": PACKING,
    "pack_chosen": PACKING,
    "pack_differences": PACKING,
    "unpack_words": PACKING,
    "unpack_sum": PACKING,
    "unpack_onto": PACKING,
    "pack_bits": PACKING,
    "unpack_bits": PACKING,
}
_METHODS: Final[tuple[tuple[type, str, str], ...]] = (
    (Prg, "__init__", PRG),
    (Prg, "fill", PRG),
    (Prg, "bytes", PRG),
    (Prg, "words", PRG),
    (Prg, "planes", PRG),
    (Link, "send", SEND),
    (Link, "send_control", SEND),
    (Link, "receive", RECEIVE),
    (Link, "receive_into", RECEIVE),
    (Link, "receive_control", RECEIVE),
)

_here = threading.local()


@dataclass(slots=True)
class _Calls:
    """Calls of one function with tensors of the same shapes: how many, and the seconds of the quickest."""

    number: int = 0
    quickest: float = math.inf


class Laps(TorchFunctionMode):
    """The counters of one run, phase by phase; it counts what torch does by itself as well.

    Attributes:
        found: seconds by phase and kind of work.
        quickest: what the ring's own functions would have taken of them, had every call been as quick as the
            quickest with tensors of the same shapes: a peak that was seen where it counts.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, dict[str, float]] = {}
        self.quickest: dict[str, dict[str, float]] = {}
        self._seconds: dict[str, float] = defaultdict(float)
        self._calls: dict[tuple[object, ...], _Calls] = defaultdict(_Calls)
        self._busy = False

    def end(self, phase: str, seconds: float) -> None:
        """Close a phase that has taken so long: what no counter has seen is the rest."""
        counted = dict(self._seconds)
        self.found[phase] = {**counted, REST: max(0.0, seconds - sum(counted.values()))}
        quickest: dict[str, float] = defaultdict(float)
        for (kind, *_), calls in self._calls.items():
            quickest[str(kind)] += calls.number * calls.quickest
        self.quickest[phase] = dict(quickest)
        self._seconds.clear()
        self._calls.clear()

    def count(self, kind: str, function: Callable[..., Any], *given: Any, **named: Any) -> Any:
        """Call a function, and book its time; what it calls in turn is part of it.

        Calls of some kinds are booked among those that are like them as well.
        """
        if self._busy:
            return function(*given, **named)
        with torch._C.DisableTorchFunction():  # which would count in the middle of what is timed
            calls = self._calls[kind, function, _shapes(given), _shapes(named)] if kind in ALIKE else None
            return self._timed(kind, calls, function, *given, **named)

    def _timed(
        self, kind: str, calls: _Calls | None, function: Callable[..., Any], *given: Any, **named: Any
    ) -> Any:
        self._busy, began = True, time.perf_counter()
        try:
            return function(*given, **named)
        finally:
            seconds = time.perf_counter() - began
            self._seconds[kind] += seconds
            if calls is not None:
                calls.number, calls.quickest = calls.number + 1, min(calls.quickest, seconds)
            self._busy = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """One of torch's functions, in Python's terms."""
        if self._busy or getattr(func, "__name__", "") == "__get__":  # a shape or a type is Python's work
            return func(*args, **(kwargs or {}))
        return self._timed(ELEMENTWISE, None, func, *args, **(kwargs or {}))


def _shapes(given: Any) -> Hashable:
    """What calls have in common that work on tensors of the same shapes."""
    if isinstance(given, Tensor | np.ndarray):
        return tuple(given.shape), given.dtype
    if isinstance(given, Mapping):
        return tuple((key, _shapes(value)) for key, value in given.items())
    if isinstance(given, Sequence) and not isinstance(given, str):
        return tuple(map(_shapes, given))
    return None


class Unprofiled:
    """Of a run that nobody profiles."""

    found: Final[dict[str, dict[str, float]]] = {}
    quickest: Final[dict[str, dict[str, float]]] = {}

    def end(self, phase: str, seconds: float) -> None:
        """Nothing was counted."""


@contextmanager
def profiling(asked: bool) -> Iterator[Laps | Unprofiled]:
    """Count what this thread does until the block ends, if that is asked for."""
    if not asked:
        yield Unprofiled()
        return
    with _replacements, Laps() as laps:
        _here.laps = laps
        try:
            yield laps
        finally:
            del _here.laps


class _Replacements:
    """In place for as long as any run is profiled."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs = 0
        self._before: list[tuple[object, str, object]] = []

    def __enter__(self) -> None:
        with self._lock:
            self._runs += 1
            if self._runs == 1:
                self._put()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._runs -= 1
            if not self._runs:
                for holder, name, original in self._before:
                    setattr(holder, name, original)
                self._before = []

    def _put(self) -> None:
        functions = {original: _counted(kind, original) for original, kind in counted_functions().items()}
        for module in _modules(PACKAGE):
            for name, value in list(vars(module).items()):
                if inspect.isfunction(value) and value in functions:
                    self._replace(module, name, functions[value])
        for holder, name, kind in _METHODS:
            self._replace(holder, name, _counted(kind, getattr(holder, name)))

    def _replace(self, holder: object, name: str, function: Callable[..., Any]) -> None:
        self._before.append((holder, name, getattr(holder, name)))
        setattr(holder, name, function)


_replacements = _Replacements()


def counted_functions() -> dict[Callable[..., Any], str]:
    """The ring's functions that do work in bulk, and what kind of work it is."""
    return {
        function: _KINDS.get(name, ELEMENTWISE)
        for module in _modules(RING)
        if module.__name__ not in _INSIDE
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    }


def _modules(prefix: str) -> list[ModuleType]:
    return [module for name, module in list(sys.modules.items()) if name.startswith(prefix)]


def _counted(kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def counting(*given: Any, **named: Any) -> Any:
        laps: Laps | None = getattr(_here, "laps", None)
        if laps is None:
            return function(*given, **named)
        return laps.count(kind, function, *given, **named)

    return counting
