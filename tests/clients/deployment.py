"""Models and presets small enough to be asked of real parties in a test."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from secformer_rt.clients.connection import Servers
from secformer_rt.clients.data_owner import Answer, DataOwner
from secformer_rt.clients.model_owner import ProvisionedModel, provision
from secformer_rt.errors import PeerLostError
from secformer_rt.graph.architecture import Architecture, synthetic_architecture, synthetic_parameters
from secformer_rt.graph.batch import Batch, random_batches
from secformer_rt.graph.bert import Embedding
from secformer_rt.graph.calibration import calibrate
from secformer_rt.graph.executor import execute
from secformer_rt.graph.preset import load_preset
from secformer_rt.parties.manifest import Manifest

PRESETS = Path(__file__).parents[2] / "configs" / "presets"
VOCABULARY = 500  # of the small model, so that one-hot rows are short


def padded_batch(lengths: tuple[int, ...], vocabulary: int = VOCABULARY, seed: int = 5) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.zeros((len(lengths), max(lengths)), dtype=torch.int64)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(1, vocabulary, (length,), generator=generator)
    return Batch(ids, torch.zeros_like(ids), torch.tensor(lengths))


@dataclass(frozen=True)
class Small:
    """A two-layer model: what its owner has."""

    architecture: Architecture
    parameters: dict[str, Tensor]
    manifest: Manifest

    def provision(self, servers: Servers, **options: object) -> ProvisionedModel:
        return provision(servers, self.manifest, self.parameters, **options)  # type: ignore[arg-type]

    def owner(self, servers: Servers, model_id: str) -> DataOwner:
        return DataOwner(servers, model_id, self.manifest, self.parameters)

    def same_in_plaintext(self, answer: Answer) -> Tensor:
        """With the preset's approximations."""
        graph = answer.lowering.graph
        manifest = self.manifest
        wires = execute(graph, self.parameters, answer.inputs, manifest.preset, manifest.calibration)
        return wires[graph.outputs[0]].to(torch.float64)

    def check(self, servers: Servers, model_id: str) -> None:
        """The servers answer, and rightly."""
        answer = self.owner(servers, model_id).infer(padded_batch((5, 3)))
        assert (answer.output - self.same_in_plaintext(answer)).abs().max() < 2e-2


def small_model(
    preset: str = "exact", embedding: Embedding = "private", labels: int = 0, vocabulary: int = VOCABULARY
) -> Small:
    arch = synthetic_architecture("bert-tiny", "classifier" if labels else "mean", labels)
    arch = arch.model_copy(update={"vocabulary": vocabulary})
    parameters = synthetic_parameters(arch)
    chosen = load_preset(preset, PRESETS)
    calibration = calibrate(arch, parameters, random_batches(vocabulary, 1, (4, 12, 64)), chosen)
    manifest = Manifest(
        model=f"{preset} {embedding}",
        architecture=arch,
        preset=chosen,
        calibration=calibration,
        embedding=embedding,
        labels=tuple(f"label {i}" for i in range(labels)),
    )
    return Small(arch, parameters, manifest)


def until_reconnected(work: Callable[[], None], within_s: float = 20.0) -> None:
    """Try again while the channels to a restarted party still back off, two seconds at most each."""
    ends_at = time.monotonic() + within_s
    while True:
        try:
            return work()
        except PeerLostError:
            if time.monotonic() > ends_at:
                raise
            time.sleep(0.2)
