"""`VersionedLogger`: a threaded logger whose files lie in `<root>/<name>/version_<n>`. Abstract."""

import os
import re
from abc import ABC
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from leyden.core.errors import ConfigError
from leyden.core.files import storage_error
from leyden.fabric.loggers.channel import LIMIT
from leyden.fabric.loggers.hyperparameters import write_yaml
from leyden.fabric.loggers.threaded import ThreadedLogger
from leyden.fabric.rank_zero import rank_zero_only

_VERSION = re.compile(r"version_(\d+)")


class VersionedLogger(ThreadedLogger, ABC):
    """A logger with a directory per version.

    Args:
        root_dir: The directory below which all experiments lie; `~` and `$VARIABLES` are expanded.
        name: The experiment, a directory below it; `None` or `""` for none.
        version: A number, a string that is taken as it is, or `None` for the next free number.
        prefix: As for `ThreadedLogger`.
        flush_every: As for `ThreadedLogger`.
    """

    NAME_HPARAMS_FILE: ClassVar[str] = "hparams.yaml"

    def __init__(
        self, root_dir: str | os.PathLike[str], name: str | None, version: int | str | None, *, prefix: str, flush_every: int = LIMIT
    ) -> None:
        super().__init__(prefix=prefix, flush_every=flush_every)
        self._root_dir = local_directory(root_dir)
        self._name = name or ""
        self._version = version
        self._is_new = version is None
        self._hyperparameters: dict[str, Any] = {}

    @property
    def root_dir(self) -> str:
        """The directory below which all experiments lie."""
        return str(self._root_dir)

    @property
    def name(self) -> str:
        """The name of the experiment."""
        return self._name

    @property
    def version(self) -> int | str:
        """The version of the experiment; on rank 0 a free number is taken, and its directory made, at the first look."""
        if self._version is None:
            self._version = claim_version(self._root_dir / self._name, is_claimed=rank_zero_only.rank == 0)
        return self._version

    @property
    def log_dir(self) -> str:
        """The directory of this version."""
        return str(self._directory())

    @property
    def hparams(self) -> dict[str, Any]:
        """The hyper-parameters logged so far."""
        return self._hyperparameters

    def _store_hyperparameters(self, params: Mapping[str, Any]) -> None:
        self._hyperparameters.update(params)
        write_yaml(self._directory() / self.NAME_HPARAMS_FILE, self._hyperparameters)

    def _directory(self) -> Path:
        version = self.version
        return self._root_dir / self._name / (version if isinstance(version, str) else f"version_{version}")


def local_directory(path: str | os.PathLike[str]) -> Path:
    """Return `path` with `~` and `$VARIABLES` expanded.

    Raises:
        ConfigError: It is a URL.
    """
    text = os.path.expandvars(os.fspath(path))
    if "://" in text:
        raise ConfigError(
            f"root_dir={text!r} is a URL, and rows are appended to local files. Log to a local directory and upload it when the run ends."
        )
    return Path(text).expanduser()


def claim_version(directory: Path, *, is_claimed: bool = True) -> int:
    """Return the next free number among `version_<n>` in `directory`.

    Args:
        directory: Where versions lie; it may be absent.
        is_claimed: Whether the version's directory is made, so that nobody else gets the same number.

    Raises:
        StorageError: The directory cannot be read or written.
    """
    try:
        if not is_claimed:
            return _next_version(directory)
        directory.mkdir(parents=True, exist_ok=True)
        while True:
            version = _next_version(directory)
            try:
                (directory / f"version_{version}").mkdir()
            except FileExistsError:  # two jobs that start together see the same free number: only one can make it
                continue
            return version
    except OSError as error:
        raise storage_error(error, directory) from error


def _next_version(directory: Path) -> int:
    try:
        names = os.listdir(directory)  # noqa: PTH208 - names, not paths
    except FileNotFoundError:
        return 0
    return max((int(match[1]) for name in names if (match := _VERSION.fullmatch(name))), default=-1) + 1
