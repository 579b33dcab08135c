"""Messages as byte views, and byte views as chunks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from secformer_rt.transport.frames import CHUNK_BYTES

if TYPE_CHECKING:
    from typing_extensions import Buffer


def as_bytes(buffer: Buffer) -> memoryview:
    """View a C-contiguous buffer, array or CPU tensor as flat bytes."""
    # Tensors have no buffer interface of their own; `numpy()` shares their memory.
    view = memoryview(buffer.numpy() if hasattr(buffer, "numpy") else buffer)
    return view.cast("B") if view.nbytes else memoryview(b"")


def cut(views: Iterable[memoryview]) -> list[list[memoryview]]:
    """Cut consecutive byte views into chunks, without copying; an empty message is one empty chunk."""
    chunks: list[list[memoryview]] = [[]]
    room = CHUNK_BYTES
    for view in views:
        position = 0
        while position < len(view):
            if not room:
                chunks.append([])
                room = CHUNK_BYTES
            piece = view[position : position + room]
            chunks[-1].append(piece)
            position += len(piece)
            room -= len(piece)
    return chunks
