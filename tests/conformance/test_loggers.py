"""The loggers of fabric keep the promises; so does a foreign one of a few lines. Real packages, offline."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from leyden.fabric.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from leyden.fabric.loggers.logger import rank_zero_experiment
from leyden.fabric.rank_zero import rank_zero_only
from leyden.fabric.testing import LoggerConformance, ThreadedLoggerConformance
from leyden.fabric.testing.logger import Points
from tests.support.event_files import read_scalars
from tests.support.wandb_files import read_history


class JSONLogger(Logger):
    """A foreign logger: a line of JSON per row."""

    name = "json"
    version = 0

    def __init__(self, root: Path) -> None:
        self.file = root / "rows.jsonl"

    @property
    @rank_zero_experiment
    def experiment(self) -> Path:
        return self.file

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        with self.file.open("a") as file:
            file.write(json.dumps([step, dict(metrics)]) + "\n")

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        self.hparams = dict(params)


class TestForeign(LoggerConformance):
    def make(self, root: Path, **options: Any) -> Logger:
        return JSONLogger(root)

    def read(self, logger: Logger, root: Path) -> Points:
        rows = [json.loads(line) for line in (root / "rows.jsonl").read_text().splitlines()]
        return [(name, step, value) for step, metrics in rows for name, value in metrics.items()]


class TestCSV(ThreadedLoggerConformance):
    def make(self, root: Path, **options: Any) -> Logger:
        return CSVLogger(root, **options)

    def read(self, logger: Logger, root: Path) -> Points:
        with (Path(str(logger.log_dir)) / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        return [(name, int(row["step"]), float(text)) for row in rows for name, text in row.items() if name != "step" and text]


class TestTensorBoard(ThreadedLoggerConformance):
    def make(self, root: Path, **options: Any) -> Logger:
        return TensorBoardLogger(root, default_hp_metric=False, **options)

    def read(self, logger: Logger, root: Path) -> Points:
        return read_scalars(Path(str(logger.log_dir)))


class TestWandb(ThreadedLoggerConformance):
    @pytest.fixture(autouse=True)
    def _wandb(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        wandb = pytest.importorskip("wandb")
        monkeypatch.setenv("WANDB_SILENT", "true")
        yield
        wandb.finish()

    def make(self, root: Path, **options: Any) -> Logger:
        import wandb

        return WandbLogger(save_dir=root, offline=True, settings=wandb.Settings(console="off", x_disable_stats=True), **options)

    def read(self, logger: Logger, root: Path) -> Points:
        logger.experiment.finish()
        return read_history(root)


class TestMLFlow(ThreadedLoggerConformance):
    @pytest.fixture(autouse=True)
    def _mlflow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("mlflow")
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # quick; the database is in tests/integration
        monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")

    def make(self, root: Path, **options: Any) -> Logger:
        return MLFlowLogger("suite", tracking_uri=root.as_uri(), **options)

    def read(self, logger: Logger, root: Path) -> Points:
        assert isinstance(logger, MLFlowLogger)
        client, run_id = logger.experiment, str(logger.run_id)
        names = client.get_run(run_id).data.metrics
        return [(name, point.step, point.value) for name in names for point in client.get_metric_history(run_id, name)]
