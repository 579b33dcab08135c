"""The contract of a link, held over memory and over gRPC."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from secformer_rt.errors import DesyncError
from secformer_rt.transport import wire_pb2
from secformer_rt.transport.frames import CHUNK_BYTES, GRPC_PREFIX_BYTES, Kind, encode_frame
from tests.transport.harness import beside

MIB = 1 << 20


def pattern(nbytes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, nbytes, dtype=np.uint8)


def finish_both(a, b):
    other = beside(b.finish)
    a.finish()
    other.result()


def test_messages_arrive_in_order_and_whole(pair):
    a, b = pair
    for tag in range(200):
        a.send(tag, pattern(tag * 37, tag))
        b.send(tag, pattern(tag * 11, -tag % 1000))
    for tag in range(200):
        assert bytes(b.receive(tag, tag * 37)) == pattern(tag * 37, tag).tobytes()
        assert bytes(a.receive(tag, tag * 11)) == pattern(tag * 11, -tag % 1000).tobytes()


@pytest.mark.parametrize(
    "size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, 5 * CHUNK_BYTES - 7]
)
def test_sizes_around_the_chunk(pair, size):
    a, b = pair
    message = pattern(size)
    a.send(7, message)
    b.send(2**63, message)
    received = b.receive(7, size)
    assert received == memoryview(message)
    target = bytearray(size)
    a.receive_into(2**63, memoryview(target))
    assert target == message.tobytes()
    finish_both(a, b)


def test_symmetric_exchange_of_64_mib_does_not_deadlock(pair):
    a, b = pair
    size = 64 * MIB
    message = pattern(size)

    def exchange(link):
        link.send(0, message)
        return link.receive(0, size) == memoryview(message)

    other = beside(lambda: exchange(b))
    assert exchange(a)
    assert other.result()


def test_a_message_may_exceed_the_window(make_pair):
    with make_pair(window_bytes=MIB) as (a, b):
        message = pattern(9 * MIB)
        a.send(0, message)
        b.send(0, message)
        assert b.receive(0, 9 * MIB) == memoryview(message)
        assert a.receive(0, 9 * MIB) == memoryview(message)


def test_buffers_of_any_sort_are_one_message(pair):
    a, b = pair
    words = np.arange(6, dtype=np.int64).reshape(2, 3)
    tensor = torch.arange(5, dtype=torch.int64)
    a.send(1, b"ab", bytearray(b"cd"), memoryview(b"ef"), words, np.empty((0, 3)), tensor, torch.empty(0))
    expected = b"abcdef" + words.tobytes() + tensor.numpy().tobytes()
    assert bytes(b.receive(1, len(expected))) == expected


def test_a_chunk_may_span_buffers(pair):
    a, b = pair
    parts = [pattern(size, size) for size in (CHUNK_BYTES - 3, 5, 2 * CHUNK_BYTES, 1, 0, 700)]
    a.send(1, *parts)
    whole = np.concatenate(parts)
    assert b.receive(1, whole.size) == memoryview(whole)


def test_the_sender_may_reuse_its_buffer_at_once(pair):
    a, b = pair
    buffer = bytearray(b"first")
    a.send(0, buffer)
    buffer[:] = b"later"
    assert bytes(b.receive(0, 5)) == b"first"


def test_a_message_of_one_frame_stays_where_it_arrived(pair):
    a, b = pair
    for tag, size in enumerate((0, 1, CHUNK_BYTES, CHUNK_BYTES + 1)):
        a.send(tag, bytes(size))
        received = b.receive(tag, size)
        assert received.nbytes == size
        assert received.readonly is (size <= CHUNK_BYTES)


def test_hello_and_control_messages(pair):
    a, b = pair
    hello = wire_pb2.Hello(protocol_version=3, role="server1", run_id=bytes(range(16)), preset="exact")
    manifest = wire_pb2.Manifest(json=bytes(3 * MIB))
    a.send_hello(hello)
    a.send_control(manifest)
    a.send_control(wire_pb2.Seed(seed=b"s" * 32))
    assert b.receive_hello(5.0) == hello
    assert b.receive_control(wire_pb2.Manifest) == manifest
    b.send_control(wire_pb2.Accepted())
    assert a.receive_control(wire_pb2.Accepted) == wire_pb2.Accepted()
    assert b.receive_control(wire_pb2.Seed).seed == b"s" * 32


def test_another_control_message_than_expected(pair):
    a, b = pair
    a.send_control(wire_pb2.Accepted())
    with pytest.raises(DesyncError, match=r"Report was expected of server1, which sent accepted"):
        b.receive_control(wire_pb2.Report)


@pytest.mark.parametrize(
    ("tag", "nbytes", "sentence"),
    [
        (8, 4, r"DATA 8 of 4 bytes was expected of server1, which sent DATA 7 of 4 bytes"),
        (7, 5, r"DATA 7 of 5 bytes was expected of server1, which sent DATA 7 of 4 bytes"),
        (7, 0, r"DATA 7 of 0 bytes was expected of server1, which sent DATA 7 of 4 bytes"),
    ],
)
def test_another_message_than_expected(pair, tag, nbytes, sentence):
    a, b = pair
    a.send(7, b"abcd")
    with pytest.raises(DesyncError, match=sentence):
        b.receive(tag, nbytes)


def test_another_kind_than_expected(pair):
    a, b = pair
    a.send_hello(wire_pb2.Hello())
    with pytest.raises(DesyncError, match=r"DATA 0 of 0 bytes was expected of server1, which sent HELLO"):
        b.receive(0, 0)
    b.send(0)
    with pytest.raises(DesyncError, match=r"HELLO was expected of server0, which sent DATA 0 of 0 bytes"):
        a.receive_hello()


def test_counters_are_exact_and_equal(pair):
    a, b = pair
    sizes = [0, 1, 100, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * MIB + 5]
    expected_wire = 0
    sequence = 0
    for tag, size in enumerate(sizes):
        a.send(tag, bytes(size))
        left = size
        while True:
            chunk = min(left, CHUNK_BYTES)
            frame = encode_frame(sequence, Kind.DATA, tag, size, bytes(chunk))
            expected_wire += len(frame) + GRPC_PREFIX_BYTES
            sequence += 1
            left -= chunk
            if not left:
                break
    assert a.traffic.payload_sent == sum(sizes)
    assert a.traffic.wire_sent == expected_wire
    for tag, size in enumerate(sizes):
        b.receive(tag, size)
    assert b.traffic.payload_received == sum(sizes)
    assert b.traffic.wire_received == expected_wire
    b.send_control(wire_pb2.Accepted())
    b.progress()
    b.send(9, b"1234")
    a.receive_control(wire_pb2.Accepted)
    a.receive(9, 4)
    finish_both(a, b)
    assert a.traffic.payload_received == b.traffic.payload_sent == 4
    assert a.traffic.wire_received == b.traffic.wire_sent
    assert a.traffic.wire_sent == b.traffic.wire_received
    total = a.traffic + b.traffic
    assert total.payload_sent == total.payload_received == sum(sizes) + 4
    assert total - a.traffic == b.traffic


def test_signs_of_life_may_come_between_chunks(pair):
    a, b = pair
    stop = threading.Event()

    def keep_alive():
        while not stop.is_set():
            a.progress()
            time.sleep(0.0005)

    alive = beside(keep_alive)
    for tag in range(5):
        a.send(tag, bytes(5 * MIB))
        b.receive(tag, 5 * MIB)
    stop.set()
    alive.result()
    finish_both(a, b)
    assert a.traffic.wire_sent == b.traffic.wire_received


def test_many_threads_may_send(pair):
    a, b = pair

    def work(seed):
        for _ in range(20):
            a.send(5, bytes([seed]) * (CHUNK_BYTES + 10))

    workers = [beside(lambda seed=seed: work(seed)) for seed in range(4)]
    for _ in range(80):
        assert len(set(bytes(b.receive(5, CHUNK_BYTES + 10)))) == 1
    for worker in workers:
        worker.result()
