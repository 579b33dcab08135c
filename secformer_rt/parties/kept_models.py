"""The models that a server has prepared inferences for, on disk: without its model none could be used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from secformer_rt.graph.ir import Graph
from secformer_rt.parties import durable
from secformer_rt.parties.logs import say
from secformer_rt.parties.manifest import Manifest
from secformer_rt.parties.sealed import HEADER_BYTES, Layout, Reader, Writer, damaged
from secformer_rt.protocols.model import Model
from secformer_rt.ring.buffers import as_bytes
from secformer_rt.ring.prg import SEED_BYTES, SecretSeed
from secformer_rt.scheduler.provisioning import add_parameter, is_masked

logger = logging.getLogger(__name__)

SUFFIX: Final = ".model"


class _About(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    role: str
    model_id: str
    manifest: Manifest


def _layout(graph: Graph) -> Layout:
    """The seed of the masks; of each parameter a share and, if it is multiplied, the public form."""
    layout: list[tuple[str, tuple[int, ...]]] = [("uint8", (SEED_BYTES,))]
    for parameter in graph.parameters:
        layout += [("int64", parameter.shape)] * (2 if is_masked(parameter) else 1)
    return layout


def model_size(graph: Graph) -> int:
    """Bytes of a model on disk, or a little more."""
    words = sum(prod(shape) for _, shape in _layout(graph)[1:])
    return 8 * words + 8 * HEADER_BYTES


class KeptModels:
    """The files of one server."""

    def __init__(self, directory: Path, role: str) -> None:
        self._directory, self._role = directory, role

    def _path(self, model_id: str) -> Path:
        return self._directory / f"{model_id}{SUFFIX}"

    def ids(self) -> set[str]:
        """Of the models on disk."""
        return {path.stem for path in self._directory.glob(f"*{SUFFIX}")}

    def drop(self, model_id: str) -> None:
        """Throw one away."""
        durable.unlink(self._path(model_id))

    @contextmanager
    def keeping(self, model_id: str, manifest: Manifest) -> Iterator[Callable[[Tensor], None]]:
        """Write a model while it arrives: what is passed in takes its tensors, in the order of the layout.

        A disk that fails ends the writing, not the provisioning: the model is then in memory only.
        """
        about = _About(role=self._role, model_id=model_id, manifest=manifest)
        try:
            writer = Writer(
                self._path(model_id), about.model_dump(mode="json"), _layout(manifest.parameters())
            )
        except OSError as error:
            _warn(error)
            yield ignore
            return
        failed = False

        def put(tensor: Tensor) -> None:
            nonlocal failed
            if failed:
                return
            try:
                writer.add(tensor)
            except OSError as error:
                failed = True
                writer.abandon()
                _warn(error)

        try:
            yield put
            if not failed:
                writer.finish()
                writer.publish()
        except OSError as error:
            writer.abandon()
            _warn(error)
        except Exception:
            writer.abandon()
            raise
        finally:
            writer.close()

    def load(self, model_id: str, server: int) -> tuple[Manifest, Model]:
        """A model as provisioning has left it.

        Raises:
            StoreError: it is damaged.
        """
        path = self._path(model_id)
        reader = Reader(path)
        try:
            about = _About.model_validate(reader.about)
            if (about.role, about.model_id) != (self._role, model_id):
                raise damaged(path)
            seed, *words = reader.tensors()
        except ValidationError as error:
            raise damaged(path) from error
        finally:
            reader.close()
        manifest, model, parts = about.manifest, Model(), iter(words)
        lowering, secret = manifest.provisioning(), SecretSeed(bytes(as_bytes(seed)))
        for parameter in lowering.graph.parameters:
            # Copies: a view would keep all of the file's bytes in memory.
            share = next(parts).clone()
            public = next(parts).clone() if is_masked(parameter) else None
            bits, ring = manifest.preset.fixed_point, lowering.rings.weight(parameter.name)
            add_parameter(model, server, lowering.graph, parameter, share, public, secret, bits, ring)
        return manifest, model


def ignore(_: Tensor) -> None:
    """Keep nothing."""


def _warn(error: OSError) -> None:
    say(logger, "model not kept", logging.WARNING, reason=error.strerror or type(error).__name__)
