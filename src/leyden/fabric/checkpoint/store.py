"""`store`: a snapshot becomes files, on every rank at once, and takes its place only when all of them are written.

Runs in the caller's thread for blocking saves and in the writer's for asynchronous ones; it touches no live object.
"""

import contextlib
import inspect
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from leyden.core import files
from leyden.core.errors import StorageError
from leyden.core.failpoints import failpoint
from leyden.fabric.checkpoint import directory, publish, remote, single_file
from leyden.fabric.checkpoint.capture import Snapshot
from leyden.fabric.checkpoint.layout import EXTRAS, FileRecord
from leyden.fabric.checkpoint.peers import Peers

if TYPE_CHECKING:
    from leyden.fabric.checkpoint.plugin import CheckpointIO
    from leyden.fabric.checkpoint.shards import ShardPlan

Result = TypeVar("Result")
_VISIBLE_SECONDS = 5.0  # NFS clients learn of a new directory late


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Where a snapshot goes.

    Args:
        path: A local path or a URL.
        peers: The ranks that write together.
        options: Credentials and such for a URL; a plug-in's own.
    """

    path: str
    peers: Peers
    options: Any = None

    @property
    def is_url(self) -> bool:
        """Whether it goes to an object store."""
        return remote.is_remote(self.path)


def store_file(snapshot: Snapshot, target: Target) -> None:
    """Write a single file; every rank calls it, rank 0 writes.

    Raises:
        StorageError: The disk is full, or refuses; what was there is still there.
    """
    ranks = target.peers.gather(snapshot.rank)

    def write() -> None:
        content = single_file.content_of(snapshot, ranks)
        if not target.is_url:
            with _replacing(Path(target.path)) as temporary:
                single_file.write_dict(temporary, content)
            return
        with tempfile.TemporaryDirectory(prefix="leyden-checkpoint-") as folder:
            local = Path(folder) / "checkpoint"
            single_file.write_dict(local, content)
            remote.upload_file(local, target.path, target.options)

    _together(target, "write the checkpoint", write, on_rank_zero=True)


def store_with_plugin(snapshot: Snapshot, target: Target, plugin: "CheckpointIO") -> None:
    """Hand the user's dictionary (and the extras, where the plug-in stores them) to a plug-in on rank 0."""
    ranks = target.peers.gather(snapshot.rank)

    def write() -> None:
        if not plugin.stores_extras:
            plugin.save_checkpoint(snapshot.tree, target.path, target.options)
            return
        extras = single_file.extras_of(snapshot, ranks)
        if _takes_extras(plugin):
            save: Callable[..., None] = plugin.save_checkpoint
            save(snapshot.tree, target.path, target.options, extras=extras)
        else:  # a subclass that overrides it with the documented signature
            plugin.save_checkpoint({**snapshot.tree, EXTRAS: extras}, target.path, target.options)

    target.peers.agreed("store the checkpoint", write if target.peers.rank == 0 else lambda: None)


