"""How a client's tensors reach the servers: in shares, or under a mask of which each has told it its share.

Of shares one server expands its own from a seed, and the other is sent its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from secformer_rt.graph.ir import Graph, Shape
from secformer_rt.protocols.masking import Mask
from secformer_rt.ring.buffers import as_bytes, as_stream
from secformer_rt.ring.packing import Stream
from secformer_rt.ring.prg import Prg, SecretSeed
from secformer_rt.scheduler.plan import Plan
from secformer_rt.scheduler.provisioning import mask_input
from secformer_rt.scheduler.randomness import stream_key
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

    def send_masked(self, number: int, words: Tensor, mask: Mask) -> None:
        """Mask one tensor, and send it to both."""
        keys = [SecretSeed(server.receive_control(wire_pb2.Seed).seed) for server in self._servers]
        packed = mask_input(words, mask, keys)
        for server in self._servers:
            server.send(number, packed.data)


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

    def receive_masked(self, number: int, mask: Mask) -> Stream:
        """The next tensor, masked and packed."""
        return as_stream(self._client.receive(number, mask.size))


def tell_masks(client: Link, graph: Graph, plan: Plan, seed: SecretSeed) -> None:
    """Tell a client the key of this server's share of each of its masks, in the order of the inputs."""
    masks = plan.input_masks()
    for index, _ in (masks[wire.name] for wire in graph.inputs if wire.name in masks):
        client.send_control(wire_pb2.Seed(seed=stream_key(seed, index, 0).reveal()))


def receive_words(link: Link, tag: int, shape: Shape) -> Tensor:
    """A tensor of ring words (int64) that the peer sends as one message."""
    words = torch.empty(shape, dtype=torch.int64)
    link.receive_into(tag, as_bytes(words))
    return words


def send_words(link: Link, tag: int, words: Tensor) -> None:
    """Send ring words (int64) as one message."""
    link.send(tag, as_bytes(words))
