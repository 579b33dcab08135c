from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secformer_rt.errors import DesyncError
from secformer_rt.transport import wire_pb2
from secformer_rt.transport.frames import (
    CHUNK_BYTES,
    MAX_FRAME_BYTES,
    MAX_HEADER_BYTES,
    Kind,
    decode_frame,
    encode_frame,
)

UINT64 = st.one_of(st.integers(0, 300), st.integers(0, 2**64 - 1), st.just(2**64 - 1))
KINDS = st.sampled_from(Kind)


def reference(sequence: int, kind: int, tag: int, total: int, payload: bytes) -> bytes:
    return wire_pb2.Frame(
        sequence=sequence, kind=wire_pb2.Frame.Kind.Name(kind), tag=tag, total=total, payload=payload
    ).SerializeToString()


@given(UINT64, KINDS, UINT64, UINT64, st.lists(st.binary(max_size=300), max_size=4))
def test_encoding_is_that_of_the_generated_class(sequence, kind, tag, total, parts):
    data = encode_frame(sequence, kind, tag, total, *map(memoryview, parts))
    assert data == reference(sequence, kind, tag, total, b"".join(parts))
    frame = decode_frame(data)
    assert (frame.sequence, frame.kind, frame.tag, frame.total) == (sequence, kind, tag, total)
    assert bytes(frame.payload) == b"".join(parts)
    assert frame.wire_bytes == len(data)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16383, 16384, CHUNK_BYTES - 1, CHUNK_BYTES])
def test_payload_sizes(size):
    data = encode_frame(2**64 - 1, Kind.DATA, 2**64 - 1, 2**64 - 1, bytes(size))
    assert data == reference(2**64 - 1, Kind.DATA, 2**64 - 1, 2**64 - 1, bytes(size))
    assert len(data) - size < MAX_HEADER_BYTES
    assert len(decode_frame(data).payload) == size


def test_payload_shares_memory_with_the_received_bytes():
    data = encode_frame(1, Kind.DATA, 2, 4, b"abcd")
    assert decode_frame(data).payload.obj is data


@given(st.binary(max_size=200))
def test_garbage_is_a_desync_and_nothing_else(data):
    try:
        frame = decode_frame(data)
    except DesyncError:
        return
    # Only the canonical encoding is let through.
    assert encode_frame(frame.sequence, frame.kind, frame.tag, frame.total, frame.payload) == data


@given(UINT64, KINDS, UINT64, UINT64, st.binary(max_size=40), st.data())
def test_damage_is_a_desync_or_another_canonical_frame(sequence, kind, tag, total, payload, data):
    damaged = bytearray(encode_frame(sequence, kind, tag, total, payload))
    position = data.draw(st.integers(0, len(damaged) - 1))
    damaged[position] ^= data.draw(st.integers(1, 255))
    try:
        frame = decode_frame(bytes(damaged))
    except DesyncError:
        return
    assert encode_frame(frame.sequence, frame.kind, frame.tag, frame.total, frame.payload) == damaged


@given(UINT64, KINDS, UINT64, UINT64, st.binary(min_size=1, max_size=40), st.data())
def test_a_cut_payload_is_a_desync(sequence, kind, tag, total, payload, data):
    whole = encode_frame(sequence, kind, tag, total, payload)
    keep = data.draw(st.integers(len(whole) - len(payload), len(whole) - 1))
    with pytest.raises(DesyncError):
        decode_frame(whole[:keep])


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x10", id="no value"),
        pytest.param(b"\x10\x82", id="number cut short"),
        pytest.param(b"\x10\x07", id="unknown kind"),
        pytest.param(b"\x08\x01", id="no kind"),
        pytest.param(b"\x08\x00\x10\x02", id="default spelt out"),
        pytest.param(b"\x10\x82\x00", id="number too long"),
        pytest.param(b"\x08" + b"\xff" * 9 + b"\x02\x10\x02", id="number beyond 64 bits"),
        pytest.param(b"\x08" + b"\x80" * 20 + b"\x10\x02", id="endless number"),
        pytest.param(b"\x10\x02\x10\x02", id="field twice"),
        pytest.param(b"\x10\x02\x08\x01", id="fields out of order"),
        pytest.param(b"\x10\x02\x28\x01", id="unknown field"),
        pytest.param(b"\x11" + bytes(8), id="wrong wire type"),
        pytest.param(b"\x10\x02\x7a\x00", id="empty payload spelt out"),
        pytest.param(b"\x10\x02\x7a\x05abcd", id="payload too short"),
        pytest.param(b"\x10\x02\x7a\x03abcd", id="payload too long"),
        pytest.param(encode_frame(0, Kind.DATA, 0, 0, bytes(CHUNK_BYTES + 1)), id="chunk too large"),
        pytest.param(bytes(MAX_FRAME_BYTES + 1), id="frame too large"),
    ],
)
def test_broken_frames(data):
    with pytest.raises(DesyncError):
        decode_frame(data)
