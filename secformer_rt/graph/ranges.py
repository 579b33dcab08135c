"""What a calibration run has measured, and what follows from it for each inverse."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, log2, sqrt
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from secformer_rt.errors import BadConfigError
from secformer_rt.graph.ir import (
    Attend,
    Graph,
    InverseRoot,
    LayerNorm,
    Linear,
    Node,
    Reciprocal,
    Scores,
    Softmax,
)
from secformer_rt.graph.iterations import InverseKind, Iteration, goldschmidt_steps, newton_steps
from secformer_rt.graph.preset import (
    ExactSoftmax,
    Gelu,
    Goldschmidt,
    Inverse,
    Preset,
    Seeded,
    TwoRelu,
    explain,
)

Quantity = Literal["output", "variance", "denominator"]
Range = tuple[float, float]

DEFAULT_HEADROOM = 4.0
UNCALIBRATED_EMBEDDING_VARIANCE: Range = (2.0**-12, 2.0**2)
UNCALIBRATED_VARIANCE: Range = (2.0**-6, 2.0**10)
UNCALIBRATED_DENOMINATOR: Range = (1.0, 2.0**20)


class Calibration(BaseModel):
    """The smallest and largest value of each quantity of each node, over sample texts.

    ``ranges`` maps node (or input) to quantity to (low, high) as seen; "output" is the wire itself,
    "variance" a LayerNorm's row variance plus eps, "denominator" the row sums of a 2Quad or 2ReLU softmax.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: str
    headroom: Annotated[FiniteFloat, Field(ge=1)] = DEFAULT_HEADROOM
    ranges: dict[str, dict[Quantity, tuple[FiniteFloat, FiniteFloat]]]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for node, quantities in self.ranges.items():
            for quantity, (low, high) in quantities.items():
                if low > high:
                    raise ValueError(f"{node}.{quantity}: low ({low:g}) is above high ({high:g})")
        return self

    def range(self, node: str, quantity: Quantity) -> Range | None:
        """The range to prepare for: each end moved outwards by the factor ``headroom``, or None if unseen.

        Outwards means away from 0 for an end beyond it and towards 0 otherwise: [-2, 8] becomes [-8, 32],
        and a variance in [1, 8] becomes [0.25, 32], with the default headroom of 4.
        """
        seen = self.ranges.get(node, {}).get(quantity)
        if seen is None:
            return None
        low, high = seen
        return (
            low * self.headroom if low < 0 else low / self.headroom,
            high * self.headroom if high > 0 else high / self.headroom,
        )

    def save(self, path: Path, notes: Mapping[tuple[str, Quantity], str] | None = None) -> None:
        """Write as YAML, one line per node and quantity; notes become comments.

        Raises:
            BadConfigError: the file cannot be written.
        """
        lines = [f"preset: {self.preset}", f"headroom: {self.headroom!r}", "ranges:"]
        for node, quantities in self.ranges.items():
            lines.append(f"  {node}:")
            for quantity, (low, high) in quantities.items():
                note = (notes or {}).get((node, quantity))
                lines.append(f"    {quantity}: [{low!r}, {high!r}]" + (f"  # {note}" if note else ""))
        if not self.ranges:
            lines[-1] += " {}"
        try:
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        except OSError as error:
            raise BadConfigError(
                f"Calibration {path} cannot be written ({error.strerror}): name another file."
            ) from error

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read what :meth:`save` wrote.

        Raises:
            BadConfigError: the file is missing, or a key of it is wrong.
        """
        try:
            return cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise BadConfigError(
                f"Calibration {path} cannot be read ({error.strerror}): calibrate first."
            ) from error
        except UnicodeDecodeError as error:
            raise BadConfigError(f"Calibration {path} is not UTF-8 text: calibrate again.") from error
        except (yaml.YAMLError, ValidationError) as error:
            raise BadConfigError(f"Calibration {path} is not valid: {explain(error)}.") from error


def inverse_range(
    graph: Graph, node: Node, preset: Preset, calibration: Calibration | None
) -> tuple[float, float]:
    """The range of the number that is inverted inside a LayerNorm, a softmax or an inverse.

    A softmax with maximum and exponential has sums within 1 and T, whatever the model. Without a
    calibration, variances are taken to lie within [2^-12, 4] at the embeddings and [2^-6, 2^10] elsewhere,
    and 2Quad's sums within [1, 2^20]: wide enough for MiniLM and for freshly initialised models, but
    without any guarantee. 2ReLU's are never below its epsilon.

    Raises:
        BadConfigError: the calibration has no range for this node.
        ValueError: nothing is inverted in this node.
    """
    quantity: Quantity
    softmax = preset.softmax
    if isinstance(node.op, LayerNorm) and preset.layernorm.protocol == "normalised":
        quantity = "variance"
        default = UNCALIBRATED_EMBEDDING_VARIANCE if node.layer == "embeddings" else UNCALIBRATED_VARIANCE
    elif isinstance(node.op, Reciprocal | InverseRoot):
        return node.op.low, node.op.high
    elif isinstance(node.op, Attend | Softmax) and isinstance(softmax, ExactSoftmax):
        return 1.0, float(graph.shapes[node.inputs[0]][-1])
    elif isinstance(node.op, Attend | Softmax):
        quantity, default = "denominator", UNCALIBRATED_DENOMINATOR
    else:
        raise ValueError(f"{node.name} inverts nothing")
    bounds = default if calibration is None else calibration.range(node.name, quantity)
    if bounds is None:
        raise BadConfigError(
            f"The calibration has no {quantity} of {node.name}: calibrate this model with this preset."
        )
    if quantity == "denominator" and isinstance(softmax, TwoRelu):
        # Exactly epsilon where nothing is positive, and a range of one number is none.
        return softmax.epsilon, max(bounds[1], 2 * softmax.epsilon)
    return bounds


def node_iteration(
    graph: Graph, node: Node, preset: Preset, calibration: Calibration | None
) -> Iteration | None:
    """How the inverse inside a node iterates, or None if it has none or it is seeded.

    Raises:
        BadConfigError: as :func:`inverse_range`, or the range needs more iterations than the preset allows.
    """
    kind: InverseKind
    choice: Inverse
    if isinstance(node.op, LayerNorm) and preset.layernorm.protocol == "affine":
        return None
    if isinstance(node.op, LayerNorm | InverseRoot):
        kind, choice = "rsqrt", preset.layernorm.rsqrt
    elif isinstance(node.op, Attend | Softmax | Reciprocal):
        kind, choice = "reciprocal", preset.softmax.division
    else:
        return None
    if isinstance(choice, Seeded):  # a calibration need not know its range
        return None
    bounds = inverse_range(graph, node, preset, calibration)
    try:
        return iteration(choice, bounds, kind)
    except BadConfigError as error:
        raise BadConfigError(f"{node.name}: {error}") from error


def iteration(choice: Inverse, bounds: Range, kind: InverseKind) -> Iteration | None:
    """The iteration that a preset's choice stands for over a range, or None if it is seeded.

    Raises:
        BadConfigError: the range needs more iterations than the preset allows.
    """
    if isinstance(choice, Seeded):
        return None
    find = goldschmidt_steps if isinstance(choice, Goldschmidt) else newton_steps
    return find(*bounds, kind, choice.tolerance, choice.iterations)


def node_gelu(graph: Graph, node: Node, preset: Preset, calibration: Calibration | None) -> Gelu:
    """How a GeLU is computed: an even series where calibrated values are small enough for it.

    They may exceed what was seen by the square root of the headroom. Beyond its cut a series bends off
    gradually, so that a value that does is not lost, as it is beyond its ring.
    """
    seen = calibration and calibration.ranges.get(node.inputs[0], {}).get("output")
    if not seen or calibration is None:
        return preset.gelu
    reach = max(-seen[0], seen[1]) * sqrt(calibration.headroom)
    return next((series for series in preset.gelu_within if reach <= series.cut), preset.gelu)


def derived_constants(
    graph: Graph, preset: Preset, calibration: Calibration
) -> dict[tuple[str, Quantity], str]:
    """What a plan makes of a calibration, in words: iterations of each inverse, bits of each wire."""
    notes: dict[tuple[str, Quantity], str] = {}
    for node in graph.nodes:
        found = node_iteration(graph, node, preset, calibration)
        quantity: Quantity = "variance" if isinstance(node.op, LayerNorm) else "denominator"
        if found is not None and calibration.range(node.name, quantity) is not None:
            notes[node.name, quantity] = f"eta 2^{found.exponent}, {found.iterations} iterations"
        output = calibration.ranges.get(node.name, {}).get("output")
        if output is not None and isinstance(node.op, Linear | Scores):
            reached = max(-output[0], output[1], 2.0**-20)
            notes[node.name, "output"] = f"below 2^{ceil(log2(reached))}"
    return notes
