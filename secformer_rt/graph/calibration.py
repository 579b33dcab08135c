"""Calibration: run sample texts in plaintext and remember the range of every number that matters.

Fixed point needs to know how large a wire may become, and deflation how small and large a variance or a
sum may be; both differ by orders of magnitude between the layers of one model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Context

import torch
from torch import Tensor

from secformer_rt.errors import BadConfigError, OutOfRangeError
from secformer_rt.graph.batch import Batch, random_batches
from secformer_rt.graph.bert import EMBEDDINGS
from secformer_rt.graph.executor import execute
from secformer_rt.graph.models import Transformer, batch_inputs, build_graph
from secformer_rt.graph.preset import Preset, Seeded
from secformer_rt.graph.ranges import DEFAULT_HEADROOM, Calibration, Quantity, Range
from secformer_rt.graph.samples import bundled_texts

__all__ = ["Calibration", "bundled_texts", "calibrate", "random_batches"]

_SIX_DIGITS_DOWN = Context(prec=6, rounding=ROUND_FLOOR)
_SIX_DIGITS_UP = Context(prec=6, rounding=ROUND_CEILING)


def calibrate(
    arch: Transformer,
    parameters: Mapping[str, Tensor],
    batches: Iterable[Batch],
    preset: Preset,
    headroom: float = DEFAULT_HEADROOM,
    progress: Callable[[int], None] | None = None,
) -> Calibration:
    """Measure ranges with the preset's approximations, but with exact inverses.

    Inverses are exact because their deflation is what is being looked for. Padding is left out. The result
    serves both kinds of embedding: the input "embeddings" gets the range of "embeddings.sum".

    Args:
        arch: the model's dimensions.
        parameters: all of its parameters, by name.
        batches: sample texts, tokenised; short and long ones.
        preset: what the calibration is for.
        headroom: factor that :meth:`Calibration.range` moves the ends by.
        progress: told how many batches are done.

    Raises:
        BadConfigError: there is no batch.
        OutOfRangeError: a value is infinite or not a number.
    """
    seen: dict[str, dict[Quantity, Range]] = {}

    def observe(node: str, quantity: Quantity, values: Tensor) -> None:
        low, high = (float(end) for end in torch.aminmax(values))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise OutOfRangeError(
                f"The {quantity} of {node} is not finite under preset {preset.name!r}: "
                "choose a preset that this model was trained for."
            )
        before = seen.setdefault(node, {}).get(quantity, (math.inf, -math.inf))
        seen[node][quantity] = (min(before[0], low), max(before[1], high))

    measured = _with_exact_inverses(preset)
    for count, batch in enumerate(batches, start=1):
        graph = build_graph(arch, batch.size, batch.tokens, masked=batch.padded, embedding="private")
        inputs = batch_inputs(arch, "private", batch)
        execute(
            graph, parameters, inputs, measured, observe=observe, dtype=torch.float32, keep_outputs_only=True
        )
        if progress is not None:
            progress(count)
    if not seen:
        raise BadConfigError("There is nothing to calibrate with: give at least one text.")
    seen = {EMBEDDINGS: dict(seen["embeddings.sum"]), **seen}
    ranges = {
        node: {quantity: _rounded_outwards(bounds) for quantity, bounds in quantities.items()}
        for node, quantities in seen.items()
    }
    return Calibration(preset=preset.name, headroom=headroom, ranges=ranges)


def _with_exact_inverses(preset: Preset) -> Preset:
    exact = Seeded(protocol="seeded")
    softmax = preset.softmax.model_copy(update={"division": exact})
    layernorm = preset.layernorm.model_copy(update={"rsqrt": exact})
    return preset.model_copy(update={"softmax": softmax, "layernorm": layernorm})


def _rounded_outwards(bounds: Range) -> Range:
    low, high = bounds
    return float(_SIX_DIGITS_DOWN.create_decimal(low)), float(_SIX_DIGITS_UP.create_decimal(high))
