"""Stopping: signals set a flag, an `Agreement` turns it into one step for all ranks, `StopRequests` is both.

A handler must not communicate (a collective in a handler deadlocks), so it only notes the signal; the agreement's thread
reads the note. Handlers that were there before are still called, and come back at the end. Who sends the signal a second
time does not want to wait: the process flushes what `on_death` knows and exits.
"""

import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import Any, final

from leyden.core.errors import CorruptDataError
from leyden.core.job import EXIT_PREEMPTED, Job, current_job
from leyden.core.log import get_logger
from leyden.fabric.launch.agreement import Agreement, Decision
from leyden.fabric.launch.lifeline import run_death_callbacks
from leyden.fabric.launch.store import KeyValueStore

STOP = "stop"
DEFAULT_SIGNALS = (signal.SIGTERM,)
_logger = get_logger(__name__)


@dataclass(frozen=True)
class Stop:
    """All ranks stop at this step.

    Args:
        reason: Why: a signal's name, or what the job says (`"preempted"`, `"user"`, `"timeout"`, …).
        signal: The signal's number; `None` where the job asked by file.
        exit_code: What to leave with: 75 inside a Leyden job (start me again), else 128 + the signal.
    """

    reason: str
    signal: int | None
    exit_code: int

    @classmethod
    def of(cls, reason: str, number: int | None, *, in_job: bool) -> "Stop":
        """Describe a stop."""
        return cls(reason, number, EXIT_PREEMPTED if in_job else 128 + (number or signal.SIGTERM))


@final
class SignalFlags:
    """Notes signals. `restore` puts the former handlers back.

    Args:
        numbers: Which signals.
    """

    def __init__(self, numbers: Sequence[int] = DEFAULT_SIGNALS) -> None:
        self.received: int | None = None
        self._seen: set[int] = set()
        self._pid = os.getpid()
        self._previous: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():  # Python lets no other install handlers
            for number in numbers:
                self._previous[number] = signal.signal(number, self._note)

    def restore(self) -> None:
        """Put the former handlers back, except where somebody has replaced ours since. Idempotent."""
        previous = dict(self._previous)
        self._previous.clear()
        if threading.current_thread() is threading.main_thread():
            for number, handler in previous.items():
                if signal.getsignal(number) == self._note:
                    signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a forked helper process: it has nobody to agree with
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if number == signal.SIGTERM and number in self._seen:
            run_death_callbacks(1.0)
            os._exit(128 + number)
        self._seen.add(number)
        if self.received is None:
            self.received = number
        previous = self._previous.get(number)
        if callable(previous) and previous is not signal.default_int_handler:
            previous(number, frame)


@final
class StopRequests:
    """What `fabric.stop_requested()` stands on: `boundary` once per step on every rank.

    Args:
        store: The run's store.
        rank: This process's rank.
        world_size: How many ranks there are.
        signals: Which signals ask to stop; SIGUSR1 too where Slurm requeues.
        timeout: How long a rank waits for the others at most.
        job: Finds the job this process runs in.
        poll_seconds: How often signals and the job's stop file are looked at.
    """

    def __init__(
        self,
        store: KeyValueStore,
        rank: int,
        world_size: int,
        *,
        signals: Sequence[int] = DEFAULT_SIGNALS,
        timeout: timedelta = timedelta(minutes=30),
        job: Callable[[], Job | None] = current_job,
        poll_seconds: float | None = None,
    ) -> None:
        self._job = job()
        self._is_alone = world_size == 1
        self._flags = SignalFlags(signals)
        self._stop: Stop | None = None
        self.agreement = Agreement(
            store, rank, world_size, sources=(self._from_signal, self._from_job), timeout=timeout, poll_seconds=poll_seconds
        )

    def boundary(self) -> Stop | None:
        """Count one finished step; the stop, from the agreed step on."""
        if self._is_alone and self._flags.received is not None and (wanted := self._from_signal()) is not None:
            self.agreement.request(*wanted)  # need not wait for the thread to look
        decision = self.agreement.boundary()
        if decision is not None and decision.kind == STOP:
            reason, number = json.loads(decision.payload)
            self._stop = Stop.of(reason, number, in_job=self._job is not None)
        return self._stop

    def close(self) -> None:
        """End the thread and put the handlers back. Idempotent."""
        self.agreement.close()
        self._flags.restore()

    def _from_signal(self) -> Decision | None:
        number = self._flags.received
        if number is None or self._stop is not None:
            return None
        self._flags.received = None
        reason = (self._job.stop_reason() if self._job is not None else None) or signal.Signals(number).name
        return Decision(STOP, json.dumps([reason, number]))

    def _from_job(self) -> Decision | None:
        if self._job is None or self._stop is not None:
            return None
        with contextlib.suppress(CorruptDataError):  # half a file is no request yet; a whole one comes at the next poll
            reason = self._job.stop_reason()
            return None if reason is None else Decision(STOP, json.dumps([reason, None]))
        return None
