"""What MACs on every shared value would cost, from the plan alone: see docs/integrity.md.

    python examples/cost_of_integrity.py [bert-base] [128] [exact]

``S`` bits of statistical security: a value modulo 2^k is opened modulo 2^(k + S), and whatever the dealer
hands out comes with a share of the value times a key, modulo 2^(k + S) again. XOR-shared bits get a MAC of S
bits each.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from secformer_rt.clients.choices import chosen_preset
from secformer_rt.clients.main_job import describe_job, synthetic_job
from secformer_rt.graph.batch import Batch
from secformer_rt.protocols.core import Open, Secret
from secformer_rt.protocols.correlations import Field, Sharing, Source
from secformer_rt.protocols.lowering import Lowering, input_frac
from secformer_rt.scheduler.engine import Engine, Label
from secformer_rt.scheduler.plan import Planner, meta_model

S = 40


class Counter(Planner):
    """Counts the bits that servers send each other, without MACs and with them."""

    def __init__(self) -> None:
        super().__init__()
        self.bits = self.with_macs = 0

    def exchange(self, openings: Sequence[tuple[Label, Open]]) -> list[Tensor]:
        """Count one round."""
        for _, opening in openings:
            count = opening.share.numel()
            # MACs of opened bits are checked all together at the end, so a bit stays a bit.
            self.bits += 8 * count if opening.xor else count * opening.bits
            self.with_macs += 8 * count if opening.xor else count * (opening.bits + S)
        return super().exchange(openings)


def dealt(field: Field) -> tuple[int, int]:
    """Bits that the dealer sends for one field, without MACs and with them."""
    if field.source is Source.LOCAL:
        return 0, 0
    plain = 8 * field.size if field.source is Source.DERIVED else 0
    if field.sharing in (Sharing.PLANES, Sharing.TABLES):
        return plain, plain + 8 * field.size * S
    count = 1
    for size in field.shape:
        count *= size
    width = {Sharing.BYTES: 8, Sharing.HALVES: 32}.get(field.sharing, field.bits)
    value = count * (width + S) if field.source is Source.DERIVED else 0
    return plain, value + count * (width + S)


def count(lowering: Lowering) -> Counter:
    """Plan one inference."""
    counter, bits = Counter(), lowering.preset.fixed_point
    inputs = {
        wire.name: Secret(
            0, torch.empty(wire.shape, dtype=torch.int64, device="meta"), input_frac(wire, bits)
        )
        for wire in lowering.graph.inputs
    }
    Engine(counter).run_graph(lowering, meta_model(lowering.graph, lowering), inputs)
    return counter


def main() -> None:
    """Print what one inference costs either way."""
    given = sys.argv[1:]
    name, tokens, preset = given + ["bert-base", "128", "exact"][len(given) :]
    job = synthetic_job(name, int(tokens), 1)
    manifest = describe_job(job, chosen_preset(preset), "private")
    batch: Batch = job.batches[0]
    counter = count(manifest.lowering(batch.size, batch.tokens, batch.padded))
    fields = [field for deal in counter.plan.deals for field in deal.correlation.fields]
    plain, with_macs = (sum(column) for column in zip(*map(dealt, fields), strict=True))
    print(f"{name}, {tokens} tokens, {preset}, {S} bits of statistical security")
    for what, before, after in (
        ("servers, both directions", 2 * counter.bits, 2 * counter.with_macs),
        ("dealer, both servers", plain, with_macs),
    ):
        print(f"{what}: {before / 8e6:.0f} MB, with MACs {after / 8e6:.0f} MB, {after / before:.1f} times")
    print(f"rounds: {counter.plan.rounds}, with MACs {counter.plan.rounds + 2}")


if __name__ == "__main__":
    main()
