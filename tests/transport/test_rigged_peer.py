"""A link whose peer breaks the protocol: always a DesyncError or a lost peer, never anything else."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secformer_rt.errors import DesyncError, PeerLostError, SecformerError
from secformer_rt.transport import wire_pb2
from secformer_rt.transport.aborts import decode_abort, encode_abort
from secformer_rt.transport.control import MAX_CONTROL_BYTES, MAX_HELLO_BYTES
from secformer_rt.transport.frames import CHUNK_BYTES, Kind, encode_frame
from tests.transport.harness import abort_heard, data_frame, memory_rigged, push


@pytest.mark.parametrize(
    ("sequences", "sentence"),
    [
        ((0, 0), "Frame 1 was due, and frame 0 came"),
        ((0, 2), "Frame 1 was due, and frame 2 came"),
        ((1,), "Frame 0 was due, and frame 1 came"),
    ],
)
def test_replayed_lost_and_reordered_frames(rigged, sequences, sentence):
    link, raw = rigged
    push(raw, *(data_frame(sequence, 4, b"abcd") for sequence in sequences))
    for _ in sequences[1:]:
        assert bytes(link.receive(4, 4)) == b"abcd"
    with pytest.raises(DesyncError, match=f"server0 broke the protocol: {sentence}"):
        link.receive(4, 4)


@pytest.mark.parametrize("garbage", [b"", b"garbage", b"\xff" * 100, bytes(1000)])
def test_garbage(rigged, garbage):
    link, raw = rigged
    push(raw, garbage)
    with pytest.raises(DesyncError, match="server0 broke the protocol"):
        link.receive(0, 4)


@pytest.mark.parametrize("size", [CHUNK_BYTES + 1, CHUNK_BYTES + 1000])
def test_a_chunk_beyond_the_limit(rigged, size):
    link, raw = rigged
    push(raw, data_frame(0, 0, bytes(size)))
    with pytest.raises(DesyncError, match="larger than the protocol allows"):
        link.receive(0, size)


def test_a_frame_beyond_what_the_carrier_takes(rigged):
    link, raw = rigged
    push(raw, data_frame(0, 0, bytes(CHUNK_BYTES * 2)))
    with pytest.raises(SecformerError) as caught:
        link.receive(0, 8)
    assert isinstance(caught.value, (DesyncError, PeerLostError))


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([data_frame(0, 1, b"ab", 4), data_frame(1, 1, b"abc", 4)], id="too much"),
        pytest.param([data_frame(0, 1, b"ab", 4), data_frame(1, 1, b"", 4)], id="nothing"),
        pytest.param([data_frame(0, 1, b"ab", 4), data_frame(1, 2, b"ab", 4)], id="another tag"),
        pytest.param([data_frame(0, 1, b"ab", 4), data_frame(1, 1, b"ab", 5)], id="another total"),
        pytest.param(
            [data_frame(0, 1, b"ab", 4), encode_frame(1, Kind.CONTROL, 1, 4, b"ab")], id="another kind"
        ),
        pytest.param([encode_frame(0, Kind.END, 0, 0)], id="the end"),
    ],
)
def test_chunks_that_do_not_make_a_message(rigged, frames):
    link, raw = rigged
    push(raw, *frames)
    with pytest.raises(DesyncError, match="server0"):
        link.receive(1, 4)


def test_small_chunks_make_a_message_too(rigged):
    link, raw = rigged
    push(raw, *(data_frame(index, 1, bytes([index]), 4) for index in range(4)))
    assert bytes(link.receive(1, 4)) == bytes(range(4))


def test_control_messages_have_limits(rigged):
    link, raw = rigged
    push(raw, encode_frame(0, Kind.HELLO, 0, MAX_HELLO_BYTES + 1, b"x"))
    with pytest.raises(DesyncError, match="65536 bytes are the limit"):
        link.receive_hello()
    push(raw, encode_frame(1, Kind.CONTROL, 0, MAX_CONTROL_BYTES + 1, b"x"))
    with pytest.raises(DesyncError, match="are the limit"):
        link.receive_control(wire_pb2.Manifest)


def test_control_messages_that_cannot_be_read(rigged):
    link, raw = rigged
    push(
        raw,
        encode_frame(0, Kind.HELLO, 0, 3, b"\xff\xff\xff"),
        encode_frame(1, Kind.CONTROL, 0, 3, b"\xff\xff\xff"),
        encode_frame(2, Kind.CONTROL, 0, 0),
    )
    with pytest.raises(DesyncError, match="server0 sent a Hello that cannot be read"):
        link.receive_hello()
    with pytest.raises(DesyncError, match="server0 sent a Control that cannot be read"):
        link.receive_control(wire_pb2.Accepted)
    with pytest.raises(DesyncError, match="Accepted was expected of server0, which sent nothing"):
        link.receive_control(wire_pb2.Accepted)


@pytest.mark.parametrize("ending", ["cancel", "end"])
def test_a_stream_that_stops(rigged, ending):
    link, raw = rigged
    push(raw, data_frame(0, 0, b"abcd"))
    assert bytes(link.receive(0, 4)) == b"abcd"
    if ending == "cancel":
        raw.cancel()
    else:
        raw.outbox.close()
    with pytest.raises(PeerLostError, match="server0"):
        link.receive(1, 4)


def test_what_came_before_the_stream_stopped_can_still_be_read(rigged):
    link, raw = rigged
    push(raw, data_frame(0, 0, b"abcd"))
    raw.outbox.close()
    link._inbox.join(10)
    assert bytes(link.receive(0, 4)) == b"abcd"
    with pytest.raises(PeerLostError, match="server0"):
        link.receive(1, 4)


def test_a_party_that_was_sent_garbage_can_say_so(rigged):
    link, raw = rigged
    push(raw, b"garbage", *(data_frame(index, 0, bytes(1000)) for index in range(100)))
    with pytest.raises(DesyncError) as caught:
        link.receive(0, 4)
    link.abort(caught.value)
    heard = raw.receive()
    assert heard is not None
    assert b"server0 broke the protocol" in heard
    raw.cancel()


def test_an_abort_may_skip_ahead(rigged):
    link, raw = rigged
    payload = wire_pb2.Abort(
        code="mismatch", message="two\nlines\x1b[31m", role="server0"
    ).SerializeToString()
    push(raw, data_frame(0, 0, b"abcd"), encode_frame(77, Kind.ABORT, 0, len(payload), payload))
    assert abort_heard(link)
    with pytest.raises(SecformerError, match=r"^server0 stopped the run: two lines \[31m$") as caught:
        link.receive(0, 4)
    assert caught.value.code == "mismatch"


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"\xff\xff", "desync"),
        (b"", "error"),
        (wire_pb2.Abort(code="of the future", message="?").SerializeToString(), "error"),
    ],
)
def test_an_abort_that_makes_no_sense(payload, code):
    assert decode_abort(memoryview(payload), "dealer").code == code


def test_a_long_abort_is_cut():
    error = decode_abort(memoryview(encode_abort(DesyncError("x" * 5000), "dealer")), "dealer")
    assert len(str(error)) < 1100


@given(st.lists(st.binary(max_size=60), max_size=5), st.binary(max_size=60))
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=60)
def test_any_bytes_at_all(garbage, tail):
    with memory_rigged(timeout_s=5.0) as (link, raw):
        push(raw, data_frame(0, 0, b"abcd"), *garbage, data_frame(1, 1, tail))
        raw.outbox.close()
        assert bytes(link.receive(0, 4)) == b"abcd"
        with pytest.raises((DesyncError, PeerLostError)):
            link.receive(1, len(tail))
            link.receive(2, 1)
