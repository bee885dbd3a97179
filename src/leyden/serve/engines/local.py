"""`LocalEngine`: workers as processes of this machine, started anew (not forked: models and threads do not mix with that)."""

import contextlib
import dataclasses
import itertools
import multiprocessing
import shutil
import socket
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

from leyden.core.errors import StateError
from leyden.core.log import get_logger, shown
from leyden.serve.control import ORPHANED, SETUP_FAILED
from leyden.serve.effects import WorkerId
from leyden.serve.engines.base import Gone, Logged, Ready, ReplicaEvent, ReplicaHandle, ReplicaSpec
from leyden.serve.errors import LinkError
from leyden.serve.loading import GUARD, refuse_while_importing
from leyden.serve.processes import Child, death, let_go
from leyden.serve.wire import Decoder, Frame, Kind, encode
from leyden.serve.worker import worker_main

_READ_BYTES = 1 << 16
_MOST_READS = 16  # of one worker, before the others get a turn: one that logs without end must not hold up the supervisor
_END_SECONDS = 5.0
_logger = get_logger(__name__)


@final
class LocalReplica:
    """A worker process of this machine, and its control line."""

    node = "localhost"

    def __init__(self, worker: WorkerId, address: str, process: Any, control: socket.socket) -> None:
        self.worker, self.address = worker, address
        self.process, self.control = process, control
        self.child = Child(process.pid, process.sentinel)
        self.pid: int = process.pid
        self.decoder = Decoder()
        self.ends_at: float | None = None  # when it is ended if it has not by then
        self.is_ready = False
        self.last: tuple[str, str] | None = None  # what it said before it failed

    def close(self) -> None:
        """Let go of a process that has ended."""
        self.control.close()
        let_go(self.process, self.child.status)


@final
class LocalEngine:
    """Starts workers with `multiprocessing`.

    Args:
        may_die_with_thread: Whether this is the main thread, so that the kernel may tie the workers' lives to it.

    Raises:
        StateError: The script is only imported here, by a worker or by the command line.
    """

    def __init__(self, *, may_die_with_thread: bool = True) -> None:
        refuse_while_importing()
        self._ties = may_die_with_thread
        self._context = multiprocessing.get_context("spawn")
        self._folder = tempfile.mkdtemp(prefix="leyden-")  # only for this user; right under the temporary root: paths of sockets are short
        self._numbers = itertools.count()
        self._replicas: list[LocalReplica] = []

    def start(self, spec: ReplicaSpec) -> ReplicaHandle:
        """Start a worker; returns before it is ready."""
        api, index = spec.worker
        address = str(Path(self._folder, f"w{api}-{index}-{next(self._numbers)}.sock"))
        what = dataclasses.replace(spec.what, address=address, dies_with_parent=self._ties, log=spec.what.log or shown())
        ours, theirs = socket.socketpair()
        process = self._context.Process(target=worker_main, args=(what, theirs), name=what.name)
        try:
            process.start()
        except RuntimeError as error:
            raise StateError(f"worker processes cannot be started here: {error}. {GUARD}") from error
        finally:
            theirs.close()
        ours.settimeout(0)
        replica = LocalReplica(spec.worker, address, process, ours)
        self._replicas.append(replica)
        return replica

    def stop(self, handle: ReplicaHandle, drain_seconds: float) -> None:
        """Let a worker end what it has; after so many seconds it is ended."""
        replica = next((each for each in self._replicas if each is handle), None)
        if replica is None:
            return
        replica.ends_at = time.monotonic() + drain_seconds
        if not replica.is_ready:  # it has nothing, and does not listen before its setup is over
            replica.child.kill()
            return
        with contextlib.suppress(OSError):  # it is gone: its descriptor says so
            replica.control.sendall(encode(Kind.DRAIN, 0)[0])

    def kill(self, handle: ReplicaHandle, why: str) -> None:
        """End a worker at once; `Gone` tells why."""
        replica = next((each for each in self._replicas if each is handle), None)
        if replica is not None:
            replica.last = replica.last or (why, "")
            replica.child.kill()

    def events(self) -> Sequence[ReplicaEvent]:
        """Return what has happened since the last call."""
        found = list[ReplicaEvent]()
        now = time.monotonic()
        for replica in list(self._replicas):
            found += self._heard(replica, _MOST_READS)
            if replica.ends_at is not None and now >= replica.ends_at:
                replica.child.kill()
                replica.ends_at = None
            if replica.child.has_ended():
                found += self._heard(replica)  # its last words
                found.append(self._ended(replica))
        return found

    def _heard(self, replica: LocalReplica, most: int | None = None) -> list[ReplicaEvent]:
        frames = list[Frame]()
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            for _ in itertools.repeat(None) if most is None else range(most):
                data = replica.control.recv(_READ_BYTES)
                if not data:
                    break
                try:
                    frames += replica.decoder.feed(data)
                except LinkError:
                    _logger.exception("worker %s sends what is no frame, and is ended", replica.worker)
                    replica.child.kill()
        return [event for frame in frames if (event := self._event(replica, frame)) is not None]

    def _event(self, replica: LocalReplica, frame: Frame) -> ReplicaEvent | None:
        if frame.kind is Kind.LOG:
            return Logged(replica.worker.api, frame.meta["k"], bytes(frame.body), frame.meta.get("d", 0))
        if frame.kind is Kind.BYE and "d" in frame.meta:
            return Logged(replica.worker.api, "", b"", frame.meta["d"])
        if frame.kind is not Kind.STATE:
            return None
        if frame.meta["state"] == "ready":
            replica.is_ready = True
            return Ready(replica, frame.meta["setup_seconds"])
        replica.last = frame.meta["message"], bytes(frame.body).decode("utf-8", "replace")
        return None

    def _ended(self, replica: LocalReplica) -> Gone:
        self._replicas.remove(replica)
        replica.close()
        with contextlib.suppress(OSError):
            Path(replica.address).unlink()
        status = replica.child.status or 0
        if replica.last is not None:
            return Gone(replica, *replica.last)
        phase = "" if replica.is_ready else " in its setup"
        hint = f". {GUARD}" if not replica.is_ready and status not in (SETUP_FAILED, ORPHANED) and status > 0 else ""
        return Gone(replica, f"The worker {death(status)}{phase}{hint}")

    def descriptors(self) -> Sequence[int]:
        """Return the file descriptors that become readable when there may be events."""
        ours = [replica.control.fileno() for replica in self._replicas]
        return [*ours, *(replica.child.descriptor for replica in self._replicas if replica.child.descriptor >= 0)]

    def next_wakeup(self) -> float | None:
        """Return when a worker that was to end is ended."""
        return min((replica.ends_at for replica in self._replicas if replica.ends_at is not None), default=None)

    def close(self) -> None:
        """End all workers, and remove the folder of their sockets."""
        for replica in self._replicas:
            replica.child.kill()
        for replica in self._replicas:
            replica.child.wait(_END_SECONDS)
            replica.close()
        self._replicas.clear()
        shutil.rmtree(self._folder, ignore_errors=True)
