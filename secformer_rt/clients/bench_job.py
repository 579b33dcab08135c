"""What ``bench inference`` asks: a request of exactly so many tokens, of a checkpoint or a random model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from secformer_rt.clients.main_job import Job, checkpoint_job, synthetic_job
from secformer_rt.errors import BadInputError
from secformer_rt.graph.batch import Batch, random_batches
from secformer_rt.graph.calibration import bundled_texts
from secformer_rt.graph.checkpoint import default_checkpoint
from secformer_rt.graph.tokenizer import Tokenizer

PASSAGES = 4  # of the bundled texts: the long ones
PASSAGE_TOKENS = 4096  # that none of them has

MakeBatch = Callable[[int, int], Batch]
"""The request of so many tokens, in so many texts."""


def bench_job(
    synthetic: str | None, checkpoint: Path | None, tokens: int, batch: int, growth: Sequence[int] = ()
) -> tuple[Job, MakeBatch]:
    """A job of one request, and how to make requests of other sizes.

    Args:
        synthetic: a published BERT's name; otherwise a checkpoint is asked, by default the bundled one.
        checkpoint: its directory.
        tokens: of each text.
        batch: texts of the request.
        growth: tokens of requests that the model is to be calibrated for as well.

    Raises:
        BadInputError: the model has too few positions.
        BadCheckpointError, UnsupportedModelError: see their sentences.
    """
    if synthetic:
        job = synthetic_job(synthetic, tokens, batch)
        make = _random(job.architecture.vocabulary)
    else:
        job = checkpoint_job(checkpoint, ("a",))  # its request is replaced below
        positions = job.architecture.positions
        if tokens > positions:
            raise BadInputError(f"{job.name} has {positions} positions: ask for no more tokens.")
        make = _written(Tokenizer.load(checkpoint or default_checkpoint(), PASSAGE_TOKENS))
    sizes = sorted({tokens, *growth})
    samples = tuple(make(size, 1) for size in sizes if size <= job.architecture.positions)
    calibration = (*job.calibration_batches, *samples)
    return replace(job, batches=(make(tokens, batch),), calibration_batches=calibration, texts=()), make


def _random(vocabulary: int) -> MakeBatch:
    def make(tokens: int, batch: int) -> Batch:
        return random_batches(vocabulary, 1, (tokens,), batch)[0]

    return make


def _written(tokenizer: Tokenizer) -> MakeBatch:
    """Requests from the bundled texts, one after the other, cut where a text has enough tokens."""
    encoded = [tokenizer.encode([text]).token_ids[0] for text in bundled_texts()[:PASSAGES]]
    first, last = encoded[0][:1], encoded[0][-1:]
    inner = torch.cat([ids[1:-1] for ids in encoded])

    def make(tokens: int, batch: int) -> Batch:
        rows = []
        for row in range(batch):
            chosen = (torch.arange(max(0, tokens - 2)) + row * tokens) % len(inner)
            rows.append(torch.cat([first, inner[chosen], last])[:tokens])
        ids = torch.stack(rows)
        return Batch(ids, torch.zeros_like(ids), torch.full((batch,), tokens), tokenizer.pad_id)

    return make
