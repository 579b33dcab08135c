"""The inferences that a server has prepared: each a file, each used once.

A file counts only while its id stands in the journal of ids that may be used. An id enters it once its file
is on the disk under its name, and leaves it before a byte of the file is used; so a crash at any point loses
an inference at most, and a file that somebody copies back is refused.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from secformer_rt.errors import StoreError
from secformer_rt.parties import durable
from secformer_rt.parties.issued import Issued
from secformer_rt.parties.sealed import Reader, Writer, damaged, layout_of

SUFFIX: Final = ".prepared"


class About(BaseModel):
    """What a prepared inference is bound to: both servers, the model, the plan and the run that dealt it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: str
    peer: str
    run_id: str  # that dealt it
    model_id: str
    plan: str  # digest
    model: str  # its name, and the shape: for people
    batch: int
    tokens: int
    masked: bool
    made: float  # seconds since 1970, by this party's clock

    @property
    def key(self) -> tuple[str, str]:
        """What it can be used for: a model and a plan."""
        return self.model_id, self.plan


@dataclass(frozen=True, slots=True)
class Cleared:
    """What a party threw away when it started: files by why they cannot be used."""

    half_written: int = 0
    used: int = 0
    damaged: int = 0


@dataclass(slots=True, eq=False)
class _Item:
    about: About
    path: Path
    nbytes: int
    settled: bool  # the run that dealt it has ended well here


