"""How a client's tensors reach the servers: one expands its shares from a seed, the other is sent its own."""

from __future__ import annotations

import torch
from torch import Tensor

from secformer_rt.graph.ir import Shape
from secformer_rt.ring.buffers import as_bytes
from secformer_rt.ring.prg import Prg, SecretSeed
from secformer_rt.transport import wire_pb2
from secformer_rt.transport.link import Link


def _expanded(seed: SecretSeed, name: str, shape: Shape) -> Tensor:
    return Prg(seed, f"client/{name}").words(shape)


class SharesOut:
    """The client's end: sends shares of words (int64) to both servers."""

    def __init__(self, servers: tuple[Link, Link]) -> None:
        self._servers = servers
        self._seed = SecretSeed.fresh()
        servers[0].send_control(wire_pb2.Seed(seed=self._seed.reveal()))

    def send(self, number: int, name: str, words: Tensor) -> None:
        """Share one tensor. Its name keeps its keystream apart; ``number`` is the message's tag."""
        share = words - _expanded(self._seed, name, tuple(words.shape))
        self._servers[1].send(number, as_bytes(share))


class SharesIn:
    """A server's end."""

    def __init__(self, client: Link, server: int) -> None:
        self._client = client
        self._seed = None
        if server == 0:
            self._seed = SecretSeed(client.receive_control(wire_pb2.Seed).seed)

    def receive(self, number: int, name: str, shape: Shape) -> Tensor:
        """This server's share of the next tensor."""
        if self._seed is not None:
            return _expanded(self._seed, name, shape)
        return receive_words(self._client, number, shape)


def receive_words(link: Link, tag: int, shape: Shape) -> Tensor:
    """A tensor of ring words (int64) that the peer sends as one message."""
    words = torch.empty(shape, dtype=torch.int64)
    link.receive_into(tag, as_bytes(words))
    return words


def send_words(link: Link, tag: int, words: Tensor) -> None:
    """Send ring words (int64) as one message."""
    link.send(tag, as_bytes(words))
