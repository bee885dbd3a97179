"""The children of a launcher: watched from their start, ended together, and asked which of them failed first.

One daemon thread waits for exits (pidfd; elsewhere a waiting thread per child) and for deadlines; it never polls. The first
child that fails makes it end the others. Which one is the *cause* is decided when all are gone, from what they wrote:

1. the earliest error that is more than a lost connection to another rank;
2. a child that died without a word (a signal, `os._exit`);
3. the earliest lost connection.

Leaving with 0, 75 (a Leyden job's "start me again") or 128 + the signal of an agreed stop is no failure: the others may still
be saving. If they are still there ten seconds later, a warning says so.
"""

import contextlib
import os
import selectors
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import Popen

from leyden.core.errors import RankFailedError
from leyden.core.job import EXIT_PREEMPTED
from leyden.core.log import get_logger
from leyden.fabric.launch.child import Child, Failure
from leyden.fabric.launch.lifeline import CHILD_SUFFIX, ErrorReport, is_lost_peer, notify, on_death, run_death_callbacks

KILL_SECONDS = 5.0  # from the pipe's end to SIGKILL
CAUSE_SECONDS = 2.0  # how long a rank that lost its peer waits for the end of that peer to be seen
NOTICE_SECONDS = 10.0  # how long the main thread may take to notice that a child has failed; then it is stuck
REPORT_SECONDS = 10.0  # how long others may go on after one has left, unreported
LEAVE_SECONDS = 30.0  # how long children may go on after the launcher's own script has ended
_STOP_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)]
LEFT_ON_PURPOSE = frozenset({0, EXIT_PREEMPTED, *(128 + number for number in _STOP_SIGNALS)})

__all__ = ["Child", "Children", "Failure", "on_death"]

_logger = get_logger(__name__)


