"""Texts to distil with: local files, cut into windows, in batches whose order is a function of the seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from secformer_rt.distillation.tasks import Example
from secformer_rt.errors import BadInputError
from secformer_rt.graph.batch import Batch
from secformer_rt.graph.tokenizer import Tokenizer

_POOL = 64  # batches whose texts are sorted by length together, so that little is padded
_ENDLESS = 1 << 30


@dataclass(frozen=True, slots=True)
class Passage:
    """Token ids and token types of one text, or of one pair."""

    ids: tuple[int, ...]
    types: tuple[int, ...]


def read_lines(path: Path) -> list[Example]:
    """A text a line; blank lines are left out.

    Raises:
        BadInputError: the file cannot be read, or is blank.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path} cannot be read as text: give a UTF-8 file, one text a line.") from error
    found = [Example(line.strip(), None, None) for line in lines if line.strip()]
    if not found:
        raise BadInputError(f"{path} holds no text: give at least one line.")
    return found


def encode(tokenizer: Tokenizer, examples: Sequence[Example], tokens: int) -> list[Passage]:
    """Token ids for training: a long text becomes windows that overlap by half, a long pair is cut.

    Texts without a word are left out.
    """
    passages = []
    endless = tokenizer.reading(_ENDLESS)
    for example in examples:
        try:
            whole = _whole(endless, example)
        except BadInputError:
            continue
        if len(whole.ids) <= tokens or example.second is not None:
            passages.append(_shortened(whole, tokens))
            continue
        inside, room = whole.ids[1:-1], tokens - 2
        for start in range(0, len(inside) - room // 2, max(1, room // 2)):
            window = (whole.ids[0], *inside[start : start + room], whole.ids[-1])
            passages.append(Passage(window, (0,) * len(window)))
    return passages


def cut(tokenizer: Tokenizer, example: Example, tokens: int) -> Passage:
    """An example's first ``tokens`` tokens, the last of which is the end's.

    Raises:
        BadInputError: there is no word in it.
    """
    return _shortened(_whole(tokenizer.reading(_ENDLESS), example), tokens)


def _whole(endless: Tokenizer, example: Example) -> Passage:
    batch = endless.encode([example.first], None if example.second is None else [example.second])
    return Passage(tuple(batch.token_ids[0].tolist()), tuple(batch.type_ids[0].tolist()))


def _shortened(passage: Passage, tokens: int) -> Passage:
    ids, types = passage.ids, passage.types
    if len(ids) <= tokens:
        return passage
    return Passage((*ids[: tokens - 1], ids[-1]), (*types[: tokens - 1], types[-1]))


def collate(passages: Sequence[Passage], pad_id: int) -> Batch:
    """A batch padded to its longest text."""
    longest = max(len(passage.ids) for passage in passages)
    ids = torch.full((len(passages), longest), pad_id, dtype=torch.int64)
    types = torch.zeros_like(ids)
    for row, passage in enumerate(passages):
        ids[row, : len(passage.ids)] = torch.tensor(passage.ids)
        types[row, : len(passage.ids)] = torch.tensor(passage.types)
    return Batch(ids, types, torch.tensor([len(passage.ids) for passage in passages]), pad_id)


@dataclass(frozen=True, slots=True, eq=False)
class Batches:
    """An endless sequence of batches of about ``size`` tokens, padding counted."""

    passages: Sequence[Passage]
    size: int
    pad_id: int
    seed: int

    def starting_at(self, step: int) -> Iterator[Batch]:
        """Batch ``step`` and all after it: the same ones, wherever one starts."""
        epoch, skipped = 0, 0
        while True:
            order = self._epoch(epoch)
            for chosen in order[max(0, step - skipped) :]:
                yield collate([self.passages[index] for index in chosen], self.pad_id)
            skipped, epoch = skipped + len(order), epoch + 1

    def _epoch(self, epoch: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        order = _permuted(torch.arange(len(self.passages)), generator)
        batches: list[list[int]] = []
        mean = sum(len(passage.ids) for passage in self.passages) / len(self.passages)
        pool = max(1, int(_POOL * self.size / mean))
        for start in range(0, len(order), pool):
            ids = sorted(
                order[start : start + pool].tolist(), key=lambda index: len(self.passages[index].ids)
            )
            batches += self._packed(ids)
        mixed = _permuted(torch.arange(len(batches)), generator).tolist()
        return [batches[index] for index in mixed]

    def _packed(self, ids: list[int]) -> list[list[int]]:
        packed: list[list[int]] = [[]]
        for index in ids:  # sorted, so each is the longest yet
            if packed[-1] and (len(packed[-1]) + 1) * len(self.passages[index].ids) > self.size:
                packed.append([])
            packed[-1].append(index)
        return packed


def _permuted(values: Tensor, generator: torch.Generator) -> Tensor:
    return values[torch.randperm(len(values), generator=generator)]
