"""`DiskCache` and `MemoryCache`: where the blocks of remote datasets lie once they were fetched.

All processes of a node share one folder: `<cache>/<digest of the URL>/<digest of the chunk>/<block>.blk`. Names say the
content, so a file is either not there or right.

- **Hit**: open, the size must be equal, map. No locks and no reference counts: on POSIX a map outlives its file's name,
  and what was evicted is fetched again.
- **Miss**: whoever makes `<name>.lease` fetches; the others wait for the file. A lease says its process, so that the
  lease of a dead one, or of one that has hung for two minutes, is taken over. That is done under a `flock` of the lease
  itself, and by rewriting it, so that of several who see it dead exactly one gets it.
- **Eviction**: whoever believes that 95 % of the budget are used looks again under a `flock`, and removes the files that
  were not used for the longest time.

A reader sees a file only after its rename, and it is renamed only after its hashes were checked.
"""

import collections
import contextlib
import errno
import fcntl
import json
import mmap
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol, final

from leyden.core.clock import Clock, SystemClock
from leyden.core.failpoints import failpoint
from leyden.core.files import storage_error
from leyden.core.forks import restart_after_fork
from leyden.core.ids import new_id
from leyden.data.read.owner import Owner
from leyden.data.read.partial import Partial

LEASE_SECONDS = 120.0
SPARED_SECONDS = 60.0
_HIGH, _LOW = 0.95, 0.85
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.002, 0.02
_LOOKS_PER_ALIVE = 8  # of a wait: the file is looked for each time, the owner only now and then
_LEFTOVER_SECONDS = 3600.0
_LONGEST_BLIND_BYTES = 256 * 2**20  # added by this process before it looks at what the others added


class Cache(Protocol):
    """Where fetched blocks are kept, up to `budget_bytes`. Safe to use from several threads."""

    budget_bytes: int

    def look(self, key: str, size: int | None) -> memoryview | None:
        """Return the block if it is here and, unless `size` is `None`, of that size."""
        ...

    def claim(self, key: str) -> bool:
        """Return whether it is for the caller to fetch the block; then `put` or `release` must follow."""
        ...

    def put(self, key: str, data: bytes | memoryview | Partial) -> memoryview:
        """Keep a block that the caller claimed and checked, and return it."""
        ...

    def release(self, key: str) -> None:
        """Give up a claim."""
        ...

    def wait(self, key: str, size: int | None) -> memoryview | None:
        """Return the block once its claimant has put it, or `None` if there is no claimant any more."""
        ...

    def drop(self, key: str) -> None:
        """Forget a block, because it turned out to be damaged."""
        ...


class _File(NamedTuple):
    """What an eviction knows of a file."""

    used: float
    size: int
    path: str