@dataclass
class Children:
    """Starts, watches and ends the other ranks of this node.

    Args:
        on_stuck: Called with the exit status when a child has failed and the main thread does not notice; by default the
            process ends at once.
    """

    on_stuck: Callable[[int], object] = os._exit
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="leyden-launch-")))
    failure: Failure | None = None
    _children: list[Child] = field(default_factory=list)
    _noticed: threading.Event = field(default_factory=threading.Event)
    _failing: threading.Event = field(default_factory=threading.Event)
    _gone: threading.Event = field(default_factory=threading.Event)
    _ending_since: float | None = None
    _end_at: float | None = None  # when the others are ended, if their peer's end does not explain it before
    _reported_leaving: bool = False
    _thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_writer, False)
        self._lock = threading.RLock()

    # -- starting ------------------------------------------------------------------------------------------------

    def start(self, rank: int, start: "Callable[[Path], Popen[bytes] | BaseProcess]") -> None:
        """Start a rank with `start(error file)`; a failure to start ends those that run.

        Args:
            rank: Its global rank.
            start: Starts the process with `LEYDEN_FABRIC_ERROR_FILE` set to the path it is given.
        """
        error_file = self.folder / f"rank-{rank}{CHILD_SUFFIX}"
        lifeline: int | None = None
        if hasattr(os, "mkfifo"):
            os.mkfifo(error_file.with_suffix(".lifeline"), 0o600)
            lifeline = os.open(error_file.with_suffix(".lifeline"), os.O_RDWR | os.O_NONBLOCK)  # both ends: does not wait for a reader
        try:
            self._children.append(Child(rank, start(error_file), error_file, lifeline))
        except BaseException:
            if lifeline is not None:
                os.close(lifeline)
            self.close(seconds=0)
            raise

    def watch(self) -> None:
        """Start the watching thread, once all are started."""
        self._thread = threading.Thread(target=self._watch, name="leyden-children", daemon=True)
        self._thread.start()

    def forget_in_fork(self) -> None:
        """In a forked child: let go of the pipes that belong to the launcher."""
        for child in self._children:
            if child.lifeline is not None:
                os.close(child.lifeline)
        self._children = []

    # -- the main thread's questions -----------------------------------------------------------------------------

    @property
    def running(self) -> list[Child]:
        """The children that are not gone."""
        return [child for child in self._children if child.poll() is None]

    def wait(self) -> None:
        """Wait for all children.

        Raises:
            RankFailedError: One failed; the others have been ended.
        """
        self._noticed.set()
        try:
            self._gone.wait()
        except BaseException:  # KeyboardInterrupt: it reached this process only
            self.end()
            raise
        if self.failure is not None:
            raise self.failure.error()

    def explain(self, error: BaseException) -> RankFailedError | None:
        """Return the failure of a child that `error` is the consequence of, or `None`: it stands for itself.

        Waits for a child to fail only if the error is a broken connection.
        """
        if isinstance(error, RankFailedError):
            return error
        if isinstance(error, KeyboardInterrupt) or not self._children:
            return None
        lost = is_lost_peer(error)
        if lost:
            self._failing.wait(NOTICE_SECONDS)
        if not self._failing.is_set():
            return None
        self._noticed.set()
        self._gone.wait(KILL_SECONDS + 1)
        if self.failure is None or (self.failure.is_lost_peer and not lost):
            return None
        return self.failure.error()

    def end(self) -> None:
        """End all children now: they flush and go, within five seconds by SIGKILL."""
        with self._lock:
            self._noticed.set()
            self._begin_ending()
        self._wake()
        self._gone.wait(KILL_SECONDS + 1)

    def close(self, seconds: float = LEAVE_SECONDS) -> None:
        """Wait `seconds` for the children that are left, end those that do not go, and stop watching. Idempotent."""
        self._noticed.set()
        if self._thread is None:
            for child in self.running:
                child.end()
                child.wait()
            self._gone.set()
        elif not self._gone.wait(seconds):
            left = [child.rank for child in self.running]
            if seconds and left:
                notify(f"this process has ended its work {seconds:g} s ago; ranks {left} have not, and are ended now.")
            self.end()
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
            for descriptor in (self._wake_reader, self._wake_writer):
                os.close(descriptor)
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- the watching thread -------------------------------------------------------------------------------------

    def _watch(self) -> None:
        exits = _Exits(self._children, self._wake_reader, self._wake)
        order = 0
        try:
            while self.running or any(child.left_at == 0 for child in self._children):
                for child in self._children:
                    if child.left_at == 0 and child.poll() is not None:
                        order += 1
                        child.order, child.left_at = order, time.monotonic()
                        exits.forget(child)
                        self._on_exit(child)
                self._on_time()
                if self.running:
                    exits.wait(self._next_deadline())
        finally:
            exits.close()
            for child in self._children:
                child.hang_up()
            self._decide()
            self._gone.set()
        self._wait_until_noticed()

    def _on_exit(self, child: Child) -> None:
        _logger.debug("rank %d (pid %d) has left with %s", child.rank, child.pid, child.exit_code)
        if child.exit_code not in LEFT_ON_PURPOSE or child.error_file.exists():
            with self._lock:
                if self._ending_since is not None:
                    return
                report = ErrorReport.read(child.error_file)
                if report is not None and report.lost_peer:
                    # Its cause may still be on its way out, and must not be cut short.
                    self._end_at = self._end_at or time.monotonic() + CAUSE_SECONDS
                else:
                    self._begin_ending()
                self._failing.set()

    def _begin_ending(self) -> None:
        if self._ending_since is None:
            self._ending_since = time.monotonic()
            for child in self.running:
                child.end()

    def _next_deadline(self) -> float | None:
        now = time.monotonic()
        if self._ending_since is not None:
            return max(self._ending_since + KILL_SECONDS - now, 0.0)
        if self._end_at is not None:
            return max(self._end_at - now, 0.0)
        left = [child.left_at for child in self._children if child.left_at]
        return None if not left or self._reported_leaving else max(left[0] + REPORT_SECONDS - now, 0.0)

    def _on_time(self) -> None:
        now = time.monotonic()
        if self._ending_since is not None:
            if now >= self._ending_since + KILL_SECONDS:
                for child in self.running:
                    child.kill()
                    child.wait()
            return
        if self._end_at is not None:
            if now >= self._end_at:
                with self._lock:
                    self._begin_ending()
            return
        if (first := self._first_left) is not None and now >= first.left_at + REPORT_SECONDS:
            self._report_leaving(first)

    @property
    def _first_left(self) -> Child | None:
        return min((child for child in self._children if child.left_at), key=lambda child: child.left_at, default=None)

    def _report_leaving(self, first: Child) -> None:
        others = [f"rank {child.rank}" for child in self.running]
        if not self._noticed.is_set():
            others.append("this process")
        if self._reported_leaving or not others:
            return
        self._reported_leaving = True
        notify(
            f"rank {first.rank} (pid {first.pid}) left with exit code {first.exit_code} {REPORT_SECONDS:g} s ago, but "
            f"{' and '.join(others)} still run. "
            "Who waits for it in a collective fails at the time-out: every rank must make the same calls."
        )

    def _decide(self) -> None:
        if not self._failing.is_set():
            return
        failed = [child for child in self._children if _has_failed(child)]
        cause = min(failed, key=_guilt, default=None)
        if cause is None:
            return
        report = ErrorReport.read(cause.error_file)
        self.failure = Failure(cause.rank, cause.pid, cause.exit_code or 0, report, cause.is_attached)
        if not self.failure.is_lost_peer:
            _show(self.failure)

    def _wait_until_noticed(self) -> None:
        """Leave in the main thread's place if it is stuck in C code that waits for the dead."""
        first = self._first_left
        if self.failure is None and first is not None and not self._noticed.wait(max(first.left_at + REPORT_SECONDS - time.monotonic(), 0)):
            self._report_leaving(first)
        if self.failure is not None and not self._noticed.wait(NOTICE_SECONDS):
            if self.failure.is_lost_peer:
                _show(self.failure)
            run_death_callbacks()
            shutil.rmtree(self.folder, ignore_errors=True)
            self.on_stuck(self.failure.status)

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._wake_writer, b"x")


