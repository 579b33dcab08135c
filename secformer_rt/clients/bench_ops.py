"""One operation at a time on real parties: what it costs, and how far it errs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import IO, Any, NamedTuple

from torch import Tensor

from secformer_rt.clients.cluster import LocalCluster, loopback_settings
from secformer_rt.clients.connection import Servers
from secformer_rt.clients.data_owner import Answer, DataOwner
from secformer_rt.clients.machine import this_machine
from secformer_rt.clients.model_owner import provision
from secformer_rt.clients.progress import OnProgress, Stage, ignore_progress
from secformer_rt.errors import BadConfigError, SecformerError
from secformer_rt.graph.executor import execute
from secformer_rt.graph.operations import (
    INPUT,
    Operation,
    calibrate_operation,
    make_operation,
    operation_inputs,
    operation_parameters,
)
from secformer_rt.graph.preset import Preset
from secformer_rt.parties.manifest import Manifest
from secformer_rt.parties.settings import Settings

MAX_ROWS, MAX_NUMBERS = 1 << 20, 1 << 22
PAPER_OPS = ("gelu", "layernorm", "softmax", "reciprocal", "rsqrt")


class Size(NamedTuple):
    """The shape of an operation's input."""

    rows: int
    columns: int

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}"


# At 128 tokens BERT_BASE has GeLUs of 128x3072, LayerNorms of 128x768 and softmaxes of 1536x128, and inverts
# one number for each row of the last two.
DEFAULT_SIZES: dict[str, tuple[Size, ...]] = {
    "layernorm": (Size(8, 768), Size(32, 768), Size(128, 768)),
    "softmax": (Size(96, 128), Size(384, 128), Size(1536, 128)),
    "maximum": (Size(96, 128), Size(384, 128), Size(1536, 128)),
    "reciprocal": (Size(128, 1), Size(1536, 1), Size(12288, 1)),
    "rsqrt": (Size(128, 1), Size(1536, 1), Size(12288, 1)),
}
ELEMENTWISE_SIZES = (Size(8, 3072), Size(32, 3072), Size(128, 3072))  # of all other operations


@dataclass(frozen=True, slots=True)
class Case:
    """One operation under one preset, at one size."""

    operation: Operation
    preset: Preset
    rows: int

    @property
    def size(self) -> Size:
        """Of the input."""
        return Size(self.rows, self.operation.columns)

    def __str__(self) -> str:
        return f"{self.operation.op}, preset {self.preset.name}, {self.size}"


class Seconds(NamedTuple):
    """Of each measured run, the slower server's."""

    offline: list[float]
    online: list[float]


@dataclass(frozen=True, slots=True)
class Measurement:
    """A case's costs and errors.

    ``bytes`` is payload by link, both directions together; ``dealer_words``, of 8 bytes, go to both servers.
    ``error_vs_exact`` is the largest absolute difference from the function itself, ``error_vs_oracle`` from
    the preset's approximation of it in plaintext, over all runs.
    """

    op: str
    preset: str
    rows: int
    columns: int
    rounds: int
    planned_rounds: int
    bytes: dict[str, int]
    dealer_words: int
    seconds: Seconds
    error_vs_exact: float
    error_vs_oracle: float

    @property
    def size(self) -> Size:
        """Of the input."""
        return Size(self.rows, self.columns)

    @property
    def dealer_bytes(self) -> int:
        """To both servers."""
        return self.bytes["dealer_server0"] + self.bytes["dealer_server1"]


def parse_size(text: str) -> Size:
    """A size such as "128x768".

    Raises:
        BadConfigError: it is not one, or too large for one request.
    """
    rows, separator, columns = text.lower().partition("x")
    if not separator or not all(part.isascii() and part.isdigit() for part in (rows, columns)):
        raise BadConfigError(f"{text!r} is not a size: give rows and columns, as in 128x768.")
    size = Size(int(rows), int(columns))
    if not (1 <= size.rows <= MAX_ROWS and 1 <= size.rows * size.columns <= MAX_NUMBERS):
        raise BadConfigError(
            f"Size {text} is out of bounds: give 1 to {MAX_ROWS:,} rows, and at most {MAX_NUMBERS:,} numbers."
        )
    return size


