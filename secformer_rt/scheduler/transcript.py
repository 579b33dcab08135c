"""What both servers have opened so far, as one number that each holds against the other's."""

from __future__ import annotations

from typing import Any, Final

from numpy.typing import NDArray
from xxhash import xxh3_64

NUMBER_BITS: Final = 32
"""The lower half of a message's tag is its number, the upper half what was opened before it."""


class Transcript:
    """A running checksum of opened values; a server sends it along in the tag of its next message.

    It costs no message and, at some 10 GB/s, next to no time. It notices that two servers who follow the same
    plan no longer see the same values: a fault, not a lie, since whoever lies can compute it too. A value is
    opened by the two messages that say its shares, which are what is noted: by both, whoever sent them.
    """

    def __init__(self) -> None:
        self._of_server = (xxh3_64(seed=0), xxh3_64(seed=1))

    def add(self, server: int, shares: NDArray[Any]) -> None:
        """Note what a server has sent; both servers note the same of each, in the same order."""
        self._of_server[server].update(shares.data)

    def tag(self, number: int) -> int:
        """The tag of the next message."""
        checksum = self._of_server[0].intdigest() ^ self._of_server[1].intdigest()
        return number | (checksum & 0xFFFFFFFF) << NUMBER_BITS
