"""`ForeignFiles`: the files of a dataset in another format, mapped where they are local, else read by ranges or whole."""

import mmap
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, final

from leyden.core.errors import CorruptDataError, NotFoundError
from leyden.core.forks import restart_after_fork
from leyden.core.storage import Storage, is_url, local_path, open_storage
from leyden.data.read.fetch import read_range

MOST_MAPS = 128
HELD_BYTES = 256 * 2**20  # of whole remote or decoded files


@final
class ForeignFiles:
    """Files below a root. Safe to use from several threads; pickles as the root.

    Args:
        url: The root, a folder or URL.
        options: Of the storage.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.url = url
        self.options = dict(options or {})
        self._held: OrderedDict[tuple[str, str], memoryview] = OrderedDict()
        restart_after_fork(self)
        self.restart()

    def restart(self) -> None:
        """Begin anew in a forked process, with a client of its own."""
        self._storage: Storage | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "options": self.options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["url"], state["options"])  # type: ignore[misc]

    @property
    def storage(self) -> Storage:
        """The root; a client is made when it is first asked for."""
        if self._storage is None:
            self._storage = open_storage(self.url, self.options)
        return self._storage

    @property
    def is_local(self) -> bool:
        """Whether files can be mapped."""
        return not is_url(self.url) or self.url.startswith("file:")

    def path(self, name: str) -> Path:
        """Return where a local file is."""
        folder = local_path(self.url) or self.url
        return Path(folder).expanduser() / name

    def names(self) -> list[str]:
        """Return all files in order, without what jobs of ours note or have under way."""
        return sorted(entry.key for entry in self.storage.list() if not entry.key.startswith("_leyden/"))

    def read(self, name: str) -> bytes:
        """Return a small file."""
        return self.storage.read(name)

    def size(self, name: str) -> int:
        """Return a file's length."""
        return self.path(name).stat().st_size if self.is_local else self.storage.size(name)

    def part(self, name: str, start: int, length: int) -> bytes | memoryview:
        """Return some bytes of a file, as a view of its map if it is local.

        Raises:
            CorruptDataError: It is shorter.
        """
        if self.is_local:
            return exactly(self.whole(name), start, length, f"{self.url}/{name}")
        return read_range(self.storage, name, start, length)

    def whole(self, name: str) -> memoryview:
        """Return a whole file: mapped, or fetched and held for a while."""
        if self.is_local:
            return self.held("map", name, lambda: _mapped(self.path(name)))
        return self.held("file", name, lambda: memoryview(read_range(self.storage, name, 0, self.storage.size(name))))

    def held(self, kind: str, name: str, make: Callable[[], memoryview]) -> memoryview:
        """Return what `make` made for `kind` and `name`, unless that was long ago.

        Maps are counted, everything else is limited by its bytes.
        """
        with self._lock:
            if (kind, name) in self._held:
                self._held.move_to_end((kind, name))
                return self._held[kind, name]
        made = make()  # outside the lock: two threads may make the same, once
        with self._lock:
            self._held[kind, name] = made
            self._drop()
        return made

    def _drop(self) -> None:
        others = [key for key in self._held if key[0] != "map"]
        total = sum(len(self._held[key]) for key in others)
        while len(others) > 1 and total > HELD_BYTES:
            total -= len(self._held.pop(others.pop(0)))
        maps = [key for key in self._held if key[0] == "map"]
        for key in maps[: max(0, len(maps) - MOST_MAPS)]:
            del self._held[key]


def exactly(data: memoryview, start: int, length: int, where: str) -> memoryview:
    """Return a part of a file, or raise `CorruptDataError` if the file ends before it."""
    if start < 0 or length < 0 or start + length > len(data):
        raise CorruptDataError(f"{where} has {len(data):,} bytes, but {length:,} from {start:,} are looked for: it is damaged.")
    return data[start : start + length]


def _mapped(path: Path) -> memoryview:
    try:
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError as error:
        raise NotFoundError(f"{path} is not there, though the dataset's index names it.") from error
    except ValueError:  # an empty file cannot be mapped
        return memoryview(b"")
