"""Where the node cache is, and how much it may hold."""

import os
import shutil
from pathlib import Path
from typing import Any

from leyden.core import settings
from leyden.core.errors import ConfigError
from leyden.data.config import parse_bytes

_LEFT_FREE_BYTES = 50 * 10**9


def cache_folder(given: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of the node cache: what is given, else `LEYDEN_DATA_CACHE_DIR`, else the user's cache folder."""
    if given is not None:
        return Path(given).expanduser()
    configured = settings.get("LEYDEN_DATA_CACHE_DIR")
    if configured is not None:
        return Path(configured)
    home = settings.environment().get("XDG_CACHE_HOME")
    return (Path(home) if home else Path("~/.cache").expanduser()) / "leyden" / "data"


def cache_budget(given: "int | float | str | None", folder: Path) -> int:
    """Return how many bytes the cache may hold.

    Args:
        given: Bytes, text such as `"100GB"`, or a fraction below 1 of the free disk; `None` is `LEYDEN_DATA_CACHE_BYTES`,
            else three quarters of the free disk, but leaving 50 GB where half of it remains for the cache.
        folder: Where it is.

    Raises:
        ConfigError: It is none of these.

    Example:
        >>> cache_budget("1GB", Path("/tmp"))
        1000000000
    """
    value = settings.get("LEYDEN_DATA_CACHE_BYTES") if given is None else given
    if value is None:
        free = _free_bytes(folder)
        return min(free * 3 // 4, max(free - _LEFT_FREE_BYTES, free // 2))
    fraction = _fraction(value)
    if fraction is not None:
        return int(fraction * _free_bytes(folder))
    return parse_bytes(value if isinstance(value, str) else _whole(value), "max_cache_size")


def checked_cache_size(given: Any) -> Any:
    """Return `max_cache_size` as it was given; 0 is no cache on the disk.

    Raises:
        ConfigError: It is none of what `cache_budget` takes.
    """
    if given is not None and given != 0:
        cache_budget(given, Path.cwd())
    return given


def _fraction(value: "int | float | str") -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if 0 < number < 1 else None


def _whole(value: "int | float") -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ConfigError(f"max_cache_size={value!r} is not accepted: it takes bytes, text such as '100GB', or a fraction below 1.")
    return int(value)


def _free_bytes(folder: Path) -> int:
    existing = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    return shutil.disk_usage(existing).free
