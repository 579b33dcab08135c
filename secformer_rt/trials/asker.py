"""The client of trials, a process because it gets killed and frozen like the parties.

``python -m secformer_rt.trials.asker CONFIG PRESET TOKENS`` reads commands from standard input, a line each:
``provision``, or ``prepare`` or ``infer`` and a model's id. It answers each with one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from secformer_rt.clients.choices import chosen_preset
from secformer_rt.clients.connection import Servers
from secformer_rt.clients.data_owner import DataOwner
from secformer_rt.clients.model_owner import provision
from secformer_rt.clients.prepare import prepare
from secformer_rt.errors import SecformerError
from secformer_rt.graph.architecture import Architecture, synthetic_architecture, synthetic_parameters
from secformer_rt.graph.batch import Batch, random_batches
from secformer_rt.graph.calibration import calibrate
from secformer_rt.graph.executor import execute
from secformer_rt.parties.manifest import Manifest
from secformer_rt.parties.settings import load_settings

VOCABULARY: Final = 500  # a small one, so that one-hot rows are short
TEXTS: Final = 3
TOLERANCE: Final = 5e-2  # of an answer that is right


def architecture() -> Architecture:
    """BERT_TINY with a small vocabulary."""
    return synthetic_architecture("bert-tiny").model_copy(update={"vocabulary": VOCABULARY})


def batch(tokens: int) -> Batch:
    """The one request: always the same, so that two answers can be compared."""
    ids = torch.randint(1, VOCABULARY, (TEXTS, tokens), generator=torch.Generator().manual_seed(5))
    return Batch(ids, torch.zeros_like(ids), torch.full((TEXTS,), tokens))


def manifest(preset: str) -> Manifest:
    """The public description of the model that is asked."""
    chosen, small = chosen_preset(preset), architecture()
    samples = random_batches(VOCABULARY, 1, (4, 12, 64))
    calibration = calibrate(small, synthetic_parameters(small), samples, chosen)
    return Manifest(
        model="trial", architecture=small, preset=chosen, calibration=calibration, embedding="private"
    )


class Asker:
    """A model owner and a data owner."""

    def __init__(self, servers: Servers, preset: str, tokens: int) -> None:
        self._servers, self._batch = servers, batch(tokens)
        self._manifest, self._parameters = manifest(preset), synthetic_parameters(architecture())

    def provision(self) -> dict[str, Any]:
        """Share the model; says its id."""
        return {"model_id": provision(self._servers, self._manifest, self._parameters).model_id}

    def prepare(self, model_id: str) -> dict[str, Any]:
        """Have one inference prepared; says which run has dealt it."""
        batch = self._batch
        found = prepare(self._servers, model_id, self._manifest, batch.size, batch.tokens, batch.padded)
        return {"prepared": found.run_ids[0]}

    def infer(self, model_id: str) -> dict[str, Any]:
        """Ask once; says how far the answer is from that in plaintext, and whether it was prepared."""
        answer = DataOwner(self._servers, model_id, self._manifest).infer(self._batch)
        graph = answer.lowering.graph
        wires = execute(
            graph, self._parameters, answer.inputs, self._manifest.preset, self._manifest.calibration
        )
        plain = wires[graph.outputs[0]].to(torch.float64)
        difference = float((answer.output - plain).abs().max())
        return {"difference": difference, "prepared": all(report.prepared for report in answer.reports)}


def answered(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What came of a command, and how long it took."""
    began = time.perf_counter()
    try:
        found = work()
    except SecformerError as error:
        found = {"error": error.code, "sentence": str(error)}
    except Exception as error:
        # What is not one of our own errors is a finding: it would have been a traceback.
        found = {"error": "unexpected", "sentence": type(error).__name__}
    return {**found, "seconds": time.perf_counter() - began}


def main() -> None:
    """Serve until standard input ends."""
    config, preset, tokens = sys.argv[1:]
    with Servers(load_settings(Path(config))) as servers:
        asker = Asker(servers, preset, int(tokens))
        works: dict[str, Callable[..., dict[str, Any]]] = {
            "provision": asker.provision,
            "prepare": asker.prepare,
            "infer": asker.infer,
        }
        sys.stdout.write("{}\n")
        sys.stdout.flush()
        for line in sys.stdin:
            command, *arguments = line.split()
            found = answered(partial(works[command], *arguments))
            sys.stdout.write(json.dumps(found) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
