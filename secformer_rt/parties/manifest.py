"""What the parties must agree on: the public description of a model, and of one request."""

from __future__ import annotations

import hashlib
from typing import Literal, TypeVar

from google.protobuf.message import Message
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from secformer_rt import __version__
from secformer_rt.errors import BadInputError, DesyncError, MismatchError
from secformer_rt.graph.bert import Embedding
from secformer_rt.graph.ir import Graph
from secformer_rt.graph.models import Transformer, build_graph
from secformer_rt.graph.operations import Operation, build_operation
from secformer_rt.graph.preset import Preset, explain
from secformer_rt.graph.ranges import Calibration
from secformer_rt.protocols.lowering import Lowering
from secformer_rt.transport import wire_pb2

PROTOCOL_VERSION = 10
RUN_ID_BYTES = 16

Purpose = Literal["describe", "provision", "prepare", "infer", "diagnose"]
T = TypeVar("T", bound=BaseModel)


class Manifest(BaseModel):
    """Everything public about a provisioned model. Weights are not part of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(max_length=200)
    architecture: Transformer | Operation
    preset: Preset
    calibration: Calibration | None
    embedding: Embedding
    labels: tuple[str, ...] = ()
    normalise: bool = False

    def digest(self) -> bytes:
        """SHA-256 of its canonical JSON."""
        return hashlib.sha256(self.model_dump_json().encode()).digest()

    def lowering(self, batch: int, tokens: int, masked: bool) -> Lowering:
        """The graph of one request, with how it is to be computed.

        A single operation takes ``batch`` rows, ``tokens`` numbers each.

        Raises:
            BadConfigError: the model has too few positions.
            BadInputError: the operation has rows of another length.
        """
        if isinstance(self.architecture, Operation):
            if masked or tokens != self.architecture.columns:
                raise BadInputError(
                    f"This operation takes unpadded rows of {self.architecture.columns} numbers:"
                    f" ask it with rows of that length, not of {tokens}{' with padding' if masked else ''}."
                )
            graph = build_operation(self.architecture, batch)
        else:
            graph = build_graph(self.architecture, batch, tokens, masked=masked, embedding=self.embedding)
        return Lowering(graph, self.preset, self.calibration)

    def transformer(self) -> Transformer:
        """The dimensions of the encoder or decoder that this model is.

        Raises:
            BadInputError: it is a single operation.
        """
        if isinstance(self.architecture, Operation):
            raise BadInputError(
                f"Model {self.model!r} is a single operation and reads no texts: measure it with bench ops."
            )
        return self.architecture

    def provisioning(self) -> Lowering:
        """A lowering that uses every parameter, to provision by."""
        columns = self.architecture.columns if isinstance(self.architecture, Operation) else 1
        return self.lowering(1, columns, masked=False)

    def parameters(self) -> Graph:
        """A graph that uses every parameter, to encode by."""
        return self.provisioning().graph


class Request(BaseModel):
    """The public description of one inference: which model, and the shape of the input.

    For a single operation the batch is its rows and the tokens are its columns. ``wanted`` is how many are
    still to be prepared, this one included, where it is prepared ahead. Servers report where the seconds of a
    profiled one went.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_id: str = Field(pattern=r"^[0-9a-f]{32}$")
    batch: int = Field(ge=1, le=1 << 20)
    tokens: int = Field(ge=1, le=65536)
    masked: bool
    wanted: int = Field(default=1, ge=1, le=1 << 20)
    profiled: bool = False


def parse(kind: type[T], data: bytes, peer: str) -> T:
    """Read a message's JSON.

    Raises:
        DesyncError: it is not one.
    """
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise DesyncError(f"{peer} sent a {kind.__name__} that is not valid: {explain(error)}.") from error


def make_hello(
    role: str, run_id: bytes, purpose: Purpose, manifest: Manifest | None = None, plan: bytes = b""
) -> wire_pb2.Hello:
    """What this party is about to run."""
    return wire_pb2.Hello(
        protocol_version=PROTOCOL_VERSION,
        role=role,
        run_id=run_id,
        plan_digest=plan,
        manifest_digest=manifest.digest() if manifest else b"",
        preset=manifest.preset.name if manifest else "",
        fixed_point=manifest.preset.fixed_point.model_dump_json() if manifest else "",
        package_version=__version__,
        purpose=purpose,
    )


_COMPARED = (
    "protocol_version",
    "purpose",
    "run_id",
    "preset",
    "fixed_point",
    "manifest_digest",
    "plan_digest",
)


def compare(mine: wire_pb2.Hello, theirs: wire_pb2.Hello, expected_role: str) -> None:
    """Refuse a peer that is about to run something else.

    Raises:
        MismatchError: the sentence shows both sides of the first difference.
    """
    if theirs.role != expected_role:
        raise MismatchError(f"{expected_role} was expected, but the peer says that it is {theirs.role!r}.")
    for name in _COMPARED:
        here, there = getattr(mine, name), getattr(theirs, name)
        if here != there:
            raise MismatchError(
                f"{mine.role} and {theirs.role} do not agree on the {name.replace('_', ' ')}:"
                f" {_shown(here)} here, {_shown(there)} there; run the same version with the same model."
            )


def check_run_id(hello: wire_pb2.Hello) -> None:
    """Refuse a run that cannot be told from others.

    Raises:
        DesyncError: its id is not 16 bytes.
    """
    if len(hello.run_id) != RUN_ID_BYTES:
        raise DesyncError(f"A run id has {RUN_ID_BYTES} bytes, and not {len(hello.run_id)}.")


def _shown(value: object) -> str:
    return value.hex()[:16] if isinstance(value, bytes) else str(value)


def json_of(message: Message) -> bytes:
    """The JSON that a Manifest or Report message carries."""
    data: bytes = message.json  # type: ignore[attr-defined]
    return data
