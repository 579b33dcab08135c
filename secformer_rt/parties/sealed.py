"""The format of kept files: a description, tensors, and a checksum of both.

    8 bytes     magic, 4 bytes version, 4 bytes length of the description, the description in JSON, zeros up
                to a multiple of HEADER_BYTES
    per tensor  its bytes, then zeros up to a multiple of 8 where another follows
    16 bytes    XXH3-128 of everything before

The checksum notices faults of a disk. Whoever can write to the directory holds the party's secrets anyway.
"""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from xxhash import xxh3_128

from secformer_rt.errors import StoreError
from secformer_rt.parties import durable
from secformer_rt.ring.buffers import as_bytes, whole_words

Shape = tuple[int, ...]
Layout = Sequence[tuple[str, Shape]]

VERSION: Final = 5
HEADER_BYTES: Final = 16384
CHECKSUM_BYTES: Final = 16
READ_BYTES: Final = 1 << 26
_MAGIC: Final = b"SFRTKEPT"
_START: Final = struct.Struct("<8sII")
_KINDS: Final = (torch.uint8, torch.int16, torch.int32, torch.int64)
_DTYPES: Final = {str(kind).removeprefix("torch."): kind for kind in _KINDS}
_NAMES: Final = {kind: name for name, kind in _DTYPES.items()}


def layout_of(tensors: Sequence[Tensor]) -> list[tuple[str, Shape]]:
    """What a header says of tensors: their types and shapes."""
    return [(_NAMES[tensor.dtype], tuple(tensor.shape)) for tensor in tensors]


def _size(entry: tuple[str, Shape]) -> int:
    return _DTYPES[entry[0]].itemsize * prod(entry[1])


def body_size(layout: Layout) -> int:
    """Bytes of the tensors and of what is between them."""
    sizes = [_size(entry) for entry in layout]
    return sum(map(whole_words, sizes[:-1])) + sum(sizes[-1:])


class Writer:
    """Writes one file, tensor by tensor, beside its later name.

    Whoever makes one calls :meth:`publish` or :meth:`abandon`, and :meth:`close`, in the end; a crash before
    leaves a file with the suffix of unfinished ones.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], layout: Layout) -> None:
        """Begin.

        Raises:
            OSError: the disk is full or broken; nothing is left of the file.
        """
        self.path, self._partial = path, path.with_name(path.name + durable.PARTIAL)
        self._checksum, self._pad, self.size = xxh3_128(), 0, 0
        text = json.dumps({"about": about, "tensors": layout}).encode()
        header = _START.pack(_MAGIC, VERSION, len(text)) + text
        self._file = durable.create(self._partial)
        try:
            self._put(header + bytes(-len(header) % HEADER_BYTES))
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                self.abandon()
            raise

    def close(self) -> None:
        """Let go of the file, as it is."""
        self._file.close()

    def _put(self, data: bytes | memoryview) -> None:
        self._checksum.update(data)
        durable.write(self._file, data)
        self.size += len(data)

    def add(self, tensor: Tensor) -> None:
        """The next tensor of the layout.

        Raises:
            OSError: the disk is full or broken.
        """
        if self._pad:
            self._put(bytes(self._pad))
        data = as_bytes(tensor)
        self._pad = -len(data) % 8
        if len(data):
            self._put(data)

    def finish(self) -> None:
        """End the file, and wait until all of it is on the disk.

        Raises:
            OSError: the disk is full or broken.
        """
        self._put(self._checksum.digest())
        durable.sync(self._file)

    def publish(self) -> None:
        """Give a finished file its name."""
        durable.rename(self._partial, self.path)
        durable.sync_directory(self.path.parent)

    def abandon(self) -> None:
        """Take the file away, unless it has its name already."""
        self._file.close()
        durable.unlink(self._partial)


class Reader:
    """An open file; it can be read even after its name is gone."""

    def __init__(self, path: Path) -> None:
        """Read the description.

        Raises:
            StoreError: it is missing or is no such file.
        """
        self.path = path
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror}.") from error
        try:
            magic, version, length = _START.unpack(self._file.read(_START.size))
            if magic != _MAGIC or version != VERSION:
                raise ValueError
            found = json.loads(self._file.read(length))
            self.about: dict[str, Any] = found["about"]
            self._layout = [(str(name), tuple(map(int, shape))) for name, shape in found["tensors"]]
            self._header = -(-(_START.size + length) // HEADER_BYTES) * HEADER_BYTES
            self.size = self._header + body_size(self._layout) + CHECKSUM_BYTES
            if path.stat().st_size != self.size:
                raise ValueError
        except (OSError, struct.error, ValueError, KeyError, TypeError, RecursionError) as error:
            self._file.close()
            raise damaged(path) from error

    def tensors(self, *, mapped: bool = False, between: Callable[[], None] = lambda: None) -> list[Tensor]:
        """All tensors, as views of one piece of memory with the file's bytes; the file is closed.

        Args:
            mapped: take the system's own copy, of which what is written to becomes this process's: for a
                file that nobody else can reach any more, and soon.
            between: called before each ``READ_BYTES`` of a copy; what it raises ends the reading.

        Raises:
            StoreError: a byte of the file has changed since it was written.
        """
        with self._file:
            data = (self._mapped() if mapped else None) or self._copied(between)
        if len(data) != self.size or xxh3_128(data[:-CHECKSUM_BYTES]).digest() != data[-CHECKSUM_BYTES:]:
            raise damaged(self.path)
        found, offset, whole = [], self._header, torch.from_numpy(np.frombuffer(data, np.uint8))
        for name, shape in self._layout:
            size = _size((name, shape))
            found.append(whole[offset : offset + size].view(_DTYPES[name]).reshape(shape))
            offset += whole_words(size)
        return found

    def _mapped(self) -> memoryview | None:
        try:
            return memoryview(mmap.mmap(self._file.fileno(), self.size, access=mmap.ACCESS_COPY))
        except (OSError, ValueError):  # a system that cannot, or a file that is shorter by now
            return None

    def _copied(self, between: Callable[[], None]) -> memoryview:
        data, position = as_bytes(torch.empty(self.size, dtype=torch.uint8)), 0
        self._file.seek(0)
        between()
        while count := self._file.readinto(data[position : position + READ_BYTES]):
            position += count
            between()
        return data[:position]

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def damaged(path: Path) -> StoreError:
    """What is said of a file that is not what was written; its name tells which one."""
    return StoreError(f"{path} is damaged, or another version has written it: it is thrown away.")