def _has_failed(child: Child) -> bool:
    return child.error_file.exists() or (not child.was_ended and child.exit_code not in LEFT_ON_PURPOSE)


def _guilt(child: Child) -> tuple[int, float]:
    """Sort causes before consequences."""
    report = ErrorReport.read(child.error_file)
    if report is None:
        return (1, child.order)
    return (2, report.time) if report.lost_peer else (0, report.time)


def _show(failure: Failure) -> None:
    """Write the failure to stderr: the main thread may never raise it, and another rank's traceback belongs to no one else."""
    trace = f"\n{failure.report.traceback}" if failure.report is not None else "\n"
    sys.stderr.write(f"{failure.message}{trace}")
    sys.stderr.flush()


class _Exits:
    """Waits for any child to end or a wake-up: one selector over pidfds, or a thread per child that wakes us."""

    def __init__(self, children: list[Child], wake_reader: int, wake: Callable[[], None]) -> None:
        self._wake_reader = wake_reader
        self._pidfds: dict[Child, int] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(wake_reader, selectors.EVENT_READ)
        for child in children:
            try:
                self._pidfds[child] = os.pidfd_open(child.pid)
            except (AttributeError, OSError):  # not Linux; an old kernel or a sandbox without pidfd; or reaped in this instant
                threading.Thread(target=_wait_then, args=(child, wake), name=f"leyden-rank-{child.rank}", daemon=True).start()
            else:
                self._selector.register(self._pidfds[child], selectors.EVENT_READ)

    def wait(self, seconds: float | None) -> None:
        if any(key.fd == self._wake_reader for key, _ in self._selector.select(seconds)):
            os.read(self._wake_reader, 4096)

    def forget(self, child: Child) -> None:
        """An ended child's pidfd stays readable: without this, `wait` would spin."""
        descriptor = self._pidfds.pop(child, None)
        if descriptor is not None:
            self._selector.unregister(descriptor)
            os.close(descriptor)

    def close(self) -> None:
        for child in list(self._pidfds):
            self.forget(child)
        self._selector.close()


def _wait_then(child: Child, wake: Callable[[], None]) -> None:
    child.wait()
    wake()
