"""Whatever a peer says instead of a hello, a manifest or a request: one of our own errors, and no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secformer_rt.clients.cluster import loopback_settings
from secformer_rt.clients.connection import await_report
from secformer_rt.errors import DesyncError, SecformerError
from secformer_rt.parties.access import Access
from secformer_rt.parties.dealer import Dealer
from secformer_rt.parties.manifest import Manifest, Request, compare, make_hello, parse
from secformer_rt.parties.rendezvous import Rendezvous
from secformer_rt.parties.report import PartyReport, Progress
from secformer_rt.parties.server import ComputeServer
from secformer_rt.parties.session import Neighbours
from secformer_rt.transport import wire_pb2
from secformer_rt.transport.control import wrap
from secformer_rt.transport.frames import Kind, encode_frame
from secformer_rt.transport.link import Link
from secformer_rt.transport.memory import memory_streams
from secformer_rt.transport.server import Caller
from tests.clients.deployment import small_model
from tests.transport.harness import push

VALID: dict[type[Any], dict[str, Any]] = {
    Manifest: small_model().manifest.model_dump(mode="json"),
    Request: Request(model_id="0" * 32, batch=1, tokens=4, masked=False).model_dump(mode="json"),
    PartyReport: PartyReport.of("server0", {}).model_dump(mode="json"),
    Progress: Progress(phase="online", done=1, total=2).model_dump(mode="json"),
}
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["", "0" * 32, "exact", "NaN", "1e999", "\x00", "../../etc/passwd", "{{7*7}}"])
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner))
untimed = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=100)


def places(value: object) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    pairs = (
        list(value.items())
        if isinstance(value, dict)
        else list(enumerate(value))
        if isinstance(value, list)
        else []
    )
    return [(value, key) for key, _ in pairs] + [place for _, inner in pairs for place in places(inner)]


@st.composite
def damaged(draw: st.DrawFn, kind: type[Any]) -> bytes:
    """A valid message with a value replaced, or removed, or with bytes of it changed."""
    value = json.loads(json.dumps(VALID[kind]))
    for _ in range(draw(st.integers(1, 3))):
        container, key = draw(st.sampled_from(places(value)))
        if draw(st.booleans()) and isinstance(container, dict):
            container.pop(key, None)
        else:
            try:
                container[key] = draw(values)
            except (IndexError, KeyError):
                continue
    data = bytearray(json.dumps(value).encode())
    if draw(st.booleans()):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


@pytest.mark.parametrize("kind", [Manifest, Request])
def test_json_is_read_or_refused(kind: type[Any]) -> None:
    @untimed
    @given(damaged(kind) | st.binary(max_size=200) | st.builds(lambda v: json.dumps(v).encode(), values))
    def check(data: bytes) -> None:
        try:
            found = parse(kind, data, "data-owner")
        except DesyncError as error:
            assert "\n" not in str(error)
            return
        assert parse(kind, found.model_dump_json().encode(), "data-owner") == found

    check()


@pytest.mark.parametrize("depth", [100, 10_000])
def test_json_of_great_depth(depth: int) -> None:
    for data in (b"[" * depth + b"]" * depth, b'{"model":' * depth + b"1" + b"}" * depth):
        with pytest.raises(DesyncError):
            parse(Manifest, data, "model-owner")


@untimed
@given(
    st.builds(
        wire_pb2.Hello,
        protocol_version=st.integers(0, (1 << 32) - 1),
        role=st.text(max_size=20) | st.sampled_from(["server0", "server1", "dealer", "data-owner"]),
        run_id=st.binary(max_size=20),
        plan_digest=st.binary(max_size=40),
        purpose=st.text(max_size=20) | st.just("infer"),
    )
)
def test_hellos_agree_or_are_refused(theirs: wire_pb2.Hello) -> None:
    mine = make_hello("server0", bytes(16), "infer")
    try:
        compare(mine, theirs, "server1")
    except SecformerError as error:
        assert str(error).endswith(".")
    else:
        assert theirs.role == "server1" and theirs.run_id == bytes(16)


def framed(kind: Kind, message: Message) -> Callable[[int], bytes]:
    data = message.SerializeToString() if kind is Kind.HELLO else wrap(message)
    return lambda sequence: encode_frame(sequence, kind, 0, len(data), data)


hellos = st.builds(
    lambda role, purpose, run: framed(
        Kind.HELLO,
        wire_pb2.Hello(protocol_version=1, role=role, purpose=purpose, run_id=run, package_version="0"),
    ),
    st.sampled_from(["server0", "server1", "data-owner", "model-owner", "nobody"]),
    st.sampled_from(["provision", "infer", "describe", "prepare", "diagnose", ""]),
    st.sampled_from([bytes(16), b""]) | st.binary(min_size=16, max_size=16),
)
controls = st.builds(
    lambda message: framed(Kind.CONTROL, message),
    st.builds(wire_pb2.Manifest, json=damaged(Request) | damaged(Manifest) | st.just(b"{}"))
    | st.builds(wire_pb2.Seed, seed=st.binary(max_size=40))
    | st.just(wire_pb2.Accepted())
    | st.builds(wire_pb2.Report, json=st.binary(max_size=40)),
)
noise = st.builds(lambda data: lambda sequence: data, st.binary(max_size=60))
conversations = st.tuples(hellos, st.lists(controls | noise | hellos, max_size=3))


@pytest.fixture(scope="module")
def handlers() -> list[tuple[str, Callable[[Link, Caller], None]]]:
    """What parties answer, without a network: nobody whom they call is there."""
    given_ = loopback_settings(insecure=True, timeouts={"progress_s": 0.2, "handshake_s": 0.2})
    found = [(rpc, call) for rpc, call in Dealer(given_).handlers().items()]
    access = Access(given_, "server0")
    around = Neighbours(0, given_, access.open("dealer"), None, Rendezvous())
    return found + list(ComputeServer(around).handlers().items())


def test_any_conversation_ends_in_order(
    handlers: list[tuple[str, Callable[[Link, Caller], None]]],
) -> None:
    @untimed
    @given(st.sampled_from(handlers), conversations)
    def check(handler: tuple[str, Callable[[Link, Caller], None]], said: Any) -> None:
        rpc, answer = handler
        ours, theirs = memory_streams()
        link = Link("the caller", ours, role="server0", timeout_s=0.5)
        first, rest = said
        push(theirs, *(frame(sequence) for sequence, frame in enumerate((first, *rest))))
        theirs.outbox.close()
        try:
            answer(link, Caller(rpc, "nowhere", None))
        except SecformerError as error:
            assert str(error).endswith(".") and "\n" not in str(error)
        finally:
            link.close()

    check()


@untimed
@given(st.lists(damaged(Progress) | damaged(PartyReport) | st.binary(max_size=40), max_size=4))
def test_a_client_hears_a_report_or_refuses(said: list[bytes]) -> None:
    ours, theirs = memory_streams()
    link = Link("server0", ours, role="data-owner", timeout_s=0.5)
    push(theirs, *(framed(Kind.CONTROL, wire_pb2.Report(json=j))(n) for n, j in enumerate(said)))
    theirs.outbox.close()
    try:
        await_report(link, lambda told: None)
    except SecformerError as error:
        assert "\n" not in str(error)
    finally:
        link.close()
