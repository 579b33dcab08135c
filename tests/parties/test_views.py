"""What each party gets to see: nothing that says anything about the input or the weights."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import prod
from typing import Any

import numpy as np
import pytest
import torch

from secformer_rt.clients.cluster import loopback_settings
from secformer_rt.clients.connection import Servers
from secformer_rt.clients.data_owner import Answer
from secformer_rt.parties.dealer import Dealer
from secformer_rt.parties.rendezvous import Rendezvous
from secformer_rt.parties.server import ComputeServer
from secformer_rt.parties.session import Neighbours
from secformer_rt.protocols.core import Open
from secformer_rt.protocols.correlations import Sharing
from secformer_rt.ring.buffers import as_stream
from secformer_rt.ring.fixed_point import decode
from secformer_rt.ring.packing import Stream, unpack_words
from secformer_rt.scheduler import online
from secformer_rt.scheduler.provisioning import encode_input, encode_parameter
from secformer_rt.transport.channel import open_channel
from secformer_rt.transport.link import Link
from secformer_rt.transport.server import serve
from tests.clients.deployment import padded_batch, small_model

CHI_SQUARE_LIMIT = 470.0  # for 255 degrees of freedom: exceeded by chance less than once in 10^13 times


class Views:
    """Everything that was received, by (receiver, sender)."""

    def __init__(self) -> None:
        self.data: dict[tuple[str, str], list[bytes]] = defaultdict(list)
        self.control: dict[tuple[str, str], list[bytes]] = defaultdict(list)
        self.openings: dict[str, list[tuple[Open, torch.Tensor]]] = defaultdict(list)

    @contextmanager
    def recording(self) -> Iterator[Views]:
        receive, receive_into = Link.receive, Link.receive_into
        receive_control, combine = Link.receive_control, online._combine
        views = self

        def seen_data(link: Link, tag: int, nbytes: int) -> memoryview:
            data = receive(link, tag, nbytes)
            views.data[link._role, link.peer].append(bytes(data))
            return data

        def seen_data_placed(link: Link, tag: int, target: memoryview) -> None:
            receive_into(link, tag, target)
            views.data[link._role, link.peer].append(bytes(target))

        def seen_control(link: Link, expected: Any, *within: float) -> Any:
            message = receive_control(link, expected, *within)
            views.control[link._role, link.peer].append(message.SerializeToString())
            return message

        def seen_opening(opening: Open, sent: Stream, received: Stream) -> torch.Tensor:
            server = threading.current_thread().name.split("-")[0]
            views.openings[server].append((opening, received.copy()))
            return combine(opening, sent, received)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(online, "_combine", seen_opening)
            patch.setattr(Link, "receive", seen_data)
            patch.setattr(Link, "receive_into", seen_data_placed)
            patch.setattr(Link, "receive_control", seen_control)
            yield self

    def messages_to(self, role: str) -> list[bytes]:
        found = [*self.data.items(), *self.control.items()]
        return [message for (receiver, _), messages in found if receiver == role for message in messages]


@pytest.fixture(scope="module")
def local_servers() -> Iterator[Servers]:
    """The three parties behind real gRPC servers, all in this process."""
    settings = loopback_settings(insecure=True)
    with ExitStack() as stack:
        handlers = {"dealer": Dealer(settings).handlers()}
        for index, role in enumerate(("server0", "server1")):
            dealer = stack.enter_context(open_channel(settings.dealer.address))
            peer = stack.enter_context(open_channel(settings.server0.address)) if index else None
            around = Neighbours(index, settings, dealer, peer, Rendezvous())
            handlers[role] = ComputeServer(around).handlers()
        for role, served in handlers.items():
            server = serve(settings.endpoint(role).bind, served, role=role, timeout_s=30.0)  # type: ignore[arg-type]
            server.set_ready(True)
            stack.callback(server.stop, 0.5)
        yield stack.enter_context(Servers(settings))


@pytest.fixture(scope="module")
def seen(local_servers: Servers) -> tuple[Views, Views, Views, list[Answer], list[np.ndarray]]:
    """Views of provisioning and of two inferences of one input, the answers, and the encoded secrets."""
    model = small_model(vocabulary=120)
    generator = torch.Generator().manual_seed(3)
    for (
        name,
        value,
    ) in model.parameters.items():  # gains of 1 and offsets of 0 would be hard to spot
        model.parameters[name] = value + 0.01 * torch.randn(value.shape, generator=generator)
    views, answers = (Views(), Views(), Views()), []
    with views[0].recording():
        model_id = model.provision(local_servers).model_id
    for view in views[1:]:
        with view.recording():
            answers.append(model.owner(local_servers, model_id).infer(padded_batch((17, 11, 16), 120)))
    graph, bits = answers[0].lowering.graph, model.manifest.preset.fixed_point
    lowering = model.manifest.provisioning()
    secrets = [encode_parameter(lowering, p, model.parameters) for p in graph.parameters]
    secrets += [
        encode_input(wire, answers[0].inputs[wire.name], bits) for wire in graph.inputs if wire.integer
    ]
    return (*views, answers, [words.contiguous().numpy() for words in secrets])


def test_the_dealer_is_sent_no_data(seen: Any) -> None:
    for view in seen[:3]:
        assert not [key for key in view.data if key[0] == "dealer"]
        assert {key[1] for key in view.control if key[0] == "dealer"} == {"server0", "server1"}


def test_no_server_is_sent_anything_in_the_clear(seen: Any) -> None:
    *views, _, secrets = seen
    by_size: dict[int, list[np.ndarray]] = defaultdict(list)
    for words in secrets:
        by_size[words.nbytes].append(words.reshape(-1))
    for view in views:
        for role in ("server0", "server1", "dealer"):
            for message in view.messages_to(role):
                for words in secrets:
                    some = words.reshape(-1)[:16].tobytes()  # of a one-hot row too: a message of zeros
                    assert some not in message
                if len(message) % 8 == 0:
                    sent = np.frombuffer(message, dtype=np.int64)
                    for words in by_size[len(message)]:
                        assert (sent == words).sum() <= 2


def without_padding(data: Stream, count: int, bits: int) -> np.ndarray:
    """Words as they travel, in whole bytes each, as one stream of bits: the padding is zero for everybody."""
    words = unpack_words(data, (count,), bits).numpy()
    unpacked = np.unpackbits(words.view(np.uint8).reshape(count, 8), axis=1, bitorder="little")
    return np.packbits(unpacked[:, :bits])


def check_uniform(parts: list[np.ndarray]) -> None:
    data = np.concatenate(parts)
    assert len(data) > 50_000
    counts = np.bincount(data, minlength=256)
    assert ((counts - len(data) / 256) ** 2).sum() / (len(data) / 256) < CHI_SQUARE_LIMIT


def test_shares_and_masked_weights_are_uniform(seen: Any) -> None:
    for view in seen[:3]:
        client = "model-owner" if view is seen[0] else "data-owner"
        check_uniform([np.frombuffer(b"".join(view.data["server1", client]), dtype=np.uint8)])
    for view in seen[1:3]:  # a masked input is the same for both
        assert view.data["server0", "data-owner"] == view.data["server1", "data-owner"][:1]
    for server, peer in (("server0", "server1"), ("server1", "server0")):
        check_uniform([np.frombuffer(b"".join(seen[0].data[server, peer]), dtype=np.uint8)])


def test_what_is_dealt_is_uniform(seen: Any) -> None:
    plan = seen[3][0].plan
    for view in seen[1:3]:
        for index, server in enumerate(("server0", "server1")):
            data = as_stream(memoryview(b"".join(view.data[server, "dealer"])))
            parts, offset = [], 0
            for _, _, item in plan.corrections(index):
                part = data[offset : offset + item.size]
                offset += item.size
                additive = item.sharing is Sharing.ADDITIVE
                parts.append(without_padding(part, prod(item.shape), item.bits) if additive else part)
            assert offset == len(data)
            check_uniform(parts)


def test_openings_are_uniform(seen: Any) -> None:
    for view in seen[1:3]:
        for server in ("server0", "server1"):
            parts = [
                received if opening.xor else without_padding(received, opening.share.numel(), opening.bits)
                for opening, received in view.openings[server]
            ]
            check_uniform(parts)


def test_nothing_is_seen_twice(seen: Any) -> None:
    _, first, second, answers, _ = seen
    for key, messages in first.data.items():
        again = second.data[key]
        assert [len(m) for m in messages] == [len(m) for m in again]
        for before, after in zip(messages, again, strict=True):
            assert len(before) < 16 or before != after
    assert (answers[0].output - answers[1].output).abs().max() < 1e-2


def test_half_an_output_says_nothing(seen: Any) -> None:
    _, first, _, answers, _ = seen
    output = answers[0].output
    frac = answers[0].plan.output_fracs[answers[0].lowering.graph.outputs[0]]
    halves = []
    for server in ("server0", "server1"):
        (message,) = first.data["data-owner", server]
        halves.append(torch.frombuffer(bytearray(message), dtype=torch.int64).reshape(output.shape))
        decoded = decode(halves[-1], frac)
        # A uniform word is nowhere near any number that a model says.
        assert (decoded.abs() > 1e6).double().mean() > 0.9
    assert torch.equal(decode(halves[0] + halves[1], frac), output)
