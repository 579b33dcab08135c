"""Correlated randomness: what the dealer makes and what of it has to travel.

A correlation is a list of fields. Of a *random* field each server expands its share from a seed
that it has in common with the dealer: nothing travels. A *derived* field is a function of random
ones, known to the dealer: one server expands its share from its seed, the other is sent the
difference. A *local* field is a linear function of fields dealt before and of the correlation's
others, which each server computes on its own shares.

The dealer walks the correlations of the plan in order; it needs neither weights nor inputs nor
openings. Nothing in this module sees a secret of the data owner or of the model owner.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import prod
from typing import NamedTuple
from zlib import crc32

import torch
from torch import Tensor

from secformer_rt.ring.buffers import as_bytes
from secformer_rt.ring.jit import Place, empty
from secformer_rt.ring.packing import packed_size

Shape = tuple[int, ...]


class Ref(NamedTuple):
    """A dealt tensor: field ``position`` of correlation ``deal``, or the mask of a parameter."""

    deal: int | str
    position: int


class Source(Enum):
    """Where the shares of a field come from."""

    RANDOM = "random"
    DERIVED = "derived"
    LOCAL = "local"


class Sharing(Enum):
    """How a field is shared."""

    ADDITIVE = "additive"  # int64, modulo 2^bits
    PLANES = "planes"  # uint8, XOR; the shape counts bytes
    TABLES = "tables"  # int16 words of 16 truth-table entries, XOR
    BYTES = "bytes"  # uint8, additive modulo 256
    HALVES = "halves"  # int32, additive modulo 2^32

    @property
    def dtype(self) -> torch.dtype:
        """What a share is held in."""
        return _DTYPES[self]


_DTYPES = {
    Sharing.ADDITIVE: torch.int64,
    Sharing.PLANES: torch.uint8,
    Sharing.TABLES: torch.int16,
    Sharing.BYTES: torch.uint8,
    Sharing.HALVES: torch.int32,
}


@dataclass(frozen=True, slots=True)
class Field:
    """One tensor of a correlation. What is not ``kept`` goes into local fields and is not handed out."""

    shape: Shape
    source: Source
    bits: int = 64
    sharing: Sharing = Sharing.ADDITIVE
    kept: bool = True

    @property
    def size(self) -> int:
        """Bytes of one share of the field, as it travels."""
        if self.sharing is Sharing.ADDITIVE:
            return packed_size(prod(self.shape), self.bits)
        return self.sharing.dtype.itemsize * prod(self.shape)


@dataclass(frozen=True, slots=True)
class Correlation:
    """Base of all correlations. Frozen and printable: the plan's digest hashes its repr."""

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields, in the order in which servers receive their shares."""
        raise NotImplementedError

    @property
    def refs(self) -> tuple[Ref, ...]:
        """The dealt tensors that this correlation is derived from."""
        return ()

    def derive(self, random: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
        """The derived fields, by the dealer.

        Args:
            random: this correlation's random fields.
            inputs: the tensors that ``refs`` name.
        """
        return []

    def combine(self, others: list[Tensor], inputs: list[Tensor], place: Place = empty) -> list[Tensor]:
        """The local fields: by a server of its shares, by the dealer of what it knows in the clear.

        Args:
            others: this correlation's random and derived fields.
            inputs: the tensors that ``refs`` name.
            place: gives memory for the fields.
        """
        return []


@dataclass(frozen=True, slots=True)
class PublicConstants(Correlation):
    """Nothing is dealt: this puts a checksum of public numbers into the plan.

    Both servers multiply shares with the same public numbers; if floating point on two machines rounded
    one of them differently, the product would be noise. So they must agree before anything runs.
    """

    checksum: int

    @property
    def fields(self) -> tuple[Field, ...]:
        """None."""
        return ()


def constants(*tensors: Tensor) -> PublicConstants:
    """The checksum of int64 tensors."""
    checksum = 0
    for tensor in tensors:
        checksum = crc32(as_bytes(tensor), checksum)
    return PublicConstants(checksum)
