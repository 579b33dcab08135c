"""Coverage-guided fuzzing of everything that reads a peer's bytes; run by hand, pytest does not collect it.

``pip install atheris``, then ``python tests/fuzz/fuzz_wire.py -max_total_time=600`` in the checkout. A
finding is an exception that is none of our own errors, or a frame with two encodings.
"""

from __future__ import annotations

import sys
from contextlib import suppress

import atheris

with atheris.instrument_imports(include=["secformer_rt"], enable_loader_override=False):
    from secformer_rt.errors import DesyncError, SecformerError
    from secformer_rt.parties.manifest import Manifest, Request, parse
    from secformer_rt.transport import wire_pb2
    from secformer_rt.transport.aborts import decode_abort
    from secformer_rt.transport.channel import parse_address
    from secformer_rt.transport.control import parse as parse_message
    from secformer_rt.transport.control import unwrap
    from secformer_rt.transport.frames import decode_frame, encode_frame
    from secformer_rt.transport.link import Link
    from secformer_rt.transport.memory import memory_streams


def frame(data: bytes) -> None:
    """One frame."""
    try:
        found = decode_frame(data)
    except DesyncError:
        return
    again = encode_frame(found.sequence, found.kind, found.tag, found.total, found.payload)
    if again != data:
        raise AssertionError("a frame has two encodings")


def stream(data: bytes) -> None:
    """Frames of a stream, cut where the data says."""
    ours, theirs = memory_streams()
    link = Link("peer", ours, role="server0", timeout_s=5.0)
    while data:
        size = data[0]
        theirs.outbox.put(data[1 : 1 + size], size)
        data = data[1 + size :]
    theirs.outbox.close()
    try:
        link.receive_hello()
        link.receive_control(wire_pb2.Manifest)
        link.receive(0, 8)
    except SecformerError:
        pass
    finally:
        link.close()


def messages(data: bytes) -> None:
    """Protobuf messages and JSON."""
    view = memoryview(data)
    decode_abort(view, "peer")
    for kind in (wire_pb2.Manifest, wire_pb2.Seed, wire_pb2.Report):
        with suppress(DesyncError):
            unwrap(view, kind, "peer")
    for work in (
        lambda: parse_message(view, wire_pb2.Hello, "peer"),
        lambda: parse(Manifest, data, "peer"),
        lambda: parse(Request, data, "peer"),
        lambda: parse_address(data.decode("utf-8", "replace")),
    ):
        with suppress(SecformerError):
            work()


def one(data: bytes) -> None:
    """Whatever the first byte chooses."""
    if data:
        (frame, stream, messages)[data[0] % 3](data[1:])


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
