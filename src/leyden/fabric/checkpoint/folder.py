"""`CheckpointFolder`: numbered checkpoints in one directory, `latest`, pruning, and resuming from the newest good one."""

import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from leyden.core import files, job
from leyden.core.errors import ConfigError, ConfigTypeError, CorruptDataError, NotFoundError
from leyden.core.failpoints import failpoint
from leyden.core.storage import is_url, open_storage
from leyden.fabric.checkpoint import publish, remote, saver
from leyden.fabric.checkpoint.layout import META, is_complete
from leyden.fabric.checkpoint.opening import LATEST
from leyden.fabric.checkpoint.writer import process_writer

_PINNED = "pinned"
_DIGITS = 8
_Names: TypeAlias = list[str]  # inside the class, `list` is a method


class CheckpointFolder:
    """Saves `step-00000100`, `step-00000200`, … and finds the newest one again.

    `latest`, a text file with a name, moves after a checkpoint is complete and before old ones are deleted, so it always
    names a whole one. Every rank calls every method.

    Args:
        fabric: Saves and loads.
        directory: A path or URL. `None`: `checkpoints` in the step directory of the Leyden job this runs in.
        keep_last: How many of the newest to keep; `None` keeps all.
        keep_every: Steps that are a multiple of this are kept too.
        prefix: What names begin with.

    Raises:
        ConfigError: No directory outside of a job; a number below 1; `keep_every` without `keep_last`.

    Example:
        ```python
        checkpoints = CheckpointFolder(fabric, "runs/demo", keep_last=3)
        checkpoints.resume(state)
        checkpoints.save(state, step=state["step"])
        ```
    """

    def __init__(
        self,
        fabric: "SavingFabric",
        directory: str | Path | None = None,
        *,
        keep_last: int | None = None,
        keep_every: int | None = None,
        prefix: str = "step-",
    ) -> None:
        self.fabric = fabric
        self.directory = _directory(directory)
        self.keep_last = _positive("keep_last", keep_last)
        self.keep_every = _positive("keep_every", keep_every)
        if self.keep_every is not None and self.keep_last is None:
            raise ConfigError(f"keep_every={keep_every} has no effect without keep_last: all checkpoints are kept. Pass keep_last=3 too.")
        if re.fullmatch(r"[A-Za-z0-9_.=-]*", prefix) is None:
            raise ConfigError(f"prefix={prefix!r}: accepted are letters, digits and any of _ . = -, such as 'step-'.")
        self.prefix = prefix
        self._place: _Place = _UrlPlace(self.directory) if remote.is_remote(self.directory) else _LocalPlace(Path(self.directory))

    def save(self, state: dict[str, Any], step: int, *, blocking: bool = False, pinned: bool = False) -> str:
        """Save as the checkpoint of a step, move `latest`, prune; returns the path.

        Args:
            state: As for `Fabric.save`.
            step: The step's number.
            blocking: Whether to return only when all of that is done; else it happens in the background.
            pinned: Whether pruning spares it for good.

        Raises:
            ConfigTypeError: `step` is no integer ≥ 0.
            StorageError: This save, or the asynchronous one before it, failed; older checkpoints are still there.
        """
        if isinstance(step, bool) or not isinstance(step, int) or step < 0:
            raise ConfigTypeError(f"save(state, step={step!r}): expected an integer of at least 0, such as state['step'].")
        name = f"{self.prefix}{step:0{_DIGITS}d}"
        if pinned and self.fabric.global_rank == 0:
            saver.wait_for_saves()  # the background may be reading the list
            self._place.write(_PINNED, "".join(f"{each}\n" for each in sorted({*self._pinned(), name})))
        path = self._place.path(name)
        self.fabric.save(path, state, blocking=blocking)
        if self.fabric.global_rank == 0:
            process_writer().then(lambda: self._published(name))
        return path

    def resume(self, state: dict[str, Any], which: str | int = "latest") -> bool:
        """Load the newest complete checkpoint into `state`; False if there is none.

        Damaged ones are skipped with a warning each, since an older one is better than none.

        Args:
            state: As for `Fabric.load`.
            which: `"latest"`, or the step or name of one checkpoint, which then must load.

        Raises:
            NotFoundError: `which` names a checkpoint that is not there.
            ConfigError: The state does not fit the checkpoint; an older one would not fit either.
        """
        process_writer().settle()
        if which != LATEST:
            name = f"{self.prefix}{which:0{_DIGITS}d}" if isinstance(which, int) else which
            self.fabric.load(self._place.path(name), state)
            return True
        names: _Names = self.fabric.strategy.broadcast(self._candidates() if self.fabric.global_rank == 0 else [])
        for name in names:
            try:
                self.fabric.load(self._place.path(name), state)
            except (CorruptDataError, NotFoundError) as error:
                if isinstance(error, KeyError):
                    raise  # a key the state asks for: not damage
                warnings.warn(f"the checkpoint {name} cannot be loaded, trying the one before: {error}", stacklevel=2)
            else:
                return True
        if names:
            raise CorruptDataError(f"none of the {len(names)} checkpoints in {self.directory} can be loaded; the warnings say why.")
        return False

    def list(self) -> _Names:
        """Return the paths of the complete checkpoints, by step."""
        return [self._place.path(name) for name in self._names()]

    def latest(self) -> str | None:
        """Return the path of the newest complete checkpoint, or `None`."""
        process_writer().settle()
        candidates = self._candidates()
        return self._place.path(candidates[0]) if candidates else None

    def _published(self, name: str) -> None:
        failpoint("checkpoint.latest")
        self._place.write(LATEST, f"{name}\n")
        failpoint("checkpoint.before_prune")
        if self.keep_last is None:
            return
        newest_first = self._newest_first(self._names(), name)
        spared = {name, *newest_first[: self.keep_last], *self._pinned()}
        for old in newest_first:
            is_multiple = self.keep_every is not None and self._step(old) % self.keep_every == 0
            if old not in spared and not is_multiple:
                self._place.remove(old)

    def _names(self) -> _Names:
        pattern = re.compile(re.escape(self.prefix) + rf"\d{{{_DIGITS},}}")
        return sorted((name for name in self._place.names() if pattern.fullmatch(name)), key=self._step)

    def _step(self, name: str) -> int:
        return int(name.removeprefix(self.prefix))

    def _newest_first(self, names: _Names, latest: str) -> _Names:
        """Order by age: what has a higher step than the newest save is left over from before a resume at an older step."""
        step = self._step(latest)
        return sorted(names, key=lambda name: (self._step(name) <= step, self._step(name)), reverse=True)

    def _candidates(self) -> _Names:
        """Return what `resume` tries, in order: published after `latest` last moved, `latest` itself, older ones."""
        names = self._names()
        latest = (self._place.read(LATEST) or "").strip()
        if latest not in names:
            return names[::-1]
        unmarked = [name for name in names if self._step(name) > self._step(latest) and self._place.is_newer(name, LATEST)]
        older = [name for name in names if self._step(name) < self._step(latest)]
        return [*unmarked[::-1], latest, *older[::-1]]

    def _pinned(self) -> _Names:
        return (self._place.read(_PINNED) or "").split()


