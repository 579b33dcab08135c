"""The scheduler: steps every ready protocol to its next opening, and opens once a round.

The engine is the same for servers and planner. It holds no socket and no secret of its own; a
:class:`Backend` answers the requests that protocols make.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar
from typing import Protocol as Interface

from torch import Tensor

from secformer_rt.graph.ir import Graph
from secformer_rt.protocols.core import (
    Await,
    Beside,
    Deal,
    Dealt,
    Later,
    Open,
    Parallel,
    Protocol,
    Secret,
    Wait,
)
from secformer_rt.protocols.correlations import Correlation
from secformer_rt.protocols.lowering import Lowering, kind
from secformer_rt.protocols.model import Model

T = TypeVar("T")


class Label(NamedTuple):
    """What a cost is booked under."""

    layer: str
    op: str
    node: str


class Backend(Interface):
    """Answers what protocols ask for."""

    def deal(self, correlation: Correlation, label: Label) -> Dealt:
        """This role's shares of the next correlation of the plan."""

    def exchange(self, openings: Sequence[tuple[Label, Open]]) -> list[Tensor]:
        """One round: the public value of every opening, in order."""

    def spent(self, label: Label, seconds: float) -> None:
        """Book computing time."""


@dataclass(slots=True, eq=False)
class _Task:
    generator: Protocol[Any]
    label: Label
    done: Callable[[Any], None]
    children: list[Any] = field(default_factory=list)
    missing: int = 0


class Engine:
    """Runs protocols in lockstep rounds. The order of everything depends on shapes only."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._ready: deque[tuple[_Task, Any]] = deque()
        self._openings: list[tuple[_Task, Open]] = []
        self._waiting: list[_Task] = []
        self._awaiting: dict[Later[Any], list[_Task]] = {}
        self.rounds = 0
        self.wire_bytes = 0  # shares on the graph's wires: now
        self.peak_wire_bytes = 0  # and at most

    def run(self, protocol: Protocol[T], label: Label) -> T:
        """Run one protocol to its end and return its result."""
        results: list[T] = []
        self.start(protocol, label, results.append)
        self._drain()
        return results[0]

    def run_graph(
        self, lowering: Lowering, model: Model, inputs: dict[str, Secret], keep: bool = False
    ) -> dict[str, Secret]:
        """Run a graph; returns its outputs, or every wire if ``keep``."""
        walk = _Walk(self, lowering, model, inputs, keep)
        for name in walk.first():
            walk.start(name)
        self._drain()
        return walk.wires if keep else {wire: walk.wires[wire] for wire in lowering.graph.outputs}

    def hold(self, change: int) -> None:
        """Book bytes of shares that have come onto the graph's wires, or have gone."""
        self.wire_bytes += change
        self.peak_wire_bytes = max(self.peak_wire_bytes, self.wire_bytes)

    def start(self, protocol: Protocol[Any], label: Label, done: Callable[[Any], None]) -> None:
        """Have a protocol run; its result goes to ``done``."""
        self._ready.append((_Task(protocol, label, done), None))

    def _drain(self) -> None:
        while self._ready or self._openings:
            while self._ready:
                self._step(*self._ready.popleft())
            if self._openings:
                self._round()
        if self._waiting or self._awaiting:
            raise RuntimeError("protocols wait for an opening that nobody makes")

    def _round(self) -> None:
        openings, self._openings = self._openings, []
        waiting, self._waiting = self._waiting, []
        opened = self._backend.exchange([(task.label, opening) for task, opening in openings])
        self.rounds += 1
        self._ready.extend((task, public) for (task, _), public in zip(openings, opened, strict=True))
        self._ready.extend((task, None) for task in waiting)

    def _step(self, task: _Task, value: Any) -> None:
        began = time.perf_counter()
        try:
            request = task.generator.send(value)
            while isinstance(request, Deal | Beside):
                answer: Any
                if isinstance(request, Deal):
                    answer = self._backend.deal(request.correlation, task.label)
                else:
                    answer = self._beside(request, task.label)
                request = task.generator.send(answer)
        except StopIteration as stop:
            self._backend.spent(task.label, time.perf_counter() - began)
            task.done(stop.value)
            return
        self._backend.spent(task.label, time.perf_counter() - began)
        if isinstance(request, Open):
            self._openings.append((task, request))
        elif isinstance(request, Wait):
            self._waiting.append(task)
        elif isinstance(request, Parallel):
            self._fork(task, request)
        elif isinstance(request, Await):
            self._await(task, request.later)
        else:
            raise TypeError(f"a protocol yielded {type(request).__name__}")

    def _beside(self, request: Beside, label: Label) -> Later[Any]:
        later: Later[Any] = Later()

        def done(result: Any) -> None:
            later.result = result
            self._ready.extend((task, result) for task in self._awaiting.pop(later, ()))

        self.start(request.protocol, label, done)
        return later

    def _await(self, task: _Task, later: Later[Any]) -> None:
        if later.result is None:
            self._awaiting.setdefault(later, []).append(task)
        else:
            self._ready.append((task, later.result))

    def _fork(self, task: _Task, request: Parallel) -> None:
        task.children = [None] * len(request.protocols)
        task.missing = len(request.protocols)
        label = task.label if request.op is None else task.label._replace(op=request.op)

        def join(position: int) -> Callable[[Any], None]:
            def done(result: Any) -> None:
                task.children[position] = result
                task.missing -= 1
                if task.missing == 0:
                    results, task.children = task.children, []
                    self._ready.append((task, results))

            return done

        for position, protocol in enumerate(request.protocols):
            self.start(protocol, label, join(position))


