"""What this machine offers a run: cores for loader workers, and whether nodes see the same files."""

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from leyden.core.errors import ConfigError

if TYPE_CHECKING:
    from leyden.fabric.strategies.strategy import Strategy


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def suggested_max_num_workers(local_world_size: int) -> int:
    """Return how many loader workers each of `local_world_size` processes may start without crowding the cores.

    Raises:
        ConfigError: `local_world_size` is below 1.

    Example:
        >>> suggested_max_num_workers(1) >= 1
        True
    """
    if local_world_size < 1:
        raise ConfigError(f"`local_world_size` should be >= 1, got {local_world_size}.")
    return max(1, available_cores() // local_world_size - 1)


def is_shared_filesystem(strategy: "Strategy", path: str | Path | None = None, timeout: float = 3) -> bool:
    """Return whether all ranks see a file that rank 0 writes to `path` (default: the working directory).

    Args:
        strategy: The strategy whose ranks are asked.
        path: A directory, or a storage URL, which every node sees.
        timeout: Seconds that a slow network file system may take to show the file.

    Raises:
        ConfigError: The directory does not exist on rank 0.
    """
    if path is not None and "://" in str(path):
        return True
    if strategy.num_nodes == 1:
        return True
    folder = Path(path or Path.cwd())
    with tempfile.NamedTemporaryFile(
        dir=folder if strategy.global_rank == 0 and folder.is_dir() else None, prefix=".leyden-shared-"
    ) as token:
        name = strategy.broadcast(token.name if folder.is_dir() else None)
        if name is None:
            raise ConfigError(f"is_shared_filesystem(path={str(path)!r}): rank 0 has no such directory.")
        seen = _appears(Path(name), timeout)
        answer = strategy.reduce_boolean_decision(seen, all=True)
        strategy.barrier("is_shared_filesystem")
        return answer


def _appears(file: Path, timeout: float) -> bool:
    import time

    deadline = time.monotonic() + timeout
    while not file.exists():
        if time.monotonic() > deadline:
            return False
        with contextlib.suppress(OSError):
            os.listdir(file.parent)  # noqa: PTH208 - NFS keeps in mind that a file is absent until the directory is listed
        time.sleep(0.05)  # a network file system offers nothing to wait on
    return True
