"""What the graphs of encoders and decoders have in common: attention, sizes, and checks of token ids."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from torch import Tensor

from secformer_rt.errors import BadConfigError, BadInputError
from secformer_rt.graph.architecture import Architecture
from secformer_rt.graph.decoder import Decoder
from secformer_rt.graph.ir import (
    Attend,
    Graph,
    Input,
    Linear,
    MergeHeads,
    Node,
    Op,
    Parameter,
    Scores,
    Shape,
    SplitHeads,
)

A = TypeVar("A", Architecture, Decoder)


class Builder(Generic[A]):
    """Collects inputs and nodes, layer by layer; ``rows`` is the shape of a hidden state."""

    def __init__(self, arch: A, batch: int, tokens: int, masked: bool) -> None:
        """For ``batch`` texts of ``tokens`` tokens, of which some may be padding if ``masked``.

        Raises:
            BadConfigError: the sizes are not positive, or the model has too few positions.
        """
        if batch < 1 or tokens < 1:
            raise BadConfigError(f"Batch {batch} and tokens {tokens} must both be at least 1.")
        if tokens > arch.positions:
            raise BadConfigError(
                f"{tokens} tokens are more than the model's {arch.positions} positions: ask for fewer."
            )
        self.arch: A = arch
        self.batch, self.tokens, self.masked = batch, tokens, masked
        self.rows: Shape = (batch, tokens, arch.hidden)
        self.inputs: list[Input] = []
        self.nodes: list[Node] = []
        self.layer = "embeddings"

    def graph(self, parameters: Iterable[Parameter], output: str) -> Graph:
        """All of it, with those of the parameters that are used."""
        used = {name for node in self.nodes for name in node.parameters}
        kept = tuple(parameter for parameter in parameters if parameter.name in used)
        return Graph(tuple(self.inputs), kept, tuple(self.nodes), (output,))

    def add(
        self, name: str, op: Op, inputs: tuple[str, ...], shape: Shape, parameters: tuple[str, ...] = ()
    ) -> str:
        """A node; returns its wire."""
        self.nodes.append(Node(name, self.layer, op, inputs, parameters, shape))
        return name

    def linear(self, name: str, wire: str, shape: Shape) -> str:
        """A matrix with its bias."""
        return self.add(name, Linear(), (wire,), shape, (f"{name}.weight", f"{name}.bias"))

    def attend(self, wire: str, op: Attend, *mask: str) -> str:
        """Attention over all heads, with its matrices, the one after it included."""
        name, heads = f"{self.layer}.attention", self.arch.heads
        split: Shape = (self.batch, heads, self.tokens, self.arch.head_size)
        query, key, value = (
            self.add(
                f"{name}.{part}.heads",
                SplitHeads(heads),
                (self.linear(f"{name}.{part}", wire, self.rows),),
                split,
            )
            for part in ("query", "key", "value")
        )
        square: Shape = (self.batch, heads, self.tokens, self.tokens)
        scores = self.add(f"{name}.scores", Scores(), (query, key), square)
        context = self.add(f"{name}.context", op, (scores, value, *mask), split)
        merged = self.add(f"{name}.merged", MergeHeads(), (context,), self.rows)
        return self.linear(f"{name}.output", merged, self.rows)


def check_lengths(tokens: int, lengths: Tensor, positions: int, masked: bool) -> None:
    """Refuse texts of ``lengths``, padded to ``tokens``, that a graph does not serve.

    Raises:
        BadInputError: there are more tokens than positions.
        ValueError: a length is beyond the padding, or there is padding without a mask.
    """
    if tokens > positions:
        raise BadInputError(
            f"{tokens} tokens are more than the model's {positions} positions: shorten the text."
        )
    if bool(((lengths < 1) | (lengths > tokens)).any()):
        raise ValueError(f"lengths must be within 1 and {tokens}")
    if not masked and bool((lengths < tokens).any()):
        raise ValueError("padded texts need a masked graph")


def check_ids(ids: Tensor, limit: int, what: str = "Token") -> None:
    """Refuse ids that are not below a limit.

    Raises:
        BadInputError: one is not.
    """
    if bool(((ids < 0) | (ids >= limit)).any()):
        worst = int(ids.max()) if int(ids.max()) >= limit else int(ids.min())
        raise BadInputError(
            f"{what} {worst} is not among the model's {limit}: use the tokenizer of this checkpoint."
        )
