"""`ReplicaEngine`: starts and ends workers, wherever they run. What they compute never passes through it: frames carry that.

An engine says what has happened in `events`; the supervisor waits for its file descriptors, asks, and decides. So an engine has
no thread and calls nobody.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from leyden.serve.effects import WorkerId
from leyden.serve.worker import WorkerSpec


class ReplicaSpec(NamedTuple):
    """A worker to be started.

    Args:
        worker: Which.
        what: What it is to be; the engine puts in where it listens.
    """

    worker: WorkerId
    what: WorkerSpec


class ReplicaHandle(Protocol):
    """A worker that an engine has started.

    Attributes:
        worker: Which.
        address: Where front ends find it.
        node: The machine it is on.
        pid: Of its process there.
    """

    worker: WorkerId
    address: str
    node: str
    pid: int


class Ready(NamedTuple):
    """A worker takes requests."""

    replica: ReplicaHandle
    setup_seconds: float


class Gone(NamedTuple):
    """A worker's process has ended, with all that it had.

    Args:
        replica: Which.
        why: In words, for logs and for those who ask.
        traceback: What it said last; empty if it could say nothing.
    """

    replica: ReplicaHandle
    why: str
    traceback: str = ""


class Logged(NamedTuple):
    """A worker hands a value to the loggers.

    Args:
        api: The number of its API.
        key: Its name.
        value: The value, as msgpack; empty if there is only a number of dropped ones to tell.
        dropped: How many the worker has dropped before it.
    """

    api: int
    key: str
    value: bytes
    dropped: int = 0


ReplicaEvent = Ready | Gone | Logged


class ReplicaEngine(Protocol):
    """Starts and ends workers."""

    def start(self, spec: ReplicaSpec) -> ReplicaHandle:
        """Start a worker; returns before it is ready.

        Raises:
            OSError: No process can be had.
        """
        ...

    def stop(self, handle: ReplicaHandle, drain_seconds: float) -> None:
        """Let a worker end what it has; after so many seconds it is ended. Returns at once."""
        ...

    def kill(self, handle: ReplicaHandle, why: str) -> None:
        """End a worker at once; `Gone` tells why. Nothing, if it is gone already."""
        ...

    def events(self) -> Sequence[ReplicaEvent]:
        """Return what has happened since the last call, without waiting."""
        ...

    def descriptors(self) -> Sequence[int]:
        """Return the file descriptors that become readable when there may be events."""
        ...

    def next_wakeup(self) -> float | None:
        """Return when `events` has something to do of its own, on `time.monotonic`; `None` if never."""
        ...

    def close(self) -> None:
        """End all that is left, and clean up."""
        ...
