"""Places where tests make the process fail: `failpoint("files.after_write")` does nothing unless it is armed.

`LEYDEN_FAILPOINT="files.after_write=kill,journal.commit:3=raise"` arms by environment (for child processes), `armed(…)`
inside a process. A rule is `name[:hit]=action`; without a number the first hit counts. Other hits do nothing.

| action | what happens |
|---|---|
| `kill` | SIGKILL to this process: nothing is cleaned up |
| `exit` | the process ends at once with status 70, without clean-up |
| `raise` | `InjectedError` |
| `enospc` | the `OSError` of a full disk |
| `hang` or `hang/5` | waits 60 (or 5) seconds, then ends with status 70: a test that forgets it leaves nothing behind |
"""

import contextlib
import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from typing import NoReturn, final

from leyden.core import settings
from leyden.core.errors import ConfigError, closest, listed

EXIT_STATUS = 70
_HANG_SECONDS = 60.0


class InjectedError(RuntimeError):
    """Raised by the action `raise`. Deliberately no `LeydenError`: code that handles those must not swallow it."""


@final
class _Rule:
    """One armed fault: at hit number `hit`, do `action`."""

    def __init__(self, hit: int, action: str, argument: str) -> None:
        self.left = hit
        self.action = action
        self.argument = argument


_UNREAD = {"": _Rule(1, "raise", "")}  # until the first hit reads the environment; true, so that there is a first hit


@final
class _Armed:
    """The faults of this process: empty when nothing is armed, so that an idle failpoint costs one attribute check."""

    __slots__ = ("lock", "rules")

    def __init__(self) -> None:
        self.rules = _UNREAD
        self.lock = threading.Lock()


_armed = _Armed()


def failpoint(name: str) -> None:
    """Fail here if a test has armed this name; else cost one attribute check.

    Raises:
        InjectedError: Armed with `raise`.
        OSError: Armed with `enospc`.
    """
    if _armed.rules:
        _hit(name)


@contextlib.contextmanager
def armed(rules: str) -> Generator[None, None, None]:
    """Arm `rules` instead of whatever is armed, inside the block, for all threads of this process.

    Example:
        >>> with armed("demo.point=raise"):
        ...     failpoint("demo.point")
        Traceback (most recent call last):
        ...
        leyden.core.failpoints.InjectedError: failpoint 'demo.point'
    """
    before, _armed.rules = _armed.rules, parse(rules)
    try:
        yield
    finally:
        _armed.rules = before


def parse(text: str) -> dict[str, _Rule]:
    """Read rules as `LEYDEN_FAILPOINT` holds them.

    Raises:
        ConfigError: A rule is not `name[:hit]=action`.
    """
    rules = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        place, equals, action = part.partition("=")
        name, _, hit = place.partition(":")
        action, _, argument = action.partition("/")
        if not name or not equals or not _is_count(hit or "1") or not _is_argument(action, argument):
            raise ConfigError(f"{part!r} is not a failpoint rule: write name=action or name:3=action (the third hit), such as 'save=kill'.")
        if action not in _ACTIONS:
            raise ConfigError(
                f"{part!r}: the action {action!r} is not known.{closest(action, _ACTIONS)} The actions are {listed(_ACTIONS)}."
            )
        rules[name] = _Rule(int(hit or "1"), action, argument)
    return rules


def _is_count(text: str) -> bool:
    return text.isdecimal() and int(text) > 0


def _is_argument(action: str, argument: str) -> bool:
    return not argument or (action == "hang" and argument.replace(".", "", 1).isdecimal())


def _hit(name: str) -> None:
    with _armed.lock:
        if _armed.rules is _UNREAD:
            _armed.rules = parse(settings.get("LEYDEN_FAILPOINT") or "")
        rule = _armed.rules.get(name)
        if rule is None:
            return
        rule.left -= 1
        if rule.left != 0:
            return
    _ACTIONS[rule.action](name, rule.argument)


def _kill(_name: str, _argument: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _exit(_name: str, _argument: str) -> NoReturn:
    os._exit(EXIT_STATUS)


def _raise(name: str, _argument: str) -> NoReturn:
    raise InjectedError(f"failpoint {name!r}")


def _full_disk(name: str, _argument: str) -> NoReturn:
    raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} (failpoint {name!r})")


def _hang(_name: str, argument: str) -> NoReturn:
    time.sleep(float(argument or _HANG_SECONDS))
    os._exit(EXIT_STATUS)


_ACTIONS: dict[str, Callable[[str, str], None]] = {"kill": _kill, "exit": _exit, "raise": _raise, "enospc": _full_disk, "hang": _hang}