@final
class DiskCache:
    """Blocks as files, shared by all processes of this node.

    Args:
        folder: The root of the cache, of all datasets.
        budget_bytes: How much the folder may hold.
        clock: What tells the time.
    """

    def __init__(self, folder: str | os.PathLike[str], budget_bytes: int, *, clock: Clock | None = None) -> None:
        self.folder = Path(folder)
        self.budget_bytes = budget_bytes
        self._clock = clock or SystemClock()
        self._added = 0  # since the last look at the folder
        self._held = 0  # at that look
        restart_after_fork(self)
        self.restart()
        self._memory = MemoryCache(_LONGEST_BLIND_BYTES)  # for what a full disk does not take
        self._is_full_told = False

    def restart(self) -> None:
        """Begin anew in a forked process: the claims are the other one's."""
        self._claims: dict[str, str] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[object, ...]:
        return (DiskCache, (self.folder, self.budget_bytes))

    def look(self, key: str, size: int | None) -> memoryview | None:
        """Return the block if it is here and of that size, as a read-only map of its file."""
        path = self._path(key)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            return self._memory.look(key, size)
        try:
            found = os.fstat(descriptor).st_size
            if found != (found if size is None else size):
                return None
            with contextlib.suppress(OSError):
                os.utime(descriptor)
            return memoryview(mmap.mmap(descriptor, found, prot=mmap.PROT_READ))
        finally:
            os.close(descriptor)

    def claim(self, key: str) -> bool:
        """Return whether it is for the caller to fetch the block."""
        lease, token = self._lease(key), new_id("claim")
        _make_folder(lease)
        content = json.dumps([*Owner.here(), token])
        won = _create(lease, content) or self._take_over(lease, content)
        if won:
            self._claims[key] = token
        return won

    def put(self, key: str, data: bytes | memoryview | Partial) -> memoryview:
        """Keep a block that the caller claimed and checked, and return it."""
        try:
            self._make_room(_held_bytes(data))
            _make_folder(self._path(key))
            return self._write(key, data) or self._in_memory(key, data)
        finally:
            self.release(key)

    def release(self, key: str) -> None:
        """Give up a claim; one that was taken over meanwhile is left to its new owner."""
        token = self._claims.pop(key, None)
        lease = self._lease(key)
        if token is not None and (_read(lease) or [None])[-1] == token:
            with contextlib.suppress(OSError):
                os.unlink(lease)  # noqa: PTH108 - text paths here

    def wait(self, key: str, size: int | None) -> memoryview | None:
        """Return the block once its claimant has put it, or `None` if there is no claimant any more."""
        lease, seconds = self._lease(key), _FIRST_WAIT_SECONDS
        for turn in range(1 << 30):
            found = self.look(key, size)
            if found is not None:
                return found
            if not os.path.exists(lease):  # noqa: PTH110 - text paths here
                return self.look(key, size)  # it was renamed between the two looks, or its claimant gave up
            if turn % _LOOKS_PER_ALIVE == 0 and self._is_abandoned(lease):
                return None
            self._clock.sleep(seconds)
            seconds = min(2 * seconds, _LONGEST_WAIT_SECONDS)
        return None

    def drop(self, key: str) -> None:
        """Forget a block, because it turned out to be damaged."""
        self._memory.drop(key)
        with contextlib.suppress(OSError):
            os.unlink(self._path(key))  # noqa: PTH108 - text paths here

    def evict(self, needed_bytes: int = 0) -> int:
        """Remove what was not used for the longest time, if the budget is nearly used up; return the bytes held.

        Args:
            needed_bytes: What is about to be added.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "evict.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            files, now = self._scan(), self._clock.time()
            held = sum(file.size for file in files)
            failpoint("cache.evicting")
            if held + needed_bytes > _HIGH * self.budget_bytes:
                held = self._remove(files, held, needed_bytes, now)
        with self._lock:
            self._held, self._added = held, 0
        return held

    def _remove(self, files: list[_File], held: int, needed: int, now: float) -> int:
        """Remove the oldest until 85 % are used; the youngest only if they alone exceed the budget."""
        recent = sum(file.size for file in files if now - file.used < SPARED_SECONDS)
        spared = 0.0 if recent + needed > self.budget_bytes else SPARED_SECONDS
        for file in sorted(files):
            if held + needed <= _LOW * self.budget_bytes or now - file.used < spared:
                break
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file.path)  # noqa: PTH108 - text paths here
            held -= file.size
        return held

    def _scan(self) -> list[_File]:
        """Return all blocks; what killed processes left is removed on the way."""
        found = []
        for path, status in _walk(self.folder):
            if path.endswith(".blk"):
                found.append(_File(status.st_mtime, min(status.st_size, 512 * status.st_blocks), path))  # holes cost nothing
            elif self._clock.time() - status.st_mtime > _LEFTOVER_SECONDS and (".blk.tmp-" in path or path.endswith(".lease")):
                with contextlib.suppress(OSError):
                    os.unlink(path)  # noqa: PTH108 - text paths here
        return found

    def _make_room(self, size: int) -> None:
        with self._lock:
            self._added += size
            blind = min(self.budget_bytes // 50, _LONGEST_BLIND_BYTES)
            is_time = self._added >= blind or self._held + self._added > _HIGH * self.budget_bytes
        if is_time:
            self.evict(size)

    def _write(self, key: str, data: bytes | memoryview | Partial) -> memoryview | None:
        """Write beside and rename; `None` if the disk is full even after an eviction."""
        path = self._path(key)
        for is_last in (False, True):
            temporary = f"{path}.{new_id('tmp')}"
            try:
                _write_file(temporary, data)
                os.replace(temporary, path)  # noqa: PTH105 - text paths here
                failpoint("cache.renamed")
                return self.look(key, len(data))
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)  # noqa: PTH108 - text paths here
                if error.errno not in {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}:
                    raise storage_error(error, path, len(data)) from error
                if not is_last:
                    self.evict(self.budget_bytes // 10)
        return None

    def _in_memory(self, key: str, data: bytes | memoryview | Partial) -> memoryview:
        if not self._is_full_told:
            self._is_full_told = True
            warnings.warn(
                f"the disk of the cache {os.fspath(self.folder)!r} is full: blocks are kept in memory, and fetched again when they are "
                "needed again. Free space, or choose another folder with cache_dir=… or LEYDEN_DATA_CACHE_DIR.",
                stacklevel=2,
            )
        return self._memory.put(key, data)

    def _take_over(self, lease: str, content: str) -> bool:
        """Make a lease ours whose owner is gone. It is rewritten under its own lock, never removed, so only one can."""
        try:
            with open(lease, "r+", encoding="utf-8") as file:  # noqa: PTH123 - text paths here
                fcntl.flock(file, fcntl.LOCK_EX)
                if not _is_same(file.fileno(), lease) or not self._is_abandoned(lease):
                    return False
                failpoint("cache.taking_over")
                file.truncate(0)
                file.write(content)
            os.utime(lease)
        except FileNotFoundError:
            return False
        return True

    def _is_abandoned(self, lease: str) -> bool:
        """Return whether the lease is one whose owner is dead, or has had it for two minutes."""
        content = _read(lease)
        if content is None:
            return False  # released just now
        try:
            age = self._clock.time() - os.stat(lease).st_mtime  # noqa: PTH116 - text paths here
        except FileNotFoundError:
            return False
        return age > LEASE_SECONDS or (len(content) > 1 and not Owner(*content[:3]).is_alive())

    def _path(self, key: str) -> str:
        return f"{self.folder}/{key}.blk"

    def _lease(self, key: str) -> str:
        return f"{self.folder}/{key}.lease"


@final
class MemoryCache:
    """Blocks in the memory of this process; those that were not used for the longest time make room.

    Args:
        budget_bytes: How much it may hold.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._held = 0
        self._blocks: collections.OrderedDict[str, tuple[memoryview, int]] = collections.OrderedDict()  # and what each costs
        restart_after_fork(self)
        self.restart()

    def restart(self) -> None:
        """Begin anew in a forked process: nobody there fetches what was claimed."""
        self._claimed: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[object, ...]:
        return (MemoryCache, (self.budget_bytes,))

    def look(self, key: str, size: int | None) -> memoryview | None:
        """Return the block if it is here and, unless `size` is `None`, of that size."""
        with self._lock:
            found, _ = self._blocks.get(key, (None, 0))
            if found is None or len(found) != (len(found) if size is None else size):
                return None
            self._blocks.move_to_end(key)
            return found

    def claim(self, key: str) -> bool:
        """Return whether it is for the caller to fetch the block."""
        with self._lock:
            if key in self._claimed:
                return False
            self._claimed[key] = threading.Event()
            return True

    def put(self, key: str, data: bytes | memoryview | Partial) -> memoryview:
        """Keep a block, and return it."""
        view, size = data.view if isinstance(data, Partial) else memoryview(data).toreadonly(), _held_bytes(data)
        with self._lock:
            self._forget(key)
            self._blocks[key] = view, size
            self._held += size
            while self._held > self.budget_bytes and len(self._blocks) > 1:
                self._forget(next(iter(self._blocks)))
        self.release(key)
        return view

    def release(self, key: str) -> None:
        """Give up a claim."""
        with self._lock:
            event = self._claimed.pop(key, None)
        if event is not None:
            event.set()

    def wait(self, key: str, size: int | None) -> memoryview | None:
        """Return the block once its claimant has put it, or `None` if there is no claimant any more."""
        event = self._claimed.get(key)
        if event is not None:
            event.wait()
        return self.look(key, size)

    def drop(self, key: str) -> None:
        """Forget a block."""
        with self._lock:
            self._forget(key)

    def _forget(self, key: str) -> None:
        self._held -= self._blocks.pop(key, (None, 0))[1]


