"""Stopping: what is asked for between two batches, agreed on by all ranks without a collective.

Signals and requests only leave a note. `boundary()` is called after every batch: on one rank it reads the notes, on several
it is fabric's `Agreement`, which lets every rank act after the same batch.
"""

import contextlib
import json
import signal
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol, final

from leyden.core.errors import CorruptDataError
from leyden.core.job import Job
from leyden.fabric.launch.agreement import Agreement, Decision
from leyden.fabric.launch.signals import SignalFlags

STOP, PREEMPT, REQUEUE, TERMINATE, KEEP = "stop", "preempt", "requeue", "terminate", "keep"
_ENDS_NORMALLY = ("pruned", "user")


class SIGTERMException(SystemExit):
    """Raised at the agreed batch after a SIGTERM, so that callbacks and loggers learn of it; exit status 143."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


class Interrupted(KeyboardInterrupt, SystemExit):
    """Ctrl-C: a `KeyboardInterrupt` to notebooks, exit status 130 to a shell."""

    def __init__(self) -> None:
        KeyboardInterrupt.__init__(self)
        self.code = 130


class EndOfRun(Exception):  # noqa: N818 - no error
    """Raised by a hook to end the entry point there, and well: the run is torn down as at its end. What a tuner needs."""


class Boundary(Protocol):
    """What loops ask after every batch."""

    def __call__(self) -> Decision | None:
        """Count a batch, and return what all ranks do now."""

    def request(self, kind: str, payload: str = "") -> None:
        """Ask for something."""

    def close(self) -> None:
        """Put the handlers back."""


class Sources:
    """Where requests come from: signals, and a job's stop file.

    Args:
        flags: The signals received.
        job: The job this process runs in, if any.
        requeue_signal: The signal after which Slurm starts the job again, if it does.
    """

    def __init__(self, flags: SignalFlags, job: Job | None, requeue_signal: int | None) -> None:
        self._flags, self._job, self._requeue_signal = flags, job, requeue_signal
        self._told_of_job = False
        self.received_sigterm = False

    def from_signal(self) -> Decision | None:
        """Return what a signal asks for."""
        number = self._flags.received
        if number is None:
            return None
        self._flags.received = None
        if self._requeue_signal is not None:
            return Decision(REQUEUE) if number == self._requeue_signal else None  # SIGTERM is bypassed there
        self.received_sigterm = number == signal.SIGTERM
        if self._job is not None:
            return self._leaving(self._reason() or signal.Signals(number).name)
        return Decision(TERMINATE, signal.Signals(number).name)

    def from_job(self) -> Decision | None:
        """Return what the job's stop file asks for, once."""
        reason = None if self._told_of_job else self._reason()
        if reason is None:
            return None
        return self._leaving(reason)

    def _leaving(self, reason: str) -> Decision:
        self._told_of_job = True  # by signal and file alike: whoever writes the file sends a signal too
        return Decision(STOP if reason in _ENDS_NORMALLY else PREEMPT, reason)

    def _reason(self) -> str | None:
        if self._job is None:
            return None
        with contextlib.suppress(CorruptDataError):  # half a file is no request yet
            return self._job.stop_reason()
        return None


@final
class LocalBoundary:
    """The boundary of a run of one rank outside of jobs: no thread, no store."""

    def __init__(self, signals: Sequence[int], *, requeue_signal: int | None = None) -> None:
        self._flags = SignalFlags(signals)
        self.sources = Sources(self._flags, None, requeue_signal)
        self._wanted: deque[Decision] = deque()

    def __call__(self) -> Decision | None:
        if self._flags.received is not None and (decision := self.sources.from_signal()) is not None:
            return decision
        return self._wanted.popleft() if self._wanted else None

    def request(self, kind: str, payload: str = "") -> None:
        """Act at the next boundary; the same request twice is one."""
        if Decision(kind, payload) not in self._wanted:
            self._wanted.append(Decision(kind, payload))

    def close(self) -> None:
        """Put the handlers back. Idempotent."""
        self._flags.restore()


@final
class SharedBoundary:
    """The boundary of several ranks, or of a job.

    Args:
        store: The run's key-value store.
        rank: This process's rank.
        world_size: How many ranks there are.
        signals: Which signals ask for something.
        job: The job this process runs in, if any.
        requeue_signal: The signal after which Slurm starts the job again, if it does.
        others: Asked besides, in the thread that listens: a decision that somebody wants, or `None`.
    """

    def __init__(
        self,
        store: Any,
        rank: int,
        world_size: int,
        signals: Sequence[int],
        *,
        job: Job | None,
        requeue_signal: int | None = None,
        others: Sequence[Callable[[], Decision | None]] = (),
    ) -> None:
        self._flags = SignalFlags(signals)
        self.sources = Sources(self._flags, job, requeue_signal)
        self._agreement = Agreement(store, rank, world_size, sources=(self.sources.from_signal, self.sources.from_job, *others))
        self.request: Callable[..., None] = self._agreement.request
        self._ask = self._agreement.boundary

    def __call__(self) -> Decision | None:
        return self._ask()

    def close(self) -> None:
        """Leave the agreement and put the handlers back. Idempotent."""
        self._agreement.close()
        self._flags.restore()


class NoBoundary:
    """The boundary of a trial, and of a run before its loop: nothing is decided, and what is asked for is only remembered."""

    def __init__(self) -> None:
        self.asked: list[Decision] = []

    def __call__(self) -> Decision | None:
        return None

    def request(self, kind: str, payload: str = "") -> None:
        """Remember it for the boundary of the loop."""
        self.asked.append(Decision(kind, payload))

    def close(self) -> None:
        """Do nothing."""


def reason_of(decision: Decision) -> str:
    """Return a decision's reason as text.

    Example:
        >>> reason_of(Decision("stop", json.dumps("enough")))
        'enough'
    """
    try:
        return str(json.loads(decision.payload))
    except ValueError:
        return decision.payload
