"""`WriterThread`: the one thread of a process that carries what loggers were given to their files and services.

Each logger owns a `Channel`. Once a second the thread drains them all; so do `save()`, `finalize()`, the end of the
interpreter, and `flush_all` on the death path, which takes no lock and may be called from a signal handler. A forked
child begins with empty channels and a thread of its own: what was queued belongs to the parent.
"""

import atexit
import logging
import os
import threading
import time
import warnings
from multiprocessing import util as multiprocessing_util
from queue import Empty, SimpleQueue
from typing import Any

from leyden.core.job import Job, current_job
from leyden.fabric.launch import lifeline
from leyden.fabric.loggers.channel import LIMIT, Channel, Sink

FLUSH_SECONDS = 1.0
REPORT_SECONDS = 1.0
EXIT_SECONDS = 15.0  # how long the end of the interpreter waits for back-ends

_log = logging.getLogger(__name__)


class JobReport:
    """Passes the numbers of rows on to the Leyden job that this process runs in, at most once a second."""

    def __init__(self, job: Job | None) -> None:
        self._job = job
        self._step = 0
        self._latest: dict[str, float] = {}
        self._sent_at = -REPORT_SECONDS

    def note(self, step: int, values: dict[str, Any]) -> None:
        """Remember the newest number of each name."""
        if self._job is not None:
            self._step = step
            self._latest.update({name: value for name, value in values.items() if isinstance(value, (int, float)) and name != "step"})

    def send(self, *, is_last: bool = False) -> None:
        """Report what came since the last time, unless that was less than a second ago."""
        now = time.monotonic()
        if self._job is None or not self._latest or (now - self._sent_at < REPORT_SECONDS and not is_last):
            return
        latest = self._latest
        self._sent_at = now
        self._latest = {}
        try:
            self._job.report(self._step, **latest)
        except (OSError, ValueError) as error:
            _log.warning("The job's metrics could not be reported: %s", error)


class WriterThread:
    """Drains channels each second until it is closed. Use the process's own, `process_writer()`.

    Args:
        interval: Seconds between two rounds.
        job: The job that rows are reported to.
    """

    def __init__(self, *, interval: float = FLUSH_SECONDS, job: Job | None = None) -> None:
        self._interval = interval
        self._job_report = JobReport(job)
        self._channels: list[Channel] = []
        self._requests: SimpleQueue[SimpleQueue[bool] | None] = SimpleQueue()  # its `put` may interrupt itself: made for handlers
        self._is_stopping = False
        self._thread: threading.Thread | None = None

    @property
    def channels(self) -> list[Channel]:
        """The channels that are open, those that may hang last."""
        return [channel for channel in self._channels if not channel.closed]

    def open(self, sink: Sink, label: str, *, wake_at: int = LIMIT, limit: int = LIMIT, is_remote: bool = False) -> Channel:
        """Return a new channel into `sink`, and start the thread at the first; arguments as for `Channel`."""
        if self._thread is None:
            # A daemon, so that a hung back-end cannot keep the interpreter; `close` at exit gives it a fair time.
            thread = threading.Thread(target=self._run, name="leyden-logger-writer", daemon=True)
            try:
                thread.start()
                self._thread = thread
            except RuntimeError:  # the interpreter is ending: every entry is written where it is logged
                wake_at = 1
        channel = Channel(sink, label, wake=self.wake, observe=self._job_report.note, wake_at=wake_at, limit=limit, is_remote=is_remote)
        # Replaced, not changed: the thread may be iterating.
        self._channels = sorted([*self.channels, channel], key=lambda each: each.is_remote)
        return channel

    def wake(self) -> None:
        """Start the next round now."""
        if self._thread is None:
            self._round()
        else:
            self._requests.put(None)

    def flush(self, timeout: float) -> bool:
        """Drain every channel; return whether nothing was left within `timeout` seconds."""
        if self._thread is None or not self._thread.is_alive() or self._thread is threading.current_thread():
            return self._round()
        reply: SimpleQueue[bool] = SimpleQueue()
        self._requests.put(reply)
        try:
            return reply.get(timeout=timeout)
        except Empty:
            return False

    def close(self, timeout: float) -> bool:
        """Drain every channel and end the thread; return whether nothing was left within `timeout` seconds."""
        is_clean = self.flush(timeout)
        self._is_stopping = True
        if self._thread is not None:
            self.wake()
            self._thread.join(timeout=1.0 if is_clean else 0.0)
        self._job_report.send(is_last=True)
        for channel in self.channels:
            if lost := channel.close():
                warnings.warn(f"{channel.label}: {lost} entries were not written.", stacklevel=3)
        return is_clean

    def _run(self) -> None:
        while not self._is_stopping:
            replies = [self._next_request(self._interval)]
            while not self._requests.empty():
                replies.append(self._next_request(0.0))
            is_clean = self._round()
            for reply in replies:
                if reply is not None:
                    reply.put(is_clean)

    def _next_request(self, timeout: float) -> "SimpleQueue[bool] | None":
        try:
            return self._requests.get(timeout=timeout)
        except Empty:
            return None

    def _round(self) -> bool:
        # A channel that somebody else drains is skipped after a moment: the others must not wait for it.
        is_clean = True
        for channel in self.channels:
            is_clean = (channel.num_waiting == 0 or channel.drain(patience=1.0)) and is_clean
        self._job_report.send()
        return is_clean


_writer: WriterThread | None = None  # one per process by design; made at the first row, replaced after a fork
_held = threading.local()


def process_writer() -> WriterThread:
    """Return this process's writer."""
    global _writer  # noqa: PLW0603 - the one owner of the process's thread
    if _writer is None:
        _writer = WriterThread(job=current_job())
        flush_first_at_exit()
        lifeline.on_death(flush_all)  # a rank whose peer has died leaves by os._exit
    return _writer


def flush_all(timeout: float = 5.0) -> bool:
    """Write everything that loggers of this process hold; for a process that is about to die.

    Args:
        timeout: Seconds to wait at most, also where a back-end hangs.

    Returns:
        Whether everything was written.
    """
    return _writer is None or _writer.flush(timeout)


def flush_first_at_exit() -> None:
    """Have the writer flushed before all that registered with `atexit` until now; to be called again after a back-end did."""
    atexit.unregister(_at_exit)
    atexit.register(_at_exit)
    # Children of multiprocessing end by os._exit, without atexit; finalizers of this kind they do run.
    multiprocessing_util.Finalize(None, _at_exit, exitpriority=100)


def _at_exit() -> None:
    global _writer
    if _writer is not None:
        writer, _writer = _writer, None
        writer.close(EXIT_SECONDS)


def _before_fork() -> None:
    # Between two writes, so that the child finds no file half-written and no state half-changed.
    _held.channels = [channel for channel in _writer.channels if channel.hold(FLUSH_SECONDS)] if _writer is not None else []


def _after_fork_in_parent() -> None:
    for channel in _held.channels:
        channel.let_go()


def _after_fork_in_child() -> None:
    global _writer  # noqa: PLW0603 - as above
    if _writer is not None:
        for channel in _writer.channels:
            channel.abandon()
        _writer = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
