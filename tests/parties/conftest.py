"""What tests of parties share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from secformer_rt.clients.connection import Servers
from secformer_rt.parties import idle
from secformer_rt.parties.stock import Stock
from tests.clients.deployment import Small, small_model
from tests.parties.stocked import Parties


@pytest.fixture(scope="module")
def everybody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    with ExitStack() as stack:
        yield Parties(tmp_path_factory.mktemp("parties") / "store", stack)


@pytest.fixture(scope="module")
def model() -> Small:
    return small_model()


@pytest.fixture(scope="module")
def model_id(servers: Servers, model: Small) -> str:
    """Of the model as the module's own parties hold it."""
    return model.provision(servers).model_id


@pytest.fixture
def parties(everybody: Parties, monkeypatch: pytest.MonkeyPatch) -> Parties:
    """With nothing prepared; servers that are idle do nothing."""
    monkeypatch.setattr(idle, "PAUSE_S", 3600.0)
    everybody.empty()
    return everybody


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[], Stock]]:
    """Opens the same directory again, as a party does that starts again."""
    held: list[Stock] = []

    def again() -> Stock:
        for stock in held:
            stock.close()
        held[:] = [Stock(tmp_path, "server0")]
        return held[0]

    yield again
    for stock in held:
        stock.close()
