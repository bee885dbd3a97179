"""`Reloader`: for development, a server that is started again when a Python file of its folder changes.

Files are looked at, not subscribed to: that works in containers, on network drives and on every system, needs no further package,
and some hundred files take a millisecond. The server is forked from this process, which has imported no code of the user's, so
that each one begins from nothing.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, final

from leyden.serve.processes import Child, die_with_parent, fork

LOOK_SECONDS = 0.25
_PATIENCE_SECONDS, _END_SECONDS = 1.0, 10.0
_LEFT_OUT = {"__pycache__", "node_modules", "site-packages", "venv"}  # and what begins with a dot

Snapshot = dict[str, tuple[int, int]]


def snapshot(folder: Path) -> Snapshot:
    """Return the Python files of a folder and of those in it, each with its time and size.

    Args:
        folder: Where; hidden folders and installed packages in it are left out.
    """
    return dict(_files(str(folder)))


def _files(folder: str) -> Iterator[tuple[str, tuple[int, int]]]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:  # gone while it is looked at: the next look sees that
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith(".") and entry.name not in _LEFT_OUT:
                    yield from _files(entry.path)
            elif entry.name.endswith(".py"):
                with contextlib.suppress(OSError):
                    found = entry.stat()
                    yield entry.path, (found.st_mtime_ns, found.st_size)


def changes(before: Snapshot, now: Snapshot) -> list[str]:
    """Return the files that came, went or changed.

    Example:
        >>> changes({"a.py": (1, 1), "b.py": (1, 1)}, {"a.py": (2, 1), "c.py": (1, 1)})
        ['a.py', 'b.py', 'c.py']
    """
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


@final
class Reloader:
    """Runs a server again and again, until this process is told to stop.

    Args:
        serve: Runs it, in a process of its own.
        folder: Whose changes count.
        say: Tells the user what happens.
    """

    def __init__(self, serve: Callable[[], Any], folder: Path, *, say: Callable[[str], None]) -> None:
        self._serve, self._folder, self._say = serve, folder, say
        self._is_stopped = False

    def run(self) -> int:
        """Return the exit status, after SIGTERM or SIGINT."""
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            while not self._is_stopped:
                seen = snapshot(self._folder)
                child = fork(self._be)
                try:
                    changed = self._watch(child, seen)
                finally:
                    _end(child)
                if changed:
                    self._say(f"{', '.join(os.path.relpath(name, self._folder) for name in changed[:3])} changed: the server starts again.")
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return 0

    def _stop(self, number: int, _: Any) -> None:
        self._is_stopped = True

    def _be(self) -> None:
        for number, handler in ((signal.SIGTERM, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
            signal.signal(number, handler)
        die_with_parent()
        self._serve()

    def _watch(self, child: Child, seen: Snapshot) -> list[str]:
        """Return what has changed, once something has; nothing when this process is to stop."""
        was_there = True
        while not self._is_stopped:
            is_there = not child.wait(LOOK_SECONDS)
            if not is_there and was_there:
                self._say("The server has ended. It starts again when a file changes.")
            if not is_there:
                time.sleep(LOOK_SECONDS)
            was_there = is_there
            changed = changes(seen, snapshot(self._folder))
            if changed:
                return changed
        return []


def _end(child: Child) -> None:
    """End a server: it may finish for a moment what it has, then gives it up."""
    for number, seconds in ((signal.SIGTERM, _PATIENCE_SECONDS), (signal.SIGTERM, _END_SECONDS), (signal.SIGKILL, _END_SECONDS)):
        child.kill(number)
        if child.wait(seconds):
            return
