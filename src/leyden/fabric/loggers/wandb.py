"""`WandbLogger`: runs of Weights & Biases, online or offline. Needs the extra `loggers`.

The run is opened by the first row. A wrong key or project raises there; a service that does not answer is tried again by
the writer thread, and training goes on.
"""

import logging
import os
import threading
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import nn

from leyden.core import settings
from leyden.core.errors import ConfigError
from leyden.core.optional import require
from leyden.fabric.loggers.channel import Row
from leyden.fabric.loggers.hyperparameters import as_mapping, plain
from leyden.fabric.loggers.logger import rank_zero_experiment
from leyden.fabric.loggers.saved_checkpoints import CheckpointScan, LogModel, SavedCheckpoint
from leyden.fabric.loggers.threaded import ThreadedLogger
from leyden.fabric.loggers.writer_thread import flush_first_at_exit
from leyden.fabric.rank_zero import rank_zero_only, rank_zero_warn

_log = logging.getLogger(__name__)
_opening = threading.RLock()  # W&B opens one run at a time in a process; the writer thread opens runs too


class WandbLogger(ThreadedLogger):
    """Logs to a run of Weights & Biases.

    Args:
        name: The run's name on the pages.
        save_dir: Where W&B keeps its files.
        version: The run's id: the same id goes on with the same run.
        offline: Write files only; `wandb sync` uploads them later.
        id: The same as `version`.
        project: The project; else `WANDB_PROJECT`, else `lightning_logs`.
        log_model: Upload checkpoints: `True` at the end of the run, `"all"` each as it is saved.
        experiment: A run that is open already.
        prefix: Put before each metric's name, joined by `-`.
        dir: The same as `save_dir`.
        checkpoint_name: The artifact of checkpoints; `model-<id>` if absent.
        add_file_policy: `"mutable"` copies a checkpoint before the upload, `"immutable"` spares that.
        kwargs: More of `wandb.init`'s arguments, such as `entity`, `tags`, `group`, `config`, `settings`.

    Raises:
        MissingDependencyError: `wandb` is not installed.
        ConfigError: Checkpoints are to be uploaded from an offline run.

    Example:
        ```python
        logger = WandbLogger(project="digits", offline=True, save_dir="logs")
        logger.log_metrics({"loss": 0.5}, step=0)
        logger.finalize("success")
        ```
    """

    is_remote = True
    STEP: ClassVar[str] = "trainer/global_step"

    def __init__(  # noqa: PLR0913 - the documented signature
        self,
        name: str | None = None,
        save_dir: str | os.PathLike[str] = ".",
        version: str | None = None,
        offline: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        id: str | None = None,
        project: str | None = None,
        log_model: LogModel = False,  # noqa: FBT002 - the documented signature
        experiment: Any = None,
        prefix: str = "",
        *,
        dir: str | os.PathLike[str] | None = None,
        checkpoint_name: str | None = None,
        add_file_policy: Literal["mutable", "immutable"] = "mutable",
        **kwargs: Any,
    ) -> None:
        super().__init__(prefix=prefix)
        require("wandb", extra="loggers", purpose="WandbLogger")
        if offline and log_model:
            raise ConfigError(f"log_model={log_model!r} uploads checkpoints, which offline=True cannot do. Leave one of them out.")
        directory = os.fspath(save_dir if dir is None else dir)
        self._arguments: dict[str, Any] = {
            "name": name,
            "project": project or settings.environment().get("WANDB_PROJECT") or "lightning_logs",
            "dir": directory,
            "id": version or id,
            "resume": "allow",
            **({"mode": "offline"} if offline else {}),
            **kwargs,
        }
        self._directory = directory
        self._run: Any = experiment
        self._has_run_ready = False
        self._checkpoints = CheckpointScan(log_model)
        self._checkpoint_name = checkpoint_name
        self._policy = add_file_policy

    @property
    def name(self) -> str:
        """The project, as in Lightning; the run's own name is `experiment.name`."""
        return str(self._arguments["project"])

    @property
    def version(self) -> str | None:
        """The run's id, once it is known."""
        return str(self._run.id) if self._run is not None else self._arguments["id"]

    @property
    def root_dir(self) -> str:
        """Where W&B keeps its files."""
        return self._directory

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run, a `wandb.Run`; opened at the first look."""
        with _opening:
            if not self._has_run_ready:
                self._run = self._opened() if self._run is None else self._run
                self._run.define_metric(self.STEP)
                self._run.define_metric("*", step_metric=self.STEP, step_sync=True)
                self._has_run_ready = True
                flush_first_at_exit()  # W&B ends its runs at exit: our rows must be there before
        return self._run

    def log_hyperparams(self, params: Mapping[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Add to the run's config."""
        if rank_zero_only.rank == 0:
            self.experiment.config.update(plain({**as_mapping(params), **kwargs}), allow_val_change=True)

    def watch(self, model: nn.Module, log: str | None = "gradients", log_freq: int = 100, *, log_graph: bool = True) -> None:
        """Have W&B record gradients or parameters of `model` every `log_freq` backward passes."""
        self.experiment.watch(model, log=log, log_freq=log_freq, log_graph=log_graph)

    def unwatch(self, model: nn.Module) -> None:
        """Undo `watch`."""
        self.experiment.unwatch(model)

    def log_table(
        self,
        key: str,
        columns: Sequence[str] | None = None,
        data: Sequence[Sequence[Any]] | None = None,
        dataframe: Any = None,
        step: int | None = None,
    ) -> None:
        """Log a table of rows, or a pandas frame, whose cells may be media."""
        given = {"columns": columns, "data": data, "dataframe": dataframe}
        self.log_metrics({key: _wandb().Table(**{name: value for name, value in given.items() if value is not None})}, step)

    def log_text(
        self,
        key: str,
        columns: Sequence[str] | None = None,
        data: Sequence[Sequence[str]] | None = None,
        dataframe: Any = None,
        step: int | None = None,
    ) -> None:
        """Log texts, as a table."""
        self.log_table(key, columns, data, dataframe, step)

    def log_image(self, key: str, images: Sequence[Any], step: int | None = None, **kwargs: Any) -> None:
        """Log pictures (tensors, arrays, PIL images, paths); keywords are lists with one value per picture, as `caption=[…]`."""
        self._log_media("Image", key, images, step, kwargs)

    def log_audio(self, key: str, audios: Sequence[Any], step: int | None = None, **kwargs: Any) -> None:
        """Log sounds; keywords as in `log_image`."""
        self._log_media("Audio", key, audios, step, kwargs)

    def log_video(self, key: str, videos: Sequence[Any], step: int | None = None, **kwargs: Any) -> None:
        """Log videos; keywords as in `log_image`."""
        self._log_media("Video", key, videos, step, kwargs)

    def use_artifact(self, artifact: str, artifact_type: str | None = None) -> Any:
        """Return an artifact and note that this run used it."""
        return self.experiment.use_artifact(artifact, type=artifact_type)

    @staticmethod
    @rank_zero_only
    def download_artifact(artifact: str, save_dir: str | os.PathLike[str] | None = None, artifact_type: str | None = None) -> str:
        """Download an artifact and return where it lies."""
        found = _wandb().Api().artifact(artifact, type=artifact_type)
        return str(found.download(root=None if save_dir is None else os.fspath(save_dir)))

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Upload new checkpoints, if `log_model` asks for it now."""
        if rank_zero_only.rank == 0:
            self._upload(self._checkpoints.saved(checkpoint_callback))

    def finalize(self, status: str) -> None:
        """Write every row, and upload checkpoints if `log_model=True`. The run stays open: `wandb.finish()` ends it."""
        super().finalize(status)
        if rank_zero_only.rank == 0:
            self._upload(self._checkpoints.finished(status))

    def __getstate__(self) -> dict[str, Any]:
        # A run cannot travel; its id can, and opening the same id goes on with it.
        state = {**super().__getstate__(), "_run": None, "_has_run_ready": False}
        return {**state, "_arguments": {**self._arguments, "id": self.version}}

    def _sink(self) -> "RunSink":
        try:
            _ = self.experiment
        except _wandb().errors.CommError as error:
            _log.warning("W&B does not answer, and is tried again while training goes on: %s", error)
        return RunSink(self)

    def _opened(self) -> Any:
        wandb = _wandb()
        if wandb.run is not None:
            rank_zero_warn(
                f"WandbLogger logs to the W&B run {wandb.run.id!r}, which is open in this process already. "
                "Call wandb.finish() before, to get a run of its own.",
                stacklevel=6,
            )
            return wandb.run
        Path(self._directory).mkdir(parents=True, exist_ok=True)  # W&B would fall back to a temporary directory
        return wandb.init(**self._arguments)

    def _log_media(self, kind: str, key: str, media: Sequence[Any], step: int | None, kwargs: Mapping[str, Sequence[Any]]) -> None:
        if rank_zero_only.rank != 0:
            return
        if isinstance(media, (str, bytes)) or not isinstance(media, Sequence):
            raise ConfigError(f"{key!r}: expected a list, got {type(media).__name__}. Pass [{kind.lower()}] for a single one.")
        for option, values in kwargs.items():
            if len(values) != len(media):
                raise ConfigError(f"{option}= has {len(values)} values for {len(media)} of {key!r}. Pass a list with one value for each.")
        make: Callable[..., Any] = getattr(_wandb(), kind)
        made = [make(each, **{option: values[index] for option, values in kwargs.items()}) for index, each in enumerate(media)]
        self.log_metrics({key: made}, step)

    def _upload(self, checkpoints: Sequence[SavedCheckpoint]) -> None:
        for checkpoint in checkpoints:
            name = self._checkpoint_name or f"model-{self.experiment.id}"
            metadata = {"score": checkpoint.score, "original_filename": checkpoint.path.name}
            artifact = _wandb().Artifact(name=name, type="model", metadata=metadata)
            if checkpoint.path.is_dir():
                artifact.add_dir(str(checkpoint.path), policy=self._policy)
            else:
                artifact.add_file(str(checkpoint.path), name="model.ckpt", policy=self._policy)
            self.experiment.log_artifact(artifact, aliases=checkpoint.aliases)


class RunSink:
    """Hands rows to the run of a `WandbLogger`."""

    def __init__(self, logger: WandbLogger) -> None:
        self._logger = logger

    def prepare(self, entry: Row) -> dict[str, Any]:
        """Return a row as W&B takes it, with the time at which it was logged."""
        wall_time, step, values = entry
        return {**values, WandbLogger.STEP: step, "_timestamp": wall_time}

    def write(self, prepared: list[dict[str, Any]]) -> None:
        """Log rows.

        Raises:
            ConnectionError: The run could not be opened.
        """
        try:
            run = self._logger.experiment
        except _wandb().errors.CommError as error:
            raise ConnectionError(f"W&B does not answer: {error}") from error
        for row in prepared:
            run.log(row)


def _wandb() -> Any:
    return require("wandb", extra="loggers", purpose="WandbLogger")