class _Walk:
    """One pass over a graph: nodes start when their inputs are there, and shares go with their last reader.

    An object, because closures that call each other would keep each other, and with them a run's backend
    and randomness, until Python looks for cycles.
    """

    def __init__(
        self, engine: Engine, lowering: Lowering, model: Model, inputs: dict[str, Secret], keep: bool
    ) -> None:
        graph = lowering.graph
        self.wires = dict(inputs)
        self._engine, self._lowering, self._model, self._keep = engine, lowering, model, keep
        for secret in inputs.values():
            engine.hold(_size(secret))
        self._nodes = {node.name: node for node in graph.nodes}
        self._readers = _readers(graph)
        self._missing = {node.name: len(set(node.inputs) - inputs.keys()) for node in graph.nodes}
        self._uses = Counter(wire for node in graph.nodes for wire in set(node.inputs))
        self._uses.update(graph.outputs)

    def first(self) -> list[str]:
        """The nodes that wait for no other, in the graph's order."""
        return [name for name, count in self._missing.items() if count == 0]

    def start(self, name: str) -> None:
        node = self._nodes[name]
        label = Label(node.layer, kind(node), name)
        inputs = [self.wires[wire] for wire in node.inputs]
        protocol = self._lowering.protocol(node, inputs, self._model)
        self._engine.start(protocol, label, partial(self._finish, name))

    def _finish(self, name: str, result: Secret) -> None:
        self.wires[name] = result
        self._engine.hold(_size(result))
        for wire in set(self._nodes[name].inputs):
            self._uses[wire] -= 1
            if self._uses[wire] == 0 and not self._keep:
                self._engine.hold(-_size(self.wires.pop(wire)))
        for reader in self._readers.get(name, ()):
            self._missing[reader] -= 1
            if self._missing[reader] == 0:
                self.start(reader)


def _size(secret: Secret) -> int:
    return 8 * secret.held.numel()


def _readers(graph: Graph) -> dict[str, list[str]]:
    readers: dict[str, list[str]] = {}
    for node in graph.nodes:
        for wire in dict.fromkeys(node.inputs):
            readers.setdefault(wire, []).append(node.name)
    return readers
