"""What one party keeps on disk: used runs, prepared inferences and the models they are for."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Self

from torch import Tensor

from secformer_rt.errors import BadConfigError, StoreError
from secformer_rt.parties import durable
from secformer_rt.parties.ahead import Ahead
from secformer_rt.parties.idle import Turn
from secformer_rt.parties.kept_models import KeptModels, ignore, model_size
from secformer_rt.parties.logs import say
from secformer_rt.parties.manifest import Manifest
from secformer_rt.parties.run_ids import BurntRuns
from secformer_rt.parties.settings import Store
from secformer_rt.parties.stock import Stock
from secformer_rt.protocols.model import Model
from secformer_rt.scheduler.plan import Plan

logger = logging.getLogger(__name__)


class Kept:
    """One party's part of the store; without a directory, used runs in memory and nothing else.

    Attributes:
        runs: Used runs.
        stock: Prepared inferences, of a server with a directory.
        models: Models on disk, of a server with a directory.
    """

    def __init__(self, role: str, store: Store) -> None:
        """Take the directory for this process, and clear away what cannot be used.

        Raises:
            BadConfigError: the directory cannot be made, or others can read it.
            StoreError: another process has it, or it is damaged.
        """
        self._role = role
        self.stock: Stock | None = None
        self.models: KeptModels | None = None
        self._lock: int | None = None
        if store.directory is None:
            self.runs = BurntRuns()
            return
        self._directory = store.directory / role
        self._limit_bytes = int(store.limit_gb * 1e9)
        try:
            _make_private(self._directory)
            self._lock = _locked(self._directory / "lock")
            self.runs = BurntRuns(self._directory / "runs")
            if role != "dealer":
                self.stock = Stock(self._directory, role)
                self.models = KeptModels(self._directory, role)
                self._match()
                cleared = self.stock.cleared
                if any(asdict(cleared).values()):
                    say(logger, "store cleared", logging.WARNING, **asdict(cleared))
        except OSError as error:
            raise BadConfigError(
                f"{self._directory} cannot serve as a store: {error.strerror}; correct store.directory."
            ) from error

    def _match(self) -> None:
        """An inference is of no use without its model, nor after a restart the other way round."""
        assert self.stock is not None
        assert self.models is not None
        kept, needed = self.models.ids(), self.stock.models()
        for model_id in needed - kept:
            self.stock.discard(model_id)
        for model_id in kept - needed:
            self.models.drop(model_id)

    def load_models(self, server: int) -> Iterator[tuple[str, Manifest, Model]]:
        """The models that something is prepared for, with their ids; a damaged one is thrown away."""
        for model_id in sorted(self.models.ids()) if self.models is not None else ():
            assert self.models is not None
            assert self.stock is not None
            try:
                manifest, model = self.models.load(model_id, server)
            except StoreError as error:
                say(logger, "kept model dropped", logging.WARNING, reason=str(error))
                self.models.drop(model_id)
                self.stock.discard(model_id)
            else:
                yield model_id, manifest, model

    def ahead(self, model_id: str, plan: Plan, turn: Turn) -> Ahead | None:
        """What is prepared for one run's model and plan, of a server that has a store."""
        if self.stock is None:
            return None
        return Ahead(self.stock, (model_id, plan.digest().hex()), plan, turn)

    @contextmanager
    def keeping_model(self, model_id: str, manifest: Manifest) -> Iterator[Callable[[Tensor], None]]:
        """Keep a model while it arrives, if there is room: what is passed in takes its tensors."""
        if self.models is None:
            yield ignore
            return
        try:
            self.room_for(model_size(manifest.parameters()))
        except StoreError as error:
            say(logger, "model not kept", logging.WARNING, reason=str(error))
            yield ignore
            return
        with self.models.keeping(model_id, manifest) as put:
            yield put

    def room_for(self, nbytes: int) -> Stock:
        """The stock, if so many bytes more will fit: what would not is refused before it begins.

        Raises:
            BadConfigError: this party has no store.
            StoreError: they would exceed the limit, or the disk has less room.
        """
        if self.stock is None:
            raise BadConfigError(
                f"{self._role} keeps nothing prepared: set store.directory in its configuration."
            )
        held = _size(self._directory)
        if held + nbytes > self._limit_bytes:
            raise StoreError(
                f"{self._role} would need {nbytes / 1e9:.3f} GB in its store, which holds {held / 1e9:.3f} of"
                f" {self._limit_bytes / 1e9:g} GB: prepare fewer, or raise store.limit_gb."
            )
        free = shutil.disk_usage(self._directory).free
        if nbytes > free:
            raise StoreError(
                f"{self._role} would need {nbytes / 1e9:.3f} GB in its store, and its disk has"
                f" {free / 1e9:.3f} GB: prepare fewer, or make room."
            )
        return self.stock

    def close(self) -> None:
        """Let go of the directory."""
        self.runs.close()
        if self.stock is not None:
            self.stock.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _size(directory: Path) -> int:
    """Bytes of its files."""
    total = 0
    for path in directory.iterdir():
        with suppress(FileNotFoundError):  # used in this moment
            total += path.stat().st_size
    return total


def _make_private(directory: Path) -> None:
    """A directory that nobody else can look into.

    Raises:
        BadConfigError: it is there, and others can.
    """
    directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    mode = stat.S_IMODE(directory.stat().st_mode)
    if mode & 0o077:
        raise BadConfigError(f"{directory} can be read by others (mode {mode:04o}): chmod 700 it.")
    durable.sync_directory(directory.parent)


def _locked(path: Path) -> int:
    """Hold a file for this process, until it ends.

    Raises:
        StoreError: another process has it.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise StoreError(
            f"{path.parent} is in use by another process: stop that one, or set another store.directory."
        ) from error
    return handle