class SavingFabric(Protocol):
    """What a `CheckpointFolder` needs of a `Fabric`."""

    @property
    def global_rank(self) -> int:
        """This process's rank."""

    @property
    def strategy(self) -> Any:
        """Broadcasts."""

    def save(self, path: str, state: dict[str, Any], *, blocking: bool = True) -> None:
        """Save a state."""

    def load(self, path: str, state: dict[str, Any] | None = None) -> dict[str, Any]:
        """Load a state in place."""


class _Place(ABC):
    """Where the folder is."""

    @abstractmethod
    def path(self, name: str) -> str:
        """Return the path of a name."""

    @abstractmethod
    def names(self) -> Iterable[str]:
        """Return the names of complete checkpoints, and of other files."""

    @abstractmethod
    def read(self, name: str) -> str | None:
        """Return a small text, or `None` if there is none."""

    @abstractmethod
    def write(self, name: str, text: str) -> None:
        """Replace a small text atomically."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Delete a checkpoint."""

    @abstractmethod
    def is_newer(self, name: str, than: str) -> bool:
        """Return whether a checkpoint was written after another file."""


class _LocalPlace(_Place):
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, name: str) -> str:
        return str(self._directory / name)

    def names(self) -> Iterable[str]:
        if not self._directory.is_dir():
            return []
        for entry in self._directory.iterdir():  # what a kill between two renames left
            if files.is_leftover(entry.name):
                publish.recover(entry.with_name(entry.name.rpartition(".")[0]))
        return [entry.name for entry in self._directory.iterdir() if entry.is_file() or is_complete(entry)]

    def read(self, name: str) -> str | None:
        path = self._directory / name
        return path.read_text(encoding="utf-8") if path.is_file() else None

    def write(self, name: str, text: str) -> None:
        files.write_atomic(self._directory / name, text)

    def remove(self, name: str) -> None:
        publish.remove(self._directory / name)

    def is_newer(self, name: str, than: str) -> bool:
        return (self._directory / name).stat().st_mtime_ns > (self._directory / than).stat().st_mtime_ns


class _UrlPlace(_Place):
    def __init__(self, url: str) -> None:
        self._storage = open_storage(url)
        self._url = url.rstrip("/")

    def path(self, name: str) -> str:
        return f"{self._url}/{name}"

    def names(self) -> Iterable[str]:
        keys = [entry.key for entry in self._storage.list()]
        return [key.removesuffix(f"/{META}") for key in keys if "/" not in key.removesuffix(f"/{META}")]

    def read(self, name: str) -> str | None:
        return self._storage.read(name).decode() if self._storage.exists(name) else None

    def write(self, name: str, text: str) -> None:
        self._storage.write(name, text.encode())

    def remove(self, name: str) -> None:
        saver.remove_at(self.path(name))

    def is_newer(self, name: str, than: str) -> bool:
        written = {entry.key: entry.modified for entry in self._storage.list()}
        return written.get(f"{name}/{META}", written.get(name, 0.0)) > written.get(than, 0.0)


def _directory(directory: str | Path | None) -> str:
    if directory is not None:
        text = str(directory)
        return text.removeprefix("file://") if is_url(text) and text.startswith("file://") else text
    current = job.current_job()
    if current is None:
        raise ConfigError("CheckpointFolder(fabric): outside of a Leyden job, name a directory: CheckpointFolder(fabric, 'runs/demo').")
    return str(current.step_dir / "checkpoints")


def _positive(name: str, value: int | None) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ConfigError(f"{name}={value!r}: accepted are integers of at least 1, or None.")
    return value
