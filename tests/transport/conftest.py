from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from secformer_rt.transport.channel import open_channel
from secformer_rt.transport.link import Link
from secformer_rt.transport.raw import RawStream
from secformer_rt.transport.server import serve
from tests.transport.harness import PAIRS, RIGGED

MakePair = Callable[..., AbstractContextManager[tuple[Link, Link]]]


@pytest.fixture(params=sorted(PAIRS))
def make_pair(request: pytest.FixtureRequest) -> MakePair:
    return PAIRS[request.param]


@pytest.fixture
def pair(make_pair: MakePair) -> Iterator[tuple[Link, Link]]:
    with make_pair() as links:
        yield links


@pytest.fixture(params=sorted(RIGGED))
def rigged(request: pytest.FixtureRequest) -> Iterator[tuple[Link, RawStream]]:
    """A link, and a peer that may send it anything."""
    with RIGGED[request.param]() as ends:
        yield ends


@pytest.fixture
def running():
    """Start servers and channels that end with the test."""
    servers, channels = [], []

    def start(handlers, **settings):
        server = serve("127.0.0.1:0", handlers, role="server0", **settings)
        servers.append(server)
        channel = open_channel(f"127.0.0.1:{server.port}")
        channels.append(channel)
        return server, channel

    yield start
    for channel in channels:
        channel.close()
    for server in servers:
        server.stop(0.5)
