"""Asking a model that is provisioned already: which one, and what its answers mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional

from secformer_rt.clients.connection import Servers
from secformer_rt.clients.data_owner import DataOwner, describe
from secformer_rt.clients.main_job import as_used
from secformer_rt.clients.progress import OnProgress, ignore_progress
from secformer_rt.errors import BadInputError, MismatchError
from secformer_rt.graph.checkpoint import default_checkpoint, load_checkpoint
from secformer_rt.graph.models import predicts_tokens
from secformer_rt.graph.tokenizer import Tokenizer
from secformer_rt.parties.manifest import Manifest

SHOWN = 6  # numbers of an embedding, for people
TOKENS = 5  # that may follow a text


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """Answers to texts, one row each."""

    model_id: str
    manifest: Manifest
    texts: tuple[str, ...]
    outputs: Tensor  # (texts, outputs), as the data owner uses them
    seconds: float
    prepared: tuple[bool, ...]  # of each text: whether its offline phase had been done ahead
    spell: Callable[[int], str] = str  # a token

    def likeliest(self) -> list[list[dict[str, Any]]]:
        """For each text the tokens that most likely follow it, of a model that predicts them."""
        best = self.outputs.softmax(dim=-1).topk(min(TOKENS, self.outputs.shape[-1]))
        return [
            [
                {"token": self.spell(token), "probability": probability}
                for token, probability in zip(tokens, row, strict=True)
            ]
            for tokens, row in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def cosines(self) -> Tensor:
        """(texts, texts): how similar each is to each."""
        return functional.cosine_similarity(self.outputs[:, None], self.outputs[None], dim=-1)

    def probabilities(self) -> Tensor:
        """(texts, labels), of a classifier."""
        return self.outputs.softmax(dim=-1)


def choose_model(models: Mapping[str, Manifest], model_id: str | None) -> tuple[str, Manifest]:
    """The model asked for, or else the only one there is.

    Raises:
        MismatchError: there is no such model.
        BadInputError: there are several, and none was named.
    """
    if not models:
        raise MismatchError("The servers hold no model: provision one first.")
    if model_id is None:
        if len(models) > 1:
            held = ", ".join(f"{key} ({manifest.model})" for key, manifest in models.items())
            raise BadInputError(f"The servers hold several models: give --model-id, one of {held}.")
        (model_id,) = models
    if model_id not in models:
        raise MismatchError(f"The servers hold no model {model_id}: they hold {', '.join(models)}.")
    return model_id, models[model_id]


def ask(
    servers: Servers,
    texts: Sequence[str],
    model_id: str | None = None,
    checkpoint: Path | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Asked:
    """Ask a provisioned model, each text in a request of its own.

    Args:
        servers: connected and ready.
        texts: at least one.
        model_id: which model; needed where there are several.
        checkpoint: whose tokenizer and published tables to use; by default the bundled one's.
        on_progress: told how far it is.

    Raises:
        SecformerError: with one sentence.
    """
    model_id, manifest = choose_model(describe(servers), model_id)
    directory = checkpoint or default_checkpoint()
    tokenizer = Tokenizer.load(directory, manifest.transformer().positions)
    batches = [tokenizer.encode([text]) for text in texts]
    tables = load_checkpoint(directory).parameters if manifest.embedding == "public-tables" else None
    owner = DataOwner(servers, model_id, manifest, tables)
    answers = [owner.infer(batch, on_progress) for batch in batches]
    outputs = torch.cat([as_used(manifest, answer.output) for answer in answers])
    prepared = tuple(answer.prepared for answer in answers)
    seconds = sum(answer.seconds for answer in answers)
    return Asked(model_id, manifest, tuple(texts), outputs, seconds, prepared, tokenizer.spell)


def asked_summary(asked: Asked) -> dict[str, Any]:
    """What ``infer --json`` prints."""
    labels = asked.manifest.labels
    found: dict[str, Any] = {"model_id": asked.model_id, "model": asked.manifest.model, "texts": asked.texts}
    if labels:
        rows = asked.probabilities().tolist()
        found["probabilities"] = [dict(zip(labels, row, strict=True)) for row in rows]
    elif predicts_tokens(asked.manifest.architecture):
        found["next"] = asked.likeliest()
    else:
        found["embeddings"] = asked.outputs.tolist()
        if len(asked.texts) > 1:
            found["cosine"] = asked.cosines().tolist()
    return {**found, "seconds": asked.seconds, "prepared": asked.prepared}


def print_asked(asked: Asked, console: Console) -> None:
    """The same for people, with embeddings cut short."""
    labels, predicts = asked.manifest.labels, predicts_tokens(asked.manifest.architecture)
    for number, text in enumerate(asked.texts):
        console.print(f"[bold]{number + 1}[/bold]", end=" ")
        console.print(text, markup=False, highlight=False)
        if labels:
            for label, probability in zip(labels, asked.probabilities()[number].tolist(), strict=True):
                console.print(f"  {label}: {probability:.4f}", markup=False)
        elif predicts:
            for token in asked.likeliest()[number]:
                console.print(f"  {token['token']}: {token['probability']:.4f}", markup=False)
        else:
            row = asked.outputs[number]
            shown = " ".join(f"{value:.4f}" for value in row[:SHOWN].tolist())
            console.print(f"  {shown} ... ({row.numel()} in all, see --json)", markup=False)
    if not labels and not predicts:
        cosines = asked.cosines()
        for i in range(len(asked.texts)):
            for j in range(i):
                console.print(f"cosine of {j + 1} and {i + 1}: {cosines[j, i].item():.4f}")