class Stock:
    """What one server holds; several threads may use it."""

    def __init__(self, directory: Path, role: str) -> None:
        """Read the descriptions of all files, and throw away what was half written, half used or used.

        Raises:
            OSError: the directory cannot be read or written.
        """
        self.directory, self._role = directory, role
        self._lock = threading.Lock()
        self._items: dict[str, _Item] = {}
        self._busy: set[str] = set()  # being written, or taken by a run that the peer may not know of yet
        self._issued = Issued(directory / "issued")
        self.cleared = self._clear()

    def _clear(self) -> Cleared:
        partial = list(self.directory.glob(f"*{durable.PARTIAL}"))
        used, bad = [], []
        for path in self.directory.glob(f"*{SUFFIX}"):
            if path.stem not in self._issued:
                used.append(path)
            elif (about := read_about(path)) is None or (about.role, about.run_id) != (self._role, path.stem):
                bad.append(path)
            else:
                self._items[path.stem] = _Item(about, path, path.stat().st_size, settled=True)
        self._issued.keep(self._items.keys())
        for path in (*partial, *used, *bad):
            durable.unlink(path)
        durable.sync_directory(self.directory)
        return Cleared(len(partial), len(used), len(bad))

    def models(self) -> set[str]:
        """Ids of the models that something is prepared for."""
        with self._lock:
            return {item.about.model_id for item in self._items.values()}

    def oldest(self) -> About | None:
        """What the oldest is for, of all that is held."""
        with self._lock:
            found = [item.about for item in self._items.values()]
        return min(found, key=_age, default=None)

    def held(self, key: tuple[str, str]) -> list[str]:
        """Ids of what can be used for a model and a plan, oldest first."""
        with self._lock:
            found = [item.about for item in self._items.values() if item.about.key == key]
        return [about.run_id for about in sorted(found, key=_age)]

    def knows(self, run_id: str) -> bool:
        """Whether it is held, being written, or taken by a run that the peer may not know of yet."""
        with self._lock:
            return run_id in self._items or run_id in self._busy

    def is_settled(self, run_id: str) -> bool:
        """Whether it is held, and the run that dealt it has ended well here."""
        with self._lock:
            return run_id in self._items and self._items[run_id].settled

    @contextmanager
    def keeping(self, about: About, tensors: Sequence[Tensor]) -> Iterator[None]:
        """Write a file; at the end of the block it is part of the stock, unless the block raises.

        Raises:
            StoreError: the disk is full or broken; nothing is left of the file.
        """
        run_id = about.run_id
        path = self.directory / f"{run_id}{SUFFIX}"
        with self._lock:
            self._busy.add(run_id)
        try:
            with _on_disk("An inference cannot be kept"):
                writer = Writer(path, about.model_dump(), layout_of(tensors))
            try:
                with _on_disk("An inference cannot be kept"):
                    for tensor in tensors:
                        writer.add(tensor)
                    writer.finish()
                yield
                with _on_disk("An inference cannot be kept"):
                    writer.publish()
                    self._issued.add(run_id)
            except Exception:
                writer.abandon()
                durable.unlink(path)
                raise
            finally:
                writer.close()
            with self._lock:
                self._items[run_id] = _Item(about, path, writer.size, settled=False)
        finally:
            self.release(run_id)

    def settle(self, run_id: str) -> None:
        """The run that dealt it has ended well."""
        with self._lock:
            self._items[run_id].settled = True

    def peek(self, run_id: str, between: Callable[[], None]) -> list[Tensor]:
        """What one holds, in memory of its own. It is not used, and must not be before it is taken.

        Args:
            run_id: which one.
            between: called every now and then; what it raises ends this.

        Raises:
            StoreError: it is held no more, or damaged.
        """
        with self._lock:
            item = self._items.get(run_id)
        if item is None:
            raise StoreError(f"{self._role} holds this prepared inference no more.")
        with closing(Reader(item.path)) as reader:
            if _parsed(reader) != item.about:
                raise damaged(item.path)
            return reader.tensors(between=between)

    def take(self, run_id: str, key: tuple[str, str]) -> Reader:
        """Use one: it is gone from the disk, for good, before its first tensor is read from what is returned.

        Until :meth:`release` it is known to be on its way.

        Raises:
            StoreError: it has been used, belongs to another model or plan, or its description is damaged.
        """
        with self._lock:
            item = self._items.get(run_id)
            if item is None or item.about.key != key:
                raise StoreError(
                    f"{self._role} was asked for a prepared inference that it does not hold, or that"
                    " has been used: no randomness is used twice."
                )
            del self._items[run_id]
            self._busy.add(run_id)
        try:
            self._issued.burn(run_id)
        except OSError as error:  # then it must not be used; and without it there is room again
            durable.unlink(item.path)
            raise StoreError(f"A prepared inference cannot be noted as used: {error.strerror}.") from error
        with _on_disk("A prepared inference cannot be used"), ExitStack() as stack:
            try:
                reader = Reader(item.path)
                stack.callback(reader.close)
            finally:  # whatever it turns out to be
                durable.unlink(item.path)
            durable.sync_directory(self.directory)
            if _parsed(reader) != item.about:
                raise damaged(item.path)
            stack.pop_all()
        return reader

    def release(self, run_id: str) -> None:
        """The peer knows by now whether this one is held."""
        with self._lock:
            self._busy.discard(run_id)

    def drop(self, run_id: str) -> None:
        """Throw one away, if it is held."""
        with self._lock:
            item = self._items.pop(run_id, None)
        if item is not None:
            durable.unlink(item.path)
            with _on_disk("A prepared inference cannot be thrown away"):
                self._issued.burn(run_id)

    def discard(self, model_id: str) -> None:
        """Throw away all of a model's."""
        with self._lock:
            found = [run_id for run_id, item in self._items.items() if item.about.model_id == model_id]
        for run_id in found:
            self.drop(run_id)

    def close(self) -> None:
        """Let go of the journal."""
        self._issued.close()


def _age(about: About) -> tuple[float, str]:
    return about.made, about.run_id


def read_about(path: Path) -> About | None:
    """What a prepared inference is bound to; None if the file is damaged or gone."""
    try:
        reader = Reader(path)
        reader.close()
        return _parsed(reader)
    except StoreError:
        return None


def _parsed(reader: Reader) -> About:
    try:
        return About.model_validate(reader.about)
    except ValidationError as error:
        raise damaged(reader.path) from error


@contextmanager
def _on_disk(what: str) -> Iterator[None]:
    """Say what a disk's failure means."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{what}: {error.strerror}; make room in the store.") from error