def _held_bytes(data: bytes | memoryview | Partial) -> int:
    return data.held_bytes if isinstance(data, Partial) else len(data)


def _make_folder(path: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120 - once per block: text is five times as fast


def _create(path: str, content: str) -> bool:
    """Make a file with its content in one step: nobody sees it empty. `link` fails if it exists, on old NFS too."""
    finished = f"{path}.{new_id('tmp')}"
    with open(finished, "w", encoding="utf-8") as file:  # noqa: PTH123 - text paths here
        file.write(content)
    try:
        os.link(finished, path)
        failpoint("cache.claimed")
    except FileExistsError:
        return False
    finally:
        os.unlink(finished)  # noqa: PTH108 - text paths here
    return True


def _write_file(path: str, data: bytes | memoryview | Partial) -> None:
    failpoint("cache.before_write")
    with open(path, "xb", buffering=0) as file:  # noqa: PTH123 - text paths here
        if isinstance(data, Partial):
            data.write(file.fileno())
        left = memoryview(b"") if isinstance(data, Partial) else memoryview(data)
        while left:
            left = left[file.write(left) :]
    failpoint("cache.written")


def _read(lease: str) -> list[Any] | None:
    """Return what a lease says; an empty list if that cannot be read, `None` if there is none."""
    try:
        with open(lease, encoding="utf-8") as file:  # noqa: PTH123 - text paths here
            return list(json.load(file))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):
        return []  # being rewritten


def _is_same(descriptor: int, path: str) -> bool:
    return os.path.samestat(os.fstat(descriptor), os.stat(path))  # noqa: PTH116 - text paths here


def _walk(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    for directory, _, names in os.walk(folder):
        for name in names:
            path = f"{directory}/{name}"
            with contextlib.suppress(FileNotFoundError):
                yield path, os.stat(path)  # noqa: PTH116 - text paths here
