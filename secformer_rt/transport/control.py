"""Protobuf messages as the payload of HELLO and CONTROL frames."""

from __future__ import annotations

from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

from secformer_rt.errors import DesyncError
from secformer_rt.transport import wire_pb2

M = TypeVar("M", bound=Message)

MAX_CONTROL_BYTES: Final = 64 << 20
MAX_HELLO_BYTES: Final = 64 << 10

_FIELDS: Final = {
    field.message_type.full_name: field.name
    for field in wire_pb2.Control.DESCRIPTOR.fields
    if field.message_type is not None
}


def wrap(message: Message) -> bytes:
    """Serialise a message as the `Control` that says which one it is."""
    control = wire_pb2.Control()
    part = getattr(control, _FIELDS[message.DESCRIPTOR.full_name])
    part.SetInParent()
    part.CopyFrom(message)
    return control.SerializeToString()


def unwrap(data: memoryview, expected: type[M], peer: str) -> M:
    """Take the expected message out of a `Control`.

    Args:
        data: What came.
        expected: The class that it must be of.
        peer: The role it came from, for error sentences.

    Raises:
        DesyncError: It is another message, or none.
    """
    control = parse(data, wire_pb2.Control, peer)
    field = control.WhichOneof("message")
    message = getattr(control, field) if field else None
    if not isinstance(message, expected):
        raise DesyncError(
            f"{expected.DESCRIPTOR.name} was expected of {peer}, which sent {field or 'nothing'};"
            " the two do not follow the same plan."
        )
    return message


def parse(data: memoryview, message_class: type[M], peer: str) -> M:
    """Parse a message of a known class; DesyncError if that is not what the bytes are."""
    try:
        return message_class.FromString(bytes(data))
    except DecodeError:
        raise DesyncError(f"{peer} sent a {message_class.DESCRIPTOR.name} that cannot be read.") from None
