"""The node's cache, looked at from outside: which datasets have blocks in it, how many, and how to be rid of them."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from leyden.data.read.cached import url_digest
from leyden.data.read.folders import cache_folder
from leyden.data.write.changes.history import seconds_of

SUFFIX = ".blk"


class Cached(NamedTuple):
    """What the cache holds of one dataset.

    Args:
        name: Its folder there, made of its URL.
        blocks: How many.
        bytes: Of all of them.
        used: When one was read last, in seconds since 1970.
    """

    name: str
    blocks: int
    bytes: int
    used: float


def cached_datasets(cache_dir: str | None = None, url: str | None = None) -> list[Cached]:
    """Return what is in the cache, the most recently used first.

    Args:
        cache_dir: Its folder; the default one if absent.
        url: Only of this dataset.
    """
    root = cache_folder(cache_dir)
    found = []
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        if folder.is_dir() and (url is None or folder.name == url_digest(url)):
            stats = [path.stat() for path in _blocks(folder)]
            if stats:
                used = max(stat.st_mtime for stat in stats)
                found.append(Cached(folder.name, len(stats), sum(stat.st_size for stat in stats), used))
    return sorted(found, key=lambda each: -each.used)


def cache_path(cache_dir: str | None = None) -> str:
    """Return the cache's folder.

    Args:
        cache_dir: A folder that was asked for.

    Example:
        >>> cache_path("/tmp/blocks")
        '/tmp/blocks'
    """
    return str(cache_folder(cache_dir))


def clear_cache(cache_dir: str | None = None, url: str | None = None, *, older_than: "str | float" = 0.0) -> Cached:
    """Remove blocks, and return how many there were; readers fetch again what they miss.

    Args:
        cache_dir: The cache's folder.
        url: Only of this dataset.
        older_than: Only those that nobody has read for so long: `"7d"`, `"12h"`, or seconds.
    """
    root, now, blocks, size = cache_folder(cache_dir), time.time(), 0, 0
    least = seconds_of(older_than)
    for folder in [root] if url is None else [root / url_digest(url)]:
        for path in list(_blocks(folder)):
            with contextlib.suppress(FileNotFoundError):  # another process evicts too
                stat = path.stat()
                if now - stat.st_mtime >= least:
                    path.unlink()
                    blocks, size = blocks + 1, size + stat.st_size
    return Cached("", blocks, size, now)


def _blocks(folder: Path) -> Iterator[Path]:
    return folder.rglob(f"*{SUFFIX}")