def _takes_extras(plugin: "CheckpointIO") -> bool:
    parameters = inspect.signature(plugin.save_checkpoint).parameters.values()
    return any(parameter.name == "extras" or parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def store_directory(
    snapshot: Snapshot, target: Target, plan: "ShardPlan | None" = None, engine: Callable[[Path], None] | None = None
) -> None:
    """Write a directory; every rank calls it and writes its own files, rank 0 the description, last.

    Args:
        snapshot: What to write.
        target: Where to.
        plan: Who writes which box of which tensor (sharded directory).
        engine: Writes files of an engine's own into the directory (DeepSpeed).

    Raises:
        StorageError: The disk is full or refuses, or the directory is not shared between nodes; what was there is still there.
    """
    if target.is_url:
        with tempfile.TemporaryDirectory(prefix="leyden-checkpoint-") as folder:
            _store_remote(snapshot, target, plan, engine, Path(folder))
        return
    path = Path(target.path)
    work = Path(target.peers.broadcast(str(_together(target, "begin the checkpoint", lambda: _begin(path), on_rank_zero=True))))
    try:
        _together(target, "see the directory of rank 0", lambda: _check_visible(work, target.peers.rank))
        records = _write_files(snapshot, target, work, plan, engine)
        failpoint("checkpoint.after_write")
        _together(target, "publish the checkpoint", lambda: _publish(snapshot, work, path, records), on_rank_zero=True)
    except BaseException:
        if target.peers.rank == 0:
            publish.discard(work)
        raise


def _together(target: Target, step: str, function: Callable[[], Result], *, on_rank_zero: bool = False) -> Result | None:
    """Run a step on all ranks (or on rank 0 while the others wait); an error of the disk becomes a `StorageError` on all."""

    def guarded() -> Result | None:
        if on_rank_zero and target.peers.rank:
            return None
        with _storage_errors(target.path):
            return function()

    return target.peers.agreed(step, guarded)


def _begin(path: Path) -> Path:
    failpoint("checkpoint.before_write")
    work = publish.begin(path)
    work.mkdir()
    return work


def _check_visible(work: Path, rank: int) -> None:
    deadline = time.monotonic() + _VISIBLE_SECONDS
    while not work.is_dir():
        if time.monotonic() > deadline:
            raise StorageError(
                f"rank {rank} on {socket.gethostname()} does not see {work}, which rank 0 made. Save to a directory that all nodes share."
            )
        with contextlib.suppress(OSError):
            os.listdir(work.parent)  # noqa: PTH208 - makes NFS ask the server
        time.sleep(0.05)


def _write_files(
    snapshot: Snapshot, target: Target, work: Path, plan: "ShardPlan | None", engine: Callable[[Path], None] | None
) -> list[dict[str, FileRecord]]:
    """Write all files but `meta.json`; returns every rank's records on rank 0."""
    peers = target.peers

    def write() -> dict[str, FileRecord]:
        records = directory.write_rank(snapshot, work, peers.rank)
        return records | (directory.write_tree(snapshot, work) if peers.rank == 0 else {})

    own = _together(target, "write its files", write) or {}
    if plan is not None:
        own |= plan.write(work, partial(_together, target), peers, _flat_aliases(snapshot))
    if engine is not None:
        engine(work)  # uses collectives of its own
        own |= _together(target, "list the engine's files", lambda: directory.records_of(work, own), on_rank_zero=True) or {}
    return peers.gather(own)


def _flat_aliases(snapshot: Snapshot) -> dict[str, str]:
    return {f"{key}.{alias}": f"{key}.{kept}" for key, aliases in snapshot.aliases.items() for alias, kept in aliases.items()}


def _publish(snapshot: Snapshot, work: Path, path: Path, records: list[dict[str, FileRecord]]) -> None:
    directory.write_meta(snapshot.meta, work, _merged(records))
    publish.commit(work, path)


def _store_remote(snapshot: Snapshot, target: Target, plan: "ShardPlan | None", engine: Callable[[Path], None] | None, work: Path) -> None:
    records = _write_files(snapshot, target, work, plan, engine)
    names = [path.relative_to(work).as_posix() for path in work.rglob("*") if path.is_file()]
    begin = partial(remote.begin_directory, target.path, target.options)
    place = target.peers.broadcast(_together(target, "begin the checkpoint", begin, on_rank_zero=True))
    _together(target, "upload its files", lambda: remote.upload_files(work, names, place, target.options))

    def finish() -> None:
        directory.write_meta(snapshot.meta, work, _merged(records))
        remote.publish(work, place, target.path, target.options)

    _together(target, "publish the checkpoint", finish, on_rank_zero=True)


def _merged(records: list[dict[str, FileRecord]]) -> dict[str, FileRecord]:
    return {name: record for each in records for name, record in each.items()}


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path whose file takes the place of `path` when the block ends well."""
    failpoint("checkpoint.before_write")
    temporary = publish.begin(path)
    try:
        yield temporary
        failpoint("checkpoint.after_write")
        publish.commit(temporary, path)
    except BaseException:
        publish.discard(temporary)
        raise


@contextlib.contextmanager
def _storage_errors(path: str) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise files.storage_error(error, path) from error
