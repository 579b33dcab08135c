"""Files that survive a crash: each step by itself, so that tests can end a process after any of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from typing_extensions import Buffer

PARTIAL = ".partial"  # the suffix of a file that is being written


def create(path: Path) -> BinaryIO:
    """A new file that only its owner can read."""
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    return os.fdopen(os.open(path, flags, 0o600), "r+b", buffering=0)


def write(file: BinaryIO, data: Buffer) -> None:
    """Write all of it."""
    view = memoryview(data).cast("B")
    while view:
        view = view[file.write(view) :]


def sync(file: BinaryIO) -> None:
    """Wait until what was written is on the disk."""
    os.fsync(file.fileno())


def sync_directory(directory: Path) -> None:
    """Wait until names that came, changed or went are on the disk."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def rename(path: Path, target: Path) -> None:
    """Give a file another name, in place of whatever has it."""
    path.replace(target)


def unlink(path: Path) -> None:
    """Take a file away, if it is there."""
    path.unlink(missing_ok=True)


class Log:
    """A file of short lines that grows until it is rewritten; a line is on the disk before it counts.

    A last line without an end was being written when the process ended: it does not count.
    """

    def __init__(self, path: Path) -> None:
        """Read what is there, or begin an empty file."""
        self._path = path
        try:
            whole, _, torn = path.read_bytes().rpartition(b"\n")
        except FileNotFoundError:
            whole = torn = b""
            create(path).close()
            sync_directory(path.parent)
        self.lines = whole.decode("ascii", "replace").split("\n") if whole else []
        self._file: BinaryIO = path.open("r+b", buffering=0)
        self._size = self._file.seek(0, os.SEEK_END) - len(torn)
        self._file.truncate(self._size)

    def append(self, line: str) -> None:
        """Add a line.

        Raises:
            OSError: it could not be written. Nothing has changed then.
        """
        data = f"{line}\n".encode("ascii")
        try:
            self._file.seek(self._size)
            write(self._file, data)
            sync(self._file)
        except OSError:
            self._file.truncate(self._size)
            raise
        self._size += len(data)
        self.lines.append(line)

    def rewrite(self, lines: Sequence[str]) -> None:
        """Replace all lines at once."""
        partial = self._path.with_name(self._path.name + PARTIAL)
        file = create(partial)
        try:
            data = "".join(f"{line}\n" for line in lines).encode("ascii")
            write(file, data)
            sync(file)
            rename(partial, self._path)
        except BaseException as error:
            file.close()
            if isinstance(error, OSError):
                unlink(partial)
            raise
        self._file.close()
        self._file, self._size, self.lines = file, len(data), list(lines)
        sync_directory(self._path.parent)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
