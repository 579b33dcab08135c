"""A deployment as one object: three processes started here, or parties that run elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from torch import Tensor

from secformer_rt.api.connections import Connections
from secformer_rt.api.model import Model
from secformer_rt.clients.ask import choose_model
from secformer_rt.clients.choices import checkpoint_preset, chosen_preset, embedding_kind
from secformer_rt.clients.cluster import LocalCluster, loopback_settings
from secformer_rt.clients.data_owner import describe
from secformer_rt.clients.main_job import checkpoint_job, describe_job
from secformer_rt.clients.model_owner import provision
from secformer_rt.clients.progress import OnProgress, ignore_progress
from secformer_rt.graph.checkpoint import default_checkpoint, load_checkpoint
from secformer_rt.graph.preset import Preset
from secformer_rt.graph.ranges import Calibration
from secformer_rt.graph.tokenizer import Tokenizer
from secformer_rt.parties.manifest import Manifest
from secformer_rt.parties.settings import Settings, load_settings

PresetChoice = str | Path | Preset
"""A preset's name, a YAML file, or a preset."""


class Cluster:
    """Two compute servers and a dealer. Use it as a context manager, or close it.

    :meth:`provision` acts as the model owner, everything else as the data owner. Each role's certificate is
    read when that role is first taken, so a program that takes one needs one.
    """

    def __init__(
        self, settings: Settings, preset: PresetChoice | None = None, parties: LocalCluster | None = None
    ) -> None:
        """Use :meth:`local` or :meth:`from_config`."""
        self.preset = None if preset is None else as_preset(preset)
        self._connections = Connections(settings, parties)

    @classmethod
    def local(cls, preset: PresetChoice | None = None, *, log: IO[str] | None = None) -> Cluster:
        """Start three parties on this machine, which end with the cluster or with this process.

        Args:
            preset: of models provisioned here; by default each checkpoint's own (see :meth:`provision`).
            log: where the parties' logs go.

        Raises:
            BadConfigError: there is no such preset.
        """
        preset = None if preset is None else as_preset(preset)  # before anything is started
        parties = LocalCluster(loopback_settings(), log)
        parties.__enter__()
        return cls(parties.settings, preset, parties)

    @classmethod
    def from_config(cls, path: str | Path, preset: PresetChoice | None = None) -> Cluster:
        """Parties that run already, as the deployment's YAML file describes them.

        Raises:
            BadConfigError: the file cannot be read, a key of it is wrong, or there is no such preset.
        """
        return cls(load_settings(Path(path)), preset)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections, and stop the parties that were started here."""
        self._connections.close()

    def provision(
        self,
        checkpoint: str | Path | None = None,
        *,
        preset: PresetChoice | None = None,
        embedding: str = "private",
        calibration: Calibration | None = None,
        calibration_texts: Sequence[str] = (),
        on_progress: OnProgress = ignore_progress,
    ) -> Model:
        """Share a checkpoint's weights between the servers, as the model owner.

        Args:
            checkpoint: a Hugging Face or sentence-transformers directory; by default all-MiniLM-L6-v2.
            preset: by default the cluster's, or else the checkpoint's own, or ``exact``.
            embedding: "private", or "public-tables" if clients may hold the embedding tables.
            calibration: the model's ranges, where they have been measured with this preset.
            calibration_texts: to measure them with, instead of the bundled texts.
            on_progress: told how far it is.

        Raises:
            SecformerError: with one sentence.
        """
        directory = None if checkpoint is None else Path(checkpoint)
        chosen = preset_for(directory, preset, self.preset)
        kind = embedding_kind(embedding)
        job = checkpoint_job(directory, (), calibration_texts=calibration_texts)
        manifest = describe_job(job, chosen, kind, on_progress, calibration)
        with self._connections.taking("model-owner") as servers:
            provisioned = provision(servers, manifest, job.parameters, on_progress)
        tables = job.parameters if kind == "public-tables" else None
        return self._model(provisioned.model_id, manifest, directory or default_checkpoint(), tables)

    def models(self) -> dict[str, Manifest]:
        """The public descriptions of all models that both servers hold, by id.

        Raises:
            SecformerError: with one sentence.
        """
        with self._connections.taking("data-owner") as servers:
            return describe(servers)

    def model(self, model_id: str | None = None, checkpoint: str | Path | None = None) -> Model:
        """A model that somebody has provisioned.

        Args:
            model_id: as its owner has told it; needed where the servers hold several.
            checkpoint: a directory with its tokenizer, by default that of all-MiniLM-L6-v2. Weights are
                read only where the model leaves the embedding to clients.

        Raises:
            SecformerError: with one sentence.
        """
        model_id, manifest = choose_model(self.models(), model_id)
        directory = default_checkpoint() if checkpoint is None else Path(checkpoint)
        tables = load_checkpoint(directory).parameters if manifest.embedding == "public-tables" else None
        return self._model(model_id, manifest, directory, tables)

    def _model(
        self, model_id: str, manifest: Manifest, directory: Path, parameters: Mapping[str, Tensor] | None
    ) -> Model:
        names = ("embeddings.table", "embeddings.positions")
        tables = None if parameters is None else {name: parameters[name] for name in names}
        tokenizer = Tokenizer.load(directory, manifest.transformer().positions)
        return Model(self._connections, model_id, manifest, tokenizer, tables)


def as_preset(choice: PresetChoice) -> Preset:
    """The preset itself.

    Raises:
        BadConfigError: there is none.
    """
    return choice if isinstance(choice, Preset) else chosen_preset(str(choice))


def preset_for(checkpoint: Path | None, *choices: PresetChoice | None) -> Preset:
    """The first choice that was made, or else what the checkpoint was trained for, or ``exact``.

    Raises:
        BadConfigError: there is no such preset.
        BadCheckpointError: the checkpoint names one in a way that is not valid.
    """
    made = next((choice for choice in choices if choice is not None), None)
    return as_preset(made or checkpoint_preset(checkpoint) or "exact")
