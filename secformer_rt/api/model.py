"""Asking a model that two servers hold shares of."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from secformer_rt.api.connections import Connections
from secformer_rt.api.results import Answers, Classification, Costs, Floats
from secformer_rt.clients.connection import Servers
from secformer_rt.clients.data_owner import DataOwner
from secformer_rt.clients.main_job import as_used
from secformer_rt.errors import BadConfigError, BadInputError
from secformer_rt.graph.models import predicts_tokens
from secformer_rt.graph.tokenizer import Tokenizer
from secformer_rt.parties.manifest import Manifest

BATCH_SIZE = 8


class Model:
    """A data owner's view: the model's public description and its tokenizer, and no weights.

    Several threads may ask at the same time. ``aask``, ``aembed`` and ``aclassify`` are the same for
    asyncio: requests of several calls run at the same time, and one that is cancelled still ends by itself.
    """

    def __init__(
        self,
        connections: Connections,
        model_id: str,
        manifest: Manifest,
        tokenizer: Tokenizer,
        tables: Mapping[str, Tensor] | None,
    ) -> None:
        """Made by a :class:`Cluster`."""
        self.model_id, self.manifest = model_id, manifest
        self._connections, self._tokenizer, self._tables = connections, tokenizer, tables
        self._lock = threading.Lock()
        self._owner: DataOwner | None = None

    def __repr__(self) -> str:
        preset = self.manifest.preset.name
        return f"<Model {self.manifest.model!r}, preset {preset!r}, id {self.model_id}>"

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of a classifier's labels; empty for a model that embeds."""
        return self.manifest.labels

    def ask(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, batch_size: int = BATCH_SIZE
    ) -> Answers:
        """Whatever this model answers, with its costs.

        Args:
            texts: at least one.
            pairs: as many, each the second text of a pair.
            batch_size: texts of one request at most. Texts of similar length go together, padded to the
                longest; servers see that length and how many they are.

        Raises:
            BadInputError: a text cannot be asked.
            SecformerError: with one sentence.
        """
        if batch_size < 1:
            raise BadConfigError(f"A batch of {batch_size} texts asks nothing: take at least 1.")
        batch = self._tokenizer.encode(texts, pairs)
        groups = by_length(batch.lengths.tolist(), batch_size)
        with self._connections.taking("data-owner") as servers:
            owner = self._asking(servers)
            answers = [owner.infer(batch.select(group)) for group in groups]
        outputs = torch.empty((batch.size, answers[0].output.shape[-1]), dtype=torch.float64)
        for group, answer in zip(groups, answers, strict=True):
            outputs[group] = as_used(self.manifest, answer.output)
        return Answers(outputs.numpy(), Costs.of(answers))

    def _asking(self, servers: Servers) -> DataOwner:
        with self._lock:  # one for all calls, which then share its plans
            if self._owner is None:
                self._owner = DataOwner(servers, self.model_id, self.manifest, self._tables)
            return self._owner

    def embed(self, texts: Sequence[str], *, batch_size: int = BATCH_SIZE) -> Floats:
        """(texts, hidden) embeddings, of length 1 if the checkpoint says so. Otherwise as :meth:`ask`.

        Raises:
            BadInputError: this model classifies or predicts tokens, or a text cannot be asked.
        """
        if self.labels:
            raise BadInputError(f"Model {self.manifest.model!r} is a classifier: use classify instead.")
        if predicts_tokens(self.manifest.architecture):
            raise BadInputError(f"Model {self.manifest.model!r} predicts tokens: use ask instead.")
        return self.ask(texts, batch_size=batch_size).outputs

    def classify(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, batch_size: int = BATCH_SIZE
    ) -> Classification:
        """Logits, probabilities and labels. Otherwise as :meth:`ask`.

        Raises:
            BadInputError: this model does not classify, or a text cannot be asked.
        """
        if not self.labels:
            raise BadInputError(f"Model {self.manifest.model!r} has no labels: use embed instead.")
        answers = self.ask(texts, pairs, batch_size=batch_size)
        return Classification(answers.outputs, self.labels, answers.costs)

    async def aask(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, batch_size: int = BATCH_SIZE
    ) -> Answers:
        """As :meth:`ask`."""
        return await asyncio.to_thread(self.ask, texts, pairs, batch_size=batch_size)

    async def aembed(self, texts: Sequence[str], *, batch_size: int = BATCH_SIZE) -> Floats:
        """As :meth:`embed`."""
        return await asyncio.to_thread(self.embed, texts, batch_size=batch_size)

    async def aclassify(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, batch_size: int = BATCH_SIZE
    ) -> Classification:
        """As :meth:`classify`."""
        return await asyncio.to_thread(self.classify, texts, pairs, batch_size=batch_size)


def by_length(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Indices in groups of at most ``most``, so that little is padded: from short to long."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [order[start : start + most] for start in range(0, len(order), most)]
