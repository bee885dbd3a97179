"""`breakpoint` in worker processes, whose standard input is not the terminal."""

import pdb
import sys
from types import FrameType
from typing import Any, final


@final
class _TerminalPdb(pdb.Pdb):
    """A debugger that talks to the terminal itself."""

    def __init__(self) -> None:
        self._terminal: Any = open("/dev/tty", "r+b", buffering=0)  # noqa: PTH123, SIM115 - held while the debugger runs
        super().__init__(stdin=_Lines(self._terminal), stdout=sys.__stdout__)  # type: ignore[arg-type]
        self.use_rawinput = False


@final
class _Lines:
    """Lines of a terminal."""

    def __init__(self, terminal: Any) -> None:
        self._terminal = terminal

    def readline(self) -> str:
        return bytes(self._terminal.readline()).decode()


def breakpoint() -> None:
    """Stop here and open the debugger, in a worker process too.

    In a process with a terminal as its standard input this is Python's own `breakpoint`; in a worker the debugger reads from the
    terminal that the script was started from. With `num_workers=0` everything runs in one process, which is simpler still.
    """
    frame: FrameType | None = sys._getframe(1)
    debugger = pdb.Pdb() if sys.stdin is not None and sys.stdin.isatty() else _TerminalPdb()
    debugger.set_trace(frame)
