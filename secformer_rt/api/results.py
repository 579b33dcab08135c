"""What a model answers, and what that cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secformer_rt.clients.data_owner import Answer

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Costs:
    """Of all requests that a call was split into, one after the other.

    Attributes:
        requests: How many there were.
        rounds: Messages each way between the servers.
        links: Payload in bytes by link, both directions together.
        seconds: From the first share sent to the last answer.
    """

    requests: int
    rounds: int
    links: Mapping[str, int]
    seconds: float

    @property
    def bytes(self) -> int:
        """Payload over all links."""
        return sum(self.links.values())

    @classmethod
    def of(cls, answers: Sequence[Answer]) -> Costs:
        """Sum up."""
        links: dict[str, int] = {}
        for answer in answers:
            for link, seen in answer.traffic().items():
                links[link] = links.get(link, 0) + seen.payload
        rounds = sum(answer.reports[0].rounds for answer in answers)
        return cls(len(answers), rounds, links, sum(answer.seconds for answer in answers))


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """One row for each text, in the order of the texts: an embedding, or the logits of labels or tokens."""

    outputs: Floats
    costs: Costs


@dataclass(frozen=True, slots=True, eq=False)
class Classification:
    """A classifier's answers, one row for each text.

    Attributes:
        logits: (texts, labels).
        names: Of the labels.
        costs: Of all of them together.
    """

    logits: Floats
    names: tuple[str, ...]
    costs: Costs

    @property
    def probabilities(self) -> Floats:
        """(texts, labels), for labels that exclude one another: a softmax of the logits."""
        exponentials = np.exp(self.logits - self.logits.max(axis=1, keepdims=True))
        result: Floats = exponentials / exponentials.sum(axis=1, keepdims=True)
        return result

    @property
    def labels(self) -> list[str]:
        """The likeliest label of each text."""
        return [self.names[index] for index in self.logits.argmax(axis=1).tolist()]
