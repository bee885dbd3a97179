"""`CSVLogger`: one line per row in `metrics.csv`, which spreadsheets, pandas and people read.

Columns are sorted. A row with a new name rewrites the file once, atomically; every other flush is one `open` and one
`write` at the end of it. A killed process leaves at most half a line, which `resume=True` removes.
"""

import csv
import io
import os
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from leyden.core.errors import ConfigError
from leyden.core.files import atomic_file
from leyden.fabric.loggers.append import append_or_undo
from leyden.fabric.loggers.channel import Row
from leyden.fabric.loggers.hyperparameters import as_mapping
from leyden.fabric.loggers.logger import rank_zero_experiment
from leyden.fabric.loggers.versioned import VersionedLogger
from leyden.fabric.rank_zero import rank_zero_only, rank_zero_warn


class CSVLogger(VersionedLogger):
    """Logs to `<root_dir>/<name>/version_<n>/metrics.csv` and `hparams.yaml`.

    Args:
        root_dir: The directory below which all experiments lie.
        name: The experiment's directory below it.
        version: A number, a string that is taken as it is, or `None` for the next free number. The rows of a version that
            exists are replaced, with a warning, unless `resume`.
        prefix: Put before each metric's name, joined by `-`.
        flush_logs_every_n_steps: Rows are on disk after so many, and after a second, whatever comes first.
        save_dir: The same as `root_dir`.
        resume: Append to the rows of an existing `version`; those at or after the first new step are dropped.

    Raises:
        ConfigError: No directory, or two; or `resume` without `version`; or less than one row per flush.

    Example:
        ```python
        logger = CSVLogger("logs")
        logger.log_metrics({"loss": 0.5}, step=0)
        logger.save()                                  # logs/lightning_logs/version_0/metrics.csv
        ```
    """

    NAME_METRICS_FILE: ClassVar[str] = "metrics.csv"

    def __init__(
        self,
        root_dir: str | os.PathLike[str] | None = None,
        name: str | None = "lightning_logs",
        version: int | str | None = None,
        prefix: str = "",
        flush_logs_every_n_steps: int = 100,
        *,
        save_dir: str | os.PathLike[str] | None = None,
        resume: bool = False,
    ) -> None:
        if (root_dir is None) == (save_dir is None):
            raise ConfigError(f"root_dir={root_dir!r} and save_dir={save_dir!r} are one directory: pass exactly one, as CSVLogger('logs').")
        if flush_logs_every_n_steps < 1:
            raise ConfigError(f"flush_logs_every_n_steps={flush_logs_every_n_steps} should be at least 1, and is 100 if absent.")
        if resume and version is None:
            raise ConfigError("resume=True needs the version that goes on, for example: CSVLogger('logs', version=3, resume=True).")
        directory = root_dir if root_dir is not None else save_dir
        assert directory is not None  # noqa: S101 - for the type checker: exactly one is given
        super().__init__(directory, name, version, prefix=prefix, flush_every=flush_logs_every_n_steps)
        self._resume = resume
        self._file: CSVFile | None = None

    @property
    @rank_zero_experiment
    def experiment(self) -> "CSVExperiment":
        """The rows that wait, and where they go."""
        return CSVExperiment(self)

    @property
    def metrics_file(self) -> Path:
        """The file that rows go to."""
        return self._directory() / self.NAME_METRICS_FILE

    @property
    def pending_rows(self) -> list[dict[str, Any]]:
        """The rows not yet handed over to the file, as dictionaries with `step`."""
        channel = self._channel
        return [] if channel is None else [{**row[2], "step": row[1]} for row in list(channel.pending) if isinstance(row, tuple)]

    def log_hyperparams(self, params: Mapping[str, Any] | Namespace | None = None, *args: Any, **kwargs: Any) -> None:
        """Add `params` (and keywords) to `hparams.yaml`.

        Raises:
            ConfigTypeError: `params` are no mapping, namespace or dataclass.
            StorageError: The file cannot be written.
        """
        if rank_zero_only.rank == 0:
            self._store_hyperparameters({**as_mapping(params), **kwargs})

    def _sink(self) -> "CSVFile":
        if self._file is None:
            path = self.metrics_file
            if not self._is_new and not self._resume and path.exists():
                rank_zero_warn(
                    f"{str(path)!r} exists and is not resumed: its rows are replaced. "
                    "Use another version, version=None for the next free one, or resume=True to append.",
                    stacklevel=6,
                )
                path.unlink()
            self._file = CSVFile(path)
            if self._resume:
                self._next_step = max(self._next_step, self._file.last_step() + 1)
        return self._file


