"""Child processes of the supervisor: how one notices their end, what to say about it, and what they ask of the system."""

import contextlib
import ctypes
import multiprocessing
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn, final

_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's mallopt
_KEPT_BYTES, _LARGE_BYTES = 64 << 20, 32 << 20
_GUESSES = {
    signal.SIGKILL: " (by the kernel, for want of memory?)",
    signal.SIGSEGV: " (a fault of native code)",
    signal.SIGBUS: " (a fault of native code, or a full /dev/shm)",
    signal.SIGABRT: " (an assertion of native code)",
}


def death(status: int) -> str:
    """Return in words how a process ended.

    Args:
        status: Its exit status; negative for a signal.

    Example:
        >>> death(3), death(-9)
        ('ended with status 3', 'was ended by SIGKILL (by the kernel, for want of memory?)')
    """
    if status >= 0:
        return f"ended with status {status}"
    name = signal.Signals(-status)
    return f"was ended by {name.name}{_GUESSES.get(name, '')}"


@final
class Child:
    """A child process that is not reaped yet.

    Args:
        pid: Its number.
        fallback: A file descriptor that becomes readable at its end, where the system has no descriptors of processes; -1 for none.

    Attributes:
        descriptor: Becomes readable when it has ended.
        status: Its exit status, negative for a signal; `None` while it lives.
    """

    def __init__(self, pid: int, fallback: int = -1) -> None:
        self.pid = pid
        self.status: int | None = None
        self._is_own = False
        self.descriptor = fallback
        with contextlib.suppress(AttributeError, OSError):  # Linux has them
            self.descriptor, self._is_own = os.pidfd_open(pid), True

    def has_ended(self) -> bool:
        """Return whether it has ended; then it is reaped."""
        if self.status is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # somebody else has reaped it
                pid, status = self.pid, 0
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
                self._close()
        return self.status is not None

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal, if it lives: never to another process that got its number."""
        if not self.has_ended():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, seconds: float) -> bool:
        """Wait for its end, at most so long; return whether it came."""
        if self.has_ended():
            return True
        if self.descriptor >= 0:
            poll = select.poll()
            poll.register(self.descriptor, select.POLLIN)
            poll.poll(seconds * 1000)
        return self.has_ended()

    def _close(self) -> None:
        if self._is_own:
            os.close(self.descriptor)
        self.descriptor = -1


def die_with_parent() -> None:
    """Let the kernel end this process with the *thread* that started it, which must be a main thread (Linux)."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def let_go(process: Any, status: int | None) -> None:
    """Free what `multiprocessing` holds for a process that was reaped behind its back: it would keep the pipes, and look for it for ever.

    Args:
        process: A `multiprocessing.Process` that has ended.
        status: How.
    """
    with contextlib.suppress(AttributeError, ValueError):
        process._popen.returncode = status
        process.close()


def forget_spawned() -> None:
    """Close, in a forked process, the pipes that `multiprocessing` holds for processes that the parent has spawned."""
    for process in multiprocessing.active_children():
        finalizer = getattr(getattr(process, "_popen", None), "finalizer", None)
        for descriptor in getattr(finalizer, "_args", ()):
            with contextlib.suppress(OSError, TypeError):
                os.close(descriptor)


def fork(target: Callable[[], None]) -> Child:
    """Run a function in a forked process, which ends with it: with status 0, or 1 and a traceback if it raises.

    Args:
        target: What it does. Nothing that was registered to run at the exit of this process runs in it.
    """
    pid = os.fork()
    if not pid:
        _be(target)
    return Child(pid)


def _be(target: Callable[[], None]) -> NoReturn:
    status = 1
    try:
        target()
        status = 0
    except BaseException:  # noqa: BLE001 - the end of a process: nobody is above
        traceback.print_exc()
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def leave_signals() -> None:
    """Leave SIGINT and SIGTERM to the supervisor: terminals and systemd send them to all processes of a group at once.

    Functions that do nothing, and not SIG_IGN: that would be inherited by what the user's code starts, and nobody could end it.
    """
    own = os.getpid()

    def ignored(number: int, _: object) -> None:
        if os.getpid() != own:  # a process that the user's code has forked
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ignored)


def keep_memory() -> None:
    """Let the C library keep up to 64 MiB that were freed, for the next request (Linux with glibc).

    By itself it gives the memory of large bodies back each time, and the kernel fills every page with zeros anew: a body of 1 MB
    then costs 1.7 times as much (`benchmarks/serve_payload.py`). These are the bounds to which its own thresholds may grow.
    """
    tell = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    if tell is not None:
        tell(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        tell(_M_MMAP_THRESHOLD, _LARGE_BYTES)
