"""Token ids of several texts, padded to one length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """int64 ``token_ids`` and ``type_ids`` (B, T), padded on the right, and ``lengths`` (B,)."""

    token_ids: Tensor
    type_ids: Tensor
    lengths: Tensor
    pad_id: int = 0

    @property
    def size(self) -> int:
        """B."""
        return self.token_ids.shape[0]

    @property
    def tokens(self) -> int:
        """T."""
        return self.token_ids.shape[1]

    @property
    def padded(self) -> bool:
        """Whether any text is shorter than T, so that a masked graph is needed."""
        return bool((self.lengths < self.tokens).any())

    def select(self, rows: Sequence[int]) -> Batch:
        """Some of the texts, padded to the longest of them."""
        lengths = self.lengths[list(rows)]
        tokens = int(lengths.max())
        return Batch(
            self.token_ids[list(rows), :tokens], self.type_ids[list(rows), :tokens], lengths, self.pad_id
        )

    def pad_to(self, tokens: int) -> Batch:
        """The same texts padded to T = ``tokens``, for instance to hide their exact length.

        Raises:
            ValueError: the batch is longer than that.
        """
        more = tokens - self.tokens
        if more < 0:
            raise ValueError(f"a batch of {self.tokens} tokens cannot be padded to {tokens}")
        ids = functional.pad(self.token_ids, (0, more), value=self.pad_id)
        return Batch(ids, functional.pad(self.type_ids, (0, more)), self.lengths, self.pad_id)


def random_batches(
    vocabulary: int, seed: int = 0, tokens: tuple[int, ...] = (8, 32, 128), size: int = 2
) -> list[Batch]:
    """Uniformly random token ids, to calibrate a synthetic model: one unpadded batch per length.

    Not for secrets: the generator is torch's.
    """
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for length in tokens:
        ids = torch.randint(vocabulary, (size, length), generator=generator)
        batches.append(Batch(ids, torch.zeros_like(ids), torch.full((size,), length)))
    return batches