class CSVExperiment:
    """`CSVLogger.experiment`: a view of the logger with the names that code written for Lightning uses."""

    def __init__(self, logger: CSVLogger) -> None:
        self._logger = logger

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows not yet handed over to the file."""
        return self._logger.pending_rows

    @property
    def log_dir(self) -> str:
        """The directory of the files."""
        return self._logger.log_dir

    @property
    def metrics_file_path(self) -> str:
        """The file that rows go to."""
        return str(self._logger.metrics_file)

    def log_metrics(self, metrics_dict: Mapping[str, Any], step: int | None = None) -> None:
        """Queue a row."""
        self._logger.log_metrics(metrics_dict, step)

    def log_hparams(self, params: Mapping[str, Any]) -> None:
        """Add to `hparams.yaml`."""
        self._logger.log_hyperparams(params)

    def save(self) -> None:
        """Write every row logged so far."""
        self._logger.save()


class CSVFile:
    """A CSV file that grows by rows and by columns. A file that is there already is continued.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._columns: list[str] | None = None

    def prepare(self, entry: Row) -> dict[str, Any]:
        """Return a row as a dictionary with `step`."""
        _, step, values = entry
        return {**values, "step": step}

    def write(self, prepared: list[dict[str, Any]]) -> None:
        """Add rows at the end.

        Raises:
            OSError: The file cannot be written; it is as it was before.
        """
        columns, old = self._resumed(int(prepared[0]["step"])) if self._columns is None else (self._columns, None)
        known = set(columns)
        if new := {name for row in prepared for name in row if name not in known}:
            columns = sorted(known | new)
        if new or old is not None or not self.path.exists():
            self._rewrite(columns, self._read()[1] if old is None else old, prepared)
        else:
            self._append(columns, prepared)
        self._columns = columns

    def last_step(self) -> int:
        """Return the largest step in the file, -1 if there is none."""
        return max((_step_of(row) for row in self._read()[1]), default=-1)

    def _resumed(self, first_step: int) -> tuple[list[str], list[dict[str, Any]]]:
        # The first rows of this process: what an earlier one wrote from there on, it wrote in a past that did not happen.
        columns, rows = self._read()
        return columns, [row for row in rows if 0 <= _step_of(row) < first_step]

    def _read(self) -> tuple[list[str], list[dict[str, Any]]]:
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return [], []
        whole = text[: text.rfind("\n") + 1]  # a killed process may have left half a line
        reader = csv.DictReader(io.StringIO(whole, newline=""))
        return sorted(reader.fieldnames or ()), list(reader)

    def _rewrite(self, columns: list[str], old: Iterable[dict[str, Any]], new: list[dict[str, Any]]) -> None:
        with atomic_file(self.path, "w", durable=False) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            for rows in (old, new):
                writer.writerows([[row.get(name, "") for name in columns] for row in rows])

    def _append(self, columns: list[str], rows: list[dict[str, Any]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([[row.get(name, "") for name in columns] for row in rows])
        append_or_undo(self.path, text.getvalue().encode())


def _step_of(row: Mapping[str, Any]) -> int:
    try:
        return int(row["step"])
    except (KeyError, TypeError, ValueError):
        return -1
