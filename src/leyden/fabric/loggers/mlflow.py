"""`MLFlowLogger`: runs of an MLflow tracking server, or of a local database. Needs the extra `loggers`.

The run is opened by the writer thread when the first rows are there, or at the first look at `experiment` or `run_id`.
Rows travel in batches of a thousand metrics. A server that does not answer is tried again; training goes on.
"""

import itertools
import os
import threading
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from leyden.core import settings
from leyden.core.optional import installed, require
from leyden.fabric.loggers.channel import Row
from leyden.fabric.loggers.hyperparameters import flatten
from leyden.fabric.loggers.logger import rank_zero_experiment
from leyden.fabric.loggers.saved_checkpoints import CheckpointScan, LogModel, SavedCheckpoint
from leyden.fabric.loggers.threaded import ThreadedLogger
from leyden.fabric.loggers.versioned import local_directory
from leyden.fabric.loggers.writer_thread import flush_first_at_exit
from leyden.fabric.rank_zero import rank_zero_only

_METRICS_PER_BATCH = 1000  # MLflow's own limits per request
_PARAMS_PER_BATCH = 100
_PARAM_LENGTH = 6000
_STATUS = {"success": "FINISHED", "finished": "FINISHED", "failed": "FAILED", "aborted": "KILLED"}
_TRANSIENT = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED")


