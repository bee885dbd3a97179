"""`set_trace`: Python's debugger in a process of a server, at the terminal where the server was started.

A worker's standard input is closed, and several may stop at once. So the debugger opens the terminal itself, takes turns with
those of other processes, and takes standard input and output for its prompts alone. A server without a terminal goes on, and says so: a
`set_trace()` that was forgotten stops nothing in production.
"""

import contextlib
import fcntl
import os
import pdb
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, final

from leyden.core import settings
from leyden.core.log import get_logger

_TERMINAL = "/dev/tty"
_logger = get_logger(__name__)


def set_trace() -> None:
    """Stop here, and debug at the terminal: `n` next line, `p x` show x, `c` go on, `q` give this request up (it is answered 500).

    While it stops, other requests of this worker wait, and time-outs run on: raise `LitServer(timeout=)` to debug.
    """
    _stop(sys._getframe().f_back)


def set_trace_if_debug(debug_env_var: str = "LITSERVE_DEBUG", debug_env_var_value: str = "1") -> None:
    """Stop as `set_trace` does, if a variable of the environment says so.

    Args:
        debug_env_var: Its name; by default the setting `LEYDEN_SERVE_DEBUG` counts as well.
        debug_env_var_value: What it must be.
    """
    is_default = debug_env_var == "LITSERVE_DEBUG"
    value = settings.get("LEYDEN_SERVE_DEBUG") if is_default else settings.environment().get(debug_env_var)
    if value == debug_env_var_value:
        _stop(sys._getframe().f_back)


def _stop(frame: FrameType | None) -> None:
    place = "" if frame is None else f" at {frame.f_code.co_filename}:{frame.f_lineno}"
    try:
        os.close(os.open(_TERMINAL, os.O_RDWR))
    except OSError:
        _logger.warning("set_trace()%s stops nothing: this server has no terminal. Start it in one to debug.", place)
        return
    Debugger().set_trace(frame)


@final
class Debugger(pdb.Pdb):
    """A debugger at the terminal of the process, wherever its input and output go."""

    def __init__(self) -> None:
        super().__init__(nosigint=True)  # else it would undo that workers leave Ctrl-C to the supervisor
        self.prompt = f"(pdb {os.getpid()}) "

        self._turn = contextlib.ExitStack()
        self._has_turn = False

    def interaction(self, *args: Any, **kwargs: Any) -> None:
        if not self._has_turn:
            self._turn.enter_context(_turn())
            self._has_turn = True
        with _terminal():
            self.stdin, self.stdout = sys.stdin, sys.stdout
            super().interaction(*args, **kwargs)

    def set_continue(self) -> None:
        super().set_continue()
        self._end_turn()

    def set_quit(self) -> None:
        super().set_quit()
        self._end_turn()

    def _end_turn(self) -> None:
        self._has_turn = False
        self._turn.close()


@contextlib.contextmanager
def _turn() -> Iterator[None]:
    """Wait until no other process of this session talks to the terminal."""
    path = Path(tempfile.gettempdir(), f"leyden-debugger-{os.getuid()}-{os.getsid(0)}.lock")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # ends with the process, however that ends
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _terminal() -> Iterator[None]:
    """Let standard input and output be the terminal: their descriptors too, which the editing of lines looks at."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    kept = [(number, os.dup(number)) for number in (0, 1)]
    streams = sys.stdin, sys.stdout
    terminal = os.open(_TERMINAL, os.O_RDWR | os.O_CLOEXEC)
    try:
        for number in (0, 1):
            os.dup2(terminal, number)
        sys.stdin, sys.stdout = os.fdopen(0, "r", closefd=False), os.fdopen(1, "w", closefd=False)
        yield
        sys.stdout.flush()
    finally:
        sys.stdin, sys.stdout = streams
        for number, copy in kept:
            os.dup2(copy, number)
            os.close(copy)
        os.close(terminal)