def bench_cases(ops: Sequence[str], presets: Sequence[Preset], sizes: Sequence[Size] = ()) -> list[Case]:
    """Every operation under every preset at every size; without sizes, at those of :data:`DEFAULT_SIZES`.

    Raises:
        BadConfigError: there is no such operation, or it takes no such size.
    """
    return [
        Case(make_operation(op, size.columns), preset, size.rows)
        for op in dict.fromkeys(ops)
        for preset in dict.fromkeys(presets)
        for size in dict.fromkeys(sizes) or DEFAULT_SIZES.get(op, ELEMENTWISE_SIZES)
    ]


def bench_ops(
    cases: Sequence[Case],
    repeats: int,
    *,
    settings: Settings | None = None,
    log: IO[str] | None = None,
    on_progress: OnProgress = ignore_progress,
) -> list[Measurement]:
    """Start three parties, measure every case, and stop them.

    Each case is run once more than ``repeats``, first: what that run spends on plans and on compiling kernels
    is not counted.

    Raises:
        SecformerError: with one sentence; all parties have been stopped.
    """
    settings = settings or loopback_settings()
    found: list[Measurement] = []
    with LocalCluster(settings, log) as cluster, cluster.watched(), Servers(cluster.settings) as servers:
        servers.wait_ready(_checker(cluster))
        for number, case in enumerate(cases):
            on_progress(Stage("measure", number, len(cases), detail=str(case)))
            found.append(_measure(servers, case, repeats))
    return found


def _checker(cluster: LocalCluster) -> Callable[[str, float, str], None]:
    """Ends the wait for a party that will not come."""

    def check(role: str, seconds: float, reason: str) -> None:
        if (failure := cluster.failure()) is not None:
            raise failure

    return check


def _measure(servers: Servers, case: Case, repeats: int) -> Measurement:
    operation, preset = case.operation, case.preset
    inputs, parameters = operation_inputs(operation, case.rows), operation_parameters(operation)
    manifest = Manifest(
        model=operation.op,
        architecture=operation,
        preset=preset,
        calibration=calibrate_operation(operation, inputs[INPUT], preset),
        embedding="private",
    )
    try:
        model = provision(servers, manifest, parameters)
        owner = DataOwner(servers, model.model_id, manifest)
        answers = [owner.infer_tensors(inputs, *case.size) for _ in range(repeats + 1)]
    except SecformerError as error:
        raise type(error)(f"{case}: {error}") from error
    return _compare(case, manifest, parameters, answers)


def _compare(
    case: Case, manifest: Manifest, parameters: dict[str, Tensor], answers: Sequence[Answer]
) -> Measurement:
    last = answers[-1]
    graph = last.lowering.graph
    (output,) = graph.outputs
    exact = execute(graph, parameters, last.inputs)[output]
    oracle = execute(graph, parameters, last.inputs, manifest.preset, manifest.calibration)[output]
    timed = answers[1:]
    return Measurement(
        op=case.operation.op,
        preset=case.preset.name,
        rows=case.size.rows,
        columns=case.size.columns,
        rounds=last.reports[0].rounds,
        planned_rounds=last.plan.rounds,
        bytes={link: seen.payload for link, seen in last.traffic().items()},
        dealer_words=sum(last.plan.dealer_bytes) // 8,
        seconds=Seconds(
            offline=[max(report.offline_s for report in answer.reports) for answer in timed],
            online=[max(report.online_s for report in answer.reports) for answer in timed],
        ),
        error_vs_exact=_largest_difference(answers, exact),
        error_vs_oracle=_largest_difference(answers, oracle),
    )


def _largest_difference(answers: Sequence[Answer], expected: Tensor) -> float:
    return max(float((answer.output - expected).abs().max()) for answer in answers)


def bench_summary(found: Sequence[Measurement]) -> dict[str, Any]:
    """What ``bench ops --json`` prints."""
    results = [{**asdict(result), "seconds": result.seconds._asdict()} for result in found]
    return {"machine": asdict(this_machine()), "results": results}
