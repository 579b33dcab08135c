"""How far a command has come, for people to watch: public, and looked up in this client's own plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from math import prod

from secformer_rt.errors import PeerLostError
from secformer_rt.graph.ir import Parameter
from secformer_rt.parties.report import Progress
from secformer_rt.scheduler.plan import Plan
from secformer_rt.transport.aborts import RemoteAbort


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of a command, and how much of it is done.

    Attributes:
        name: Of the stage.
        done: Rounds, parameters or steps so far.
        total: How many there will be; 0 where nobody can say.
        bytes: So far, both directions together.
        planned_bytes: How many there will be; 0 where nobody counts.
        part: The part of it that is at work, such as a layer.
        detail: What is at work there, such as an operation.
    """

    name: str
    done: int = 0
    total: int = 0
    bytes: int = 0
    planned_bytes: int = 0
    part: Stage | None = None
    detail: str = ""

    @property
    def fraction(self) -> float | None:
        """How much of it is done: rounds and bytes weigh the same. None where nobody can say."""
        pairs = ((self.done, self.total), (self.bytes, self.planned_bytes))
        shares = [min(1.0, done / total) for done, total in pairs if total]
        return sum(shares) / len(shares) if shares else None


OnProgress = Callable[[Stage], None]


def ignore_progress(stage: Stage) -> None:
    """Tell nobody."""


class OnlineOutline:
    """The rounds of a plan by layer."""

    def __init__(self, plan: Plan) -> None:
        self._labels = [record[0][0] for record in plan.ledger.rounds]
        sizes = [2 * sum(size for _, size in record) for record in plan.ledger.rounds]
        self._bytes = list(accumulate(sizes, initial=0))
        self._within: list[tuple[int, int]] = []  # rounds and bytes of its layer, after each round
        self._layers: dict[str, tuple[int, int]] = {}
        for label, size in zip(self._labels, sizes, strict=True):
            rounds, so_far = self._layers.get(label.layer, (0, 0))
            self._layers[label.layer] = (rounds + 1, so_far + size)
            self._within.append((rounds + 1, so_far + size))

    def at(self, done: int) -> Stage:
        """After so many rounds."""
        done = min(done, len(self._labels))
        part = None
        if done:
            label, (rounds, so_far) = self._labels[done - 1], self._within[done - 1]
            total, planned = self._layers[label.layer]
            part = Stage(label.layer, rounds, total, so_far, planned, detail=label.op)
        return Stage("online", done, len(self._labels), self._bytes[done], self._bytes[-1], part)


class SharingOutline:
    """The parameters of a model, as they are shared one after the other."""

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self._names = [parameter.name for parameter in parameters]
        self._bytes = list(accumulate((8 * prod(p.shape) for p in parameters), initial=0))

    def at(self, name: str, done: int) -> Stage:
        """A stage of this name after so many parameters."""
        done = min(done, len(self._names))
        detail = self._names[done - 1] if done else ""
        return Stage(name, done, len(self._names), self._bytes[done], self._bytes[-1], detail=detail)


def infer_stage(outline: OnlineOutline, told: Progress) -> Stage:
    """What a server says of an inference, in full."""
    if told.phase == "online":
        return outline.at(told.done)
    return Stage(told.phase, bytes=told.done, planned_bytes=told.total)


@contextmanager
def located(outline: OnlineOutline, on_progress: OnProgress) -> Iterator[Callable[[Progress], None]]:
    """Pass on what a server says of an inference; if it is lost, say how far it had come.

    Raises:
        PeerLostError: the same with the last round that was heard of, unless a server has said it.
    """
    where = "before its first round"

    def tell(told: Progress) -> None:
        nonlocal where
        stage = infer_stage(outline, told)
        if stage.part is not None:
            where = f"after round {stage.done} of {stage.total}, {stage.part.detail} of {stage.part.name}"
        on_progress(stage)

    try:
        yield tell
    except PeerLostError as error:
        if isinstance(error.__cause__, RemoteAbort):
            raise
        raise PeerLostError(f"{str(error).rstrip('.')}, {where}.") from error
