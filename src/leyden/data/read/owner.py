"""`Owner`: which process holds something, in a form that another process of this node can check.

A process number alone is used again by the next process; with the time that the process started (in ticks since boot)
and the id of this boot it never is.
"""

import functools
import os
from pathlib import Path
from typing import NamedTuple

_START_FIELD = 19  # of /proc/<pid>/stat, counted after the command's name, which may hold spaces


class Owner(NamedTuple):
    """A process.

    Args:
        pid: Its number.
        start: When it started, in ticks since boot; empty where the system does not tell.
        boot: The id of this boot; empty where the system does not tell.

    Example:
        >>> Owner.here().is_alive()
        True
    """

    pid: int
    start: str
    boot: str

    @classmethod
    def here(cls) -> "Owner":
        """Return this process."""
        return _of(os.getpid())

    def is_alive(self) -> bool:
        """Return whether it runs, as far as this process can see."""
        if self.boot != _boot():
            return False
        if Path("/proc/self/stat").exists():
            return _start(self.pid) == self.start
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


@functools.lru_cache(maxsize=4)
def _of(pid: int) -> Owner:
    return Owner(pid, _start(pid) or "", _boot())


@functools.cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _start(pid: int) -> str | None:
    """Return when a process started, or `None` if there is none, or only a zombie that waits to be reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[_START_FIELD]