class MLFlowLogger(ThreadedLogger):
    """Logs to a run of MLflow.

    Args:
        experiment_name: The experiment; made if it is not there.
        run_name: The run's name on the pages.
        tracking_uri: The server or store; else `MLFLOW_TRACKING_URI`, else a SQLite database in `save_dir`, or the files
            that are there already.
        tags: Tags of the run.
        save_dir: The local store, where no `tracking_uri` is given.
        log_model: Upload checkpoints: `True` at the end of the run, `"all"` each as it is saved.
        prefix: Put before each metric's name, joined by `-`.
        artifact_location: Where a new experiment keeps its files.
        run_id: A run to go on with.

    Raises:
        MissingDependencyError: `mlflow` is not installed.

    Example:
        ```python
        logger = MLFlowLogger("digits", save_dir="mlruns")
        logger.log_metrics({"loss": 0.5}, step=0)
        logger.finalize("success")                     # mlflow ui --backend-store-uri sqlite:///mlruns/mlflow.db
        ```
    """

    is_remote = True
    DATABASE: ClassVar[str] = "mlflow.db"

    def __init__(  # noqa: PLR0913 - the documented signature
        self,
        experiment_name: str = "lightning_logs",
        run_name: str | None = None,
        tracking_uri: str | None = None,
        tags: Mapping[str, Any] | None = None,
        save_dir: str | os.PathLike[str] | None = "./mlruns",
        log_model: LogModel = False,  # noqa: FBT002 - the documented signature
        prefix: str = "",
        artifact_location: str | None = None,
        run_id: str | None = None,
    ) -> None:
        super().__init__(prefix=prefix)
        require("mlflow", extra="loggers", purpose="MLFlowLogger")
        self._experiment_name = experiment_name
        self._run_name = run_name
        self._directory = None if save_dir is None else local_directory(save_dir)
        self._uri = tracking_uri or settings.environment().get("MLFLOW_TRACKING_URI") or _local_store(self._directory)
        self._tags = {str(name): str(value) for name, value in (tags or {}).items()}
        self._artifact_location = artifact_location or _local_artifacts(self._uri, self._directory)
        self._run_id = run_id
        self._experiment_id: str | None = None
        self._client: Any = None
        self._checkpoints = CheckpointScan(log_model)
        self._opening = threading.Lock()

    @property
    def name(self) -> str | None:
        """The experiment's id, as in Lightning."""
        return self.experiment_id

    @property
    def version(self) -> str | None:
        """The run's id."""
        return self.run_id

    @property
    def root_dir(self) -> str | None:
        """The local store; `None` where rows go to a server."""
        return str(self._directory) if self._directory is not None and self._uri.startswith(("file:", "sqlite:")) else None

    @property
    def tracking_uri(self) -> str:
        """The server or store."""
        return self._uri

    @property
    def run_id(self) -> str | None:
        """The run's id; the run is made at the first look, on rank 0."""
        if self._run_id is None:
            _ = self.experiment
        return self._run_id

    @property
    def experiment_id(self) -> str | None:
        """The experiment's id; the run is made at the first look, on rank 0."""
        if self._experiment_id is None:
            _ = self.experiment
        return self._experiment_id

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The `mlflow.tracking.MlflowClient`, with the run opened: `experiment.log_artifact(logger.run_id, "plot.png")`."""
        with self._opening:  # the writer thread opens it too
            if self._client is None:
                self._client = self._opened()
        return self._client

    def log_hyperparams(self, params: Mapping[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Add parameters to the run; nested ones are flattened with `/`, long ones cut after 6,000 characters."""
        if rank_zero_only.rank != 0:
            return
        entities = require("mlflow.entities", extra="loggers", purpose="MLFlowLogger")
        flat = {**flatten(params), **flatten(kwargs)}
        for part in _parts([entities.Param(name, str(value)[:_PARAM_LENGTH]) for name, value in flat.items()], _PARAMS_PER_BATCH):
            self.experiment.log_batch(run_id=self.run_id, params=part)

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Upload new checkpoints, if `log_model` asks for it now."""
        if rank_zero_only.rank == 0:
            self._upload(self._checkpoints.saved(checkpoint_callback))

    def finalize(self, status: str) -> None:
        """Write every row, upload checkpoints if `log_model=True`, and end the run.

        Args:
            status: `"success"`, `"failed"` or `"aborted"`.
        """
        super().finalize(status)
        if rank_zero_only.rank == 0 and self._client is not None:
            self._upload(self._checkpoints.finished(status))
            self._client.set_terminated(self._run_id, _STATUS.get(status, "FINISHED"))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name not in ("_client", "_opening")}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state, _client=None, _opening=threading.Lock())

    def _sink(self) -> "BatchSink":
        return BatchSink(self)

    def _opened(self) -> Any:
        if self._uri.startswith("sqlite:///"):
            Path(self._uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        client = require("mlflow.tracking", extra="loggers", purpose="MLFlowLogger").MlflowClient(self._uri)
        if self._run_id is not None:
            self._experiment_id = client.get_run(self._run_id).info.experiment_id
        else:
            self._experiment_id = self._found_or_made(client)
            tags = {**self._tags, **({"mlflow.runName": self._run_name} if self._run_name else {})}
            self._run_id = client.create_run(self._experiment_id, tags=tags).info.run_id
        flush_first_at_exit()
        return client

    def _found_or_made(self, client: Any) -> str:
        errors = require("mlflow.exceptions", extra="loggers", purpose="MLFlowLogger")
        found = client.get_experiment_by_name(self._experiment_name)
        if found is None:
            try:
                return str(client.create_experiment(self._experiment_name, artifact_location=self._artifact_location))
            except errors.MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = client.get_experiment_by_name(self._experiment_name)  # another job made it meanwhile
        return str(found.experiment_id)

    def _upload(self, checkpoints: Sequence[SavedCheckpoint]) -> None:
        for checkpoint in checkpoints:
            place = f"model/checkpoints/{checkpoint.path.stem}"
            if checkpoint.path.is_dir():
                self.experiment.log_artifacts(self.run_id, str(checkpoint.path), place)
            else:
                self.experiment.log_artifact(self.run_id, str(checkpoint.path), place)


class BatchSink:
    """Hands rows to the run of an `MLFlowLogger`, many at a time."""

    def __init__(self, logger: MLFlowLogger) -> None:
        self._logger = logger
        self._metric: Any = require("mlflow.entities", extra="loggers", purpose="MLFlowLogger").Metric
        self._error: Any = require("mlflow.exceptions", extra="loggers", purpose="MLFlowLogger").MlflowException

    def prepare(self, entry: Row) -> list[Any]:
        """Return a row as MLflow's metrics.

        Raises:
            TypeError: A value is no number.
        """
        wall_time, step, values = entry
        timestamp = int(wall_time * 1000)
        return [self._metric(key=name, value=float(value), timestamp=timestamp, step=step) for name, value in values.items()]

    def write(self, prepared: list[list[Any]]) -> None:
        """Log metrics.

        Raises:
            ConnectionError: The server does not answer.
        """
        try:
            client, run_id = self._logger.experiment, self._logger.run_id
            for part in _parts(itertools.chain.from_iterable(prepared), _METRICS_PER_BATCH):
                client.log_batch(run_id=run_id, metrics=part)
        except self._error as error:
            if error.error_code in _TRANSIENT:
                raise ConnectionError(f"MLflow at {self._logger.tracking_uri!r} does not answer: {error}") from error
            raise


def _parts(values: Iterable[Any], size: int) -> Iterable[list[Any]]:
    iterator = iter(values)
    while part := list(itertools.islice(iterator, size)):
        yield part


def _local_store(directory: Path | None) -> str:
    path = (directory or Path("mlruns")).absolute()
    has_files = any(path.glob("*/meta.yaml"))  # a store that MLflow 2 made
    # MLflow 3 refuses to begin a store of files; the database needs packages that mlflow-skinny does not bring.
    if has_files or not (installed("sqlalchemy") and installed("alembic")):
        return path.as_uri()
    return f"sqlite:///{path / MLFlowLogger.DATABASE}"


def _local_artifacts(uri: str, directory: Path | None) -> str | None:
    is_own_database = directory is not None and uri == f"sqlite:///{directory.absolute() / MLFlowLogger.DATABASE}"
    return (directory.absolute() / "artifacts").as_uri() if is_own_database and directory is not None else None
