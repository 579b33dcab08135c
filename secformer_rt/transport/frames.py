"""Frames on the wire: `Frame` of the proto contract, encoded and decoded without copying the payload.

The generated class copies a payload several times. Here the sender joins header and payload once, and the
receiver looks at the payload where it arrived; the bytes are the same as the generated class's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from secformer_rt.errors import DesyncError
from secformer_rt.transport import wire_pb2

if TYPE_CHECKING:
    from typing_extensions import Buffer

CHUNK_BYTES: Final = 1 << 20
MAX_HEADER_BYTES: Final = 64
MAX_FRAME_BYTES: Final = CHUNK_BYTES + MAX_HEADER_BYTES
GRPC_PREFIX_BYTES: Final = 5
"""gRPC writes a compression flag and a 32-bit length in front of every message."""

_PAYLOAD_KEY: Final = 0x7A
_NUMBER: Final = (1 << 32) - 1  # of a tag: the message's number, below what was opened before it
_HEADER_KEYS: Final = {0x08: 0, 0x10: 1, 0x18: 2, 0x20: 3}


class Kind(IntEnum):
    """What a frame is for."""

    HELLO = wire_pb2.Frame.HELLO
    DATA = wire_pb2.Frame.DATA
    CONTROL = wire_pb2.Frame.CONTROL
    PROGRESS = wire_pb2.Frame.PROGRESS
    ABORT = wire_pb2.Frame.ABORT
    END = wire_pb2.Frame.END


@dataclass(frozen=True, slots=True)
class Frame:
    """One chunk of one message, as it was received; the payload is a view of the received bytes."""

    sequence: int
    kind: Kind
    tag: int
    total: int
    payload: memoryview
    wire_bytes: int

    def __str__(self) -> str:
        return describe(self.kind, self.tag, self.total)


def describe(kind: Kind, tag: int | None = None, total: int | None = None) -> str:
    """Name a message as error sentences do: `DATA 7 of 4096 bytes`."""
    if kind in (Kind.PROGRESS, Kind.END):
        return kind.name
    words = f"{kind.name} {(tag or 0) & _NUMBER}" if kind is Kind.DATA else kind.name
    return words if total is None else f"{words} of {total} bytes"


def same_number(one: int, other: int) -> bool:
    """Whether two tags are of the same message, whatever was opened before it."""
    return not (one ^ other) & _NUMBER


def encode_frame(sequence: int, kind: Kind, tag: int, total: int, *payload: Buffer) -> bytes:
    """Encode a frame in one join.

    Args:
        sequence: How many frames went before it.
        kind: What it is for.
        tag: What the sender says the message is.
        total: Payload bytes of the whole message.
        payload: The chunk, in as many byte views as it lies in.

    Returns:
        The same bytes as the generated class would serialise.
    """
    header = bytearray()
    for key, value in ((0x08, sequence), (0x10, int(kind)), (0x18, tag), (0x20, total)):
        if value:
            header.append(key)
            _append_varint(header, value)
    size = sum(memoryview(part).nbytes for part in payload)
    if not size:
        return bytes(header)
    header.append(_PAYLOAD_KEY)
    _append_varint(header, size)
    return b"".join((header, *payload))


def decode_frame(data: bytes) -> Frame:
    """Decode a frame, accepting nothing but the canonical encoding.

    Args:
        data: One received gRPC message.

    Returns:
        The frame; its payload shares memory with `data`.

    Raises:
        DesyncError: The bytes are no frame of this protocol.
    """
    end = len(data)
    if end > MAX_FRAME_BYTES:
        raise DesyncError(f"A frame of {end} bytes is larger than the protocol allows ({MAX_FRAME_BYTES}).")
    fields = [0, 0, 0, 0]
    position = last_key = payload_start = 0
    while position < end:
        key = data[position]
        if key <= last_key:
            raise DesyncError("A frame repeats a field or has its fields out of order.")
        last_key = key
        value, position = _read_varint(data, position + 1)
        if not value:
            raise DesyncError("A frame spells out a default value.")
        if key == _PAYLOAD_KEY:
            if value != end - position:
                raise DesyncError(f"A frame announces {value} payload bytes and carries {end - position}.")
            payload_start = position
            break
        if key not in _HEADER_KEYS:
            raise DesyncError(f"A frame has a field that the protocol does not know (key {key}).")
        fields[_HEADER_KEYS[key]] = value
    payload = memoryview(data)[payload_start:] if payload_start else memoryview(b"")
    if len(payload) > CHUNK_BYTES:
        raise DesyncError(
            f"A chunk of {len(payload)} bytes is larger than the protocol allows ({CHUNK_BYTES})."
        )
    try:
        kind = Kind(fields[1])
    except ValueError:
        raise DesyncError(f"A frame is of a kind that the protocol does not know ({fields[1]}).") from None
    return Frame(fields[0], kind, fields[2], fields[3], payload, end)


def _append_varint(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    for byte in data[position : position + 10]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            if value >> 64 or (not byte and shift > 7):
                break
            return value, position + shift // 7
    raise DesyncError("A frame has a broken or truncated number.")
