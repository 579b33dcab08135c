"""How a failure of one party becomes the same failure at its peers."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import DecodeError

from secformer_rt.errors import DesyncError, SecformerError
from secformer_rt.transport import wire_pb2

_MAX_TEXT = 1000


class RemoteAbort(Exception):  # noqa: N818 - the cause of an error, never raised by itself
    """What a peer said when it gave up; the `__cause__` of the error that a link raises then."""

    def __init__(self, peer: str, code: str, text: str) -> None:
        super().__init__(f"{peer}: {code}: {text}")
        self.peer = peer
        self.code = code
        self.text = text


def encode_abort(error: BaseException, role: str) -> bytes:
    """Describe a failure for the peer.

    Args:
        error: Why this party gives up. Only expected failures speak for themselves: the text of any other
            exception may quote a secret, so it stays here.
        role: Who gives up.

    Returns:
        A serialised `Abort`.
    """
    if isinstance(error, SecformerError):
        code, text = error.code, str(error)
    else:
        code, text = SecformerError.code, "it failed unexpectedly; its own log says more."
    return wire_pb2.Abort(code=code, message=text[:_MAX_TEXT], role=role).SerializeToString()


def decode_abort(payload: memoryview, peer: str) -> SecformerError:
    """Turn a peer's `Abort` into the error to raise here: the class by its code, the peer in its sentence."""
    try:
        abort = wire_pb2.Abort.FromString(bytes(payload))
    except DecodeError:
        return DesyncError(f"{peer} stopped the run and sent no readable reason.")
    text = "".join(char if char.isprintable() else " " for char in abort.message[:_MAX_TEXT])
    error_class = {known.code: known for known in _error_classes(SecformerError)}.get(
        abort.code, SecformerError
    )
    error = error_class(f"{peer} stopped the run: {text}")
    error.__cause__ = RemoteAbort(peer, abort.code[:_MAX_TEXT], text)
    return error


def _error_classes(base: type[SecformerError]) -> Iterator[type[SecformerError]]:
    for child in base.__subclasses__():
        yield from _error_classes(child)
    # Last, so that a class which inherits the code of its parent does not hide the parent.
    yield base
