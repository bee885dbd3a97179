"""Worker processes of a driver: one unit each at a time, watched from outside.

A worker says in shared memory which input it is at, so that a death, a hang or a memory blow-up has a culprit. Pipes and
process sentinels are all that is waited for: there are no queues with feeder threads, which a kill would leave locked.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Sequence
from ctypes import c_uint64
from multiprocessing import process
from multiprocessing.connection import Connection, wait
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from typing import Any, NamedTuple, final

from leyden.core.clock import Clock, SystemClock
from leyden.core.errors import ConfigError, LeydenError, RemoteError, StateError, StorageError
from leyden.data.write.files import run_files_unit
from leyden.data.write.litdata_packing import run_litdata_pack
from leyden.data.write.packing import Pack, run_pack
from leyden.data.write.unit import ONE_INPUT_TEXT, Failure, Task, UnitFailed, run_unit

_LOOK_SECONDS = 0.5
_END_SECONDS = 5.0
_GUARD = 'Put the code that starts work below `if __name__ == "__main__":`, because worker processes import the script.'
_MODULES = ["leyden.data.write.pool"]  # imported once, by the process that workers are forked from


class Order(NamedTuple):
    """A unit to be done.

    Args:
        unit: Its number.
        first: The number of its first input.
        inputs: Its inputs.
        without: Inputs to leave out, by number.
        packs: Whether its one input is a `Pack`.
    """

    unit: int
    first: int
    inputs: Sequence[Any]
    without: frozenset[int] = frozenset()
    packs: bool = False


class Outcome(NamedTuple):
    """What became of a unit.

    Args:
        order: What was to be done.
        kind: `done`, `failed` (an input raised), `died` (the worker ended or was ended), `storage`, `error` (of ours).
        record: Of a unit that is done.
        failure: What an input raised, or which one a worker died of; `None` if it was at none.
        error: What else was raised, or how a worker ended that was at no input.
    """

    order: Order
    kind: str
    record: dict[str, Any] | None = None
    failure: Failure | None = None
    error: Exception | None = None


class Pool(ABC):
    """Does units."""

    @abstractmethod
    def is_free(self) -> bool:
        """Return whether a unit can be given."""

    @abstractmethod
    def is_busy(self) -> bool:
        """Return whether a unit is being done."""

    @abstractmethod
    def give(self, order: Order) -> None:
        """Begin a unit."""

    @abstractmethod
    def outcomes(self) -> list[Outcome]:
        """Wait a while for units to end, and return what became of them."""

    @abstractmethod
    def inputs_done(self) -> int:
        """Return how many inputs of the running units are behind."""

    @abstractmethod
    def close(self) -> None:
        """End all workers."""


@final
class InlinePool(Pool):
    """Does units in this process, so that a debugger works.

    Args:
        task: The job's.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._ended: list[Outcome] = []

    def is_free(self) -> bool:
        return not self._ended

    def is_busy(self) -> bool:
        return bool(self._ended)

    def give(self, order: Order) -> None:
        self._ended.append(_outcome_of(self._task, order, _hear_nothing))

    def outcomes(self) -> list[Outcome]:
        ended, self._ended = self._ended, list[Outcome]()
        return ended

    def inputs_done(self) -> int:
        return 0

    def close(self) -> None:
        pass


@final
class ProcessPool(Pool):
    """Does units in worker processes.

    Args:
        task: The job's.
        workers: How many.
        start_method: `forkserver`, `spawn` or `fork`.
        timeout: Seconds an input may take; `None`: any time.
        memory_limit: Bytes a worker may hold; `None`: any number.
        clock: Measures the time of inputs.

    Raises:
        ConfigError: The function cannot be sent to another process.
    """

    def __init__(
        self,
        task: Task,
        workers: int,
        *,
        start_method: str | None = None,
        timeout: float | None = None,
        memory_limit: int | None = None,
        clock: Clock | None = None,
    ) -> None:
        if getattr(process.current_process(), "_inheriting", False):
            raise StateError(f"a job with workers was started while the script was imported by a worker. {_GUARD}")
        self._context: Any = multiprocessing.get_context(start_method or _best_start_method())
        if self._context.get_start_method() == "forkserver":
            self._context.set_forkserver_preload([*_MODULES, *(["torch"] if "torch" in sys.modules else [])])
        self._packed = _packed(task)
        self._timeout, self._memory_limit, self._clock = timeout, memory_limit, clock or SystemClock()
        self._workers = [self._start(number) for number in range(workers)]

    def _start(self, number: int) -> "_Worker":
        return _Worker(self._context, self._packed, self._clock, number)

    def is_free(self) -> bool:
        return any(worker.order is None for worker in self._workers)

    def is_busy(self) -> bool:
        return any(worker.order is not None for worker in self._workers)

    def give(self, order: Order) -> None:
        next(worker for worker in self._workers if worker.order is None).give(order)

    def outcomes(self) -> list[Outcome]:
        handles = [handle for worker in self._workers for handle in (worker.pipe, worker.process.sentinel)]
        ready = wait(handles, _LOOK_SECONDS)
        ended = []
        for place, worker in enumerate(self._workers):
            reason = self._reason_to_end(worker)
            if reason:
                worker.kill()
            outcome = worker.outcome(reason) if reason or worker.pipe in ready or worker.process.sentinel in ready else None
            if outcome is not None:
                ended.append(outcome)
            if worker.order is None and not worker.is_alive():  # one that died since it was waited for still owes its outcome
                worker.close()
                self._workers[place] = self._start(place)
        return ended

    def _reason_to_end(self, worker: "_Worker") -> str:
        if worker.order is None:
            return ""
        if self._timeout is not None and worker.seconds_at_input() > self._timeout:
            return f"it took longer than timeout={self._timeout:g} seconds"
        if self._memory_limit is not None and _resident_bytes(worker.process.pid) > self._memory_limit:
            return f"its worker held more than memory_limit={self._memory_limit:,} bytes"
        return ""

    def inputs_done(self) -> int:
        return sum(worker.inputs_done() for worker in self._workers)

    def close(self) -> None:
        for worker in self._workers:
            worker.pipe.close()  # an idle worker ends by itself
        for worker in self._workers:
            if worker.order is not None:
                worker.kill()
            worker.process.join(_END_SECONDS)
            worker.close()


@final
class _Worker:
    """A worker process, and the unit that it has."""

    def __init__(self, context: Any, packed: bytes, clock: Clock, number: int) -> None:
        self.pipe, theirs = context.Pipe()
        self._place = RawArray(c_uint64, 2)  # the input that it is at, plus one; 0 before the first; and whether it has begun
        self.process = context.Process(target=_work, args=(theirs, packed, self._place), name=f"leyden-worker-{number}", daemon=True)
        self.process.start()
        theirs.close()
        self.order: Order | None = None
        self._clock, self._seen, self._since = clock, 0, clock.monotonic()

    def give(self, order: Order) -> None:
        self._place[0] = 0
        self.order, self._seen, self._since = order, 0, self._clock.monotonic()
        with contextlib.suppress(OSError):  # it died just now: its sentinel says so
            self.pipe.send(order)

    def outcome(self, reason: str) -> Outcome | None:
        """Return what became of the unit; `None` while it is being done."""
        if self.order is None:
            return None
        order = self.order
        with contextlib.suppress(EOFError, OSError):
            if not reason and self.pipe.poll():
                kind, value = self.pipe.recv()
                self.order = None
                return Outcome(order, kind, **value)
        if not reason and self.process.is_alive():
            return None
        self.process.join(_END_SECONDS)
        self.order = None
        if not self._place[1] and not reason:
            death = _death(self.process.exitcode)
            return Outcome(order, "error", error=RemoteError(f"{death} before it began; what it printed says why. {_GUARD}"))
        death = reason or _death(self.process.exitcode)
        if not self._is_at_input(order):
            return Outcome(order, "died", error=_no_inputs_fault(order, death))
        index = int(self._place[0]) - 1
        return Outcome(order, "died", failure=Failure(index, f"{order.inputs[index - order.first]!r}"[:ONE_INPUT_TEXT], death, ""))

    def _is_at_input(self, order: Order) -> bool:
        """Return whether it works on an input, not on what comes before the first one or after the last."""
        return not order.packs and 0 < self._place[0] - order.first <= len(order.inputs)

    def seconds_at_input(self) -> float:
        """Return for how long it has been at the same input; 0 if it is at none."""
        if self._place[0] != self._seen:
            self._seen, self._since = int(self._place[0]), self._clock.monotonic()
        return self._clock.monotonic() - self._since if self.order is not None and self._is_at_input(self.order) else 0.0

    def inputs_done(self) -> int:
        """Return how many inputs of its unit are behind."""
        return 0 if self.order is None or not self._place[0] else int(self._place[0]) - 1 - self.order.first

    def is_alive(self) -> bool:
        """Return whether the process runs."""
        return bool(self.process.is_alive())

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.join(_END_SECONDS)

    def close(self) -> None:
        """Let go of an ended process."""
        self.pipe.close()
        if self.process.is_alive():
            self.kill()
        self.process.close()


def _hear_nothing(index: int) -> None:
    pass


def _work(pipe: Connection, packed: bytes, place: Any) -> None:
    """Do units until the driver closes the pipe, or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver decides
    task: Task = pickle.loads(packed)  # noqa: S301 - from our own process
    place[1] = 1

    def report(index: int) -> None:
        place[0] = index + 1

    with contextlib.suppress(EOFError, OSError):
        while True:
            outcome = _outcome_of(task, pipe.recv(), report)
            pipe.send((outcome.kind, {"record": outcome.record, "failure": outcome.failure, "error": outcome.error}))


def _outcome_of(task: Task, order: Order, report: Any) -> Outcome:
    try:
        if order.packs:
            return Outcome(order, "done", _run_pack(task, order.unit, order.inputs[0]))
        run = task.run or (run_files_unit if task.writes_files else run_unit)
        return Outcome(order, "done", run(task, order.unit, order.first, order.inputs, order.without, report))
    except UnitFailed as error:
        return Outcome(order, "failed", failure=error.failure)
    except StorageError as error:
        return Outcome(order, "storage", error=error)
    except Exception as error:  # noqa: BLE001 - reported by the driver, with its traceback
        return Outcome(order, "error", error=error if isinstance(error, LeydenError) else RuntimeError(traceback.format_exc()))


def _run_pack(task: Task, unit: int, pack: Pack) -> dict[str, Any]:
    return run_pack(task, unit, pack) if task.litdata is None else run_litdata_pack(task, task.litdata, unit, pack)


def _packed(task: Task) -> bytes:
    try:
        return pickle.dumps(task, protocol=5)
    except Exception as error:
        raise ConfigError(
            f"fn={task.function!r} cannot be sent to worker processes ({error}). Define it at the top of a module (no lambda, no "
            "function inside a function), or pass num_workers=0."
        ) from error


def _best_start_method() -> str:
    return "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def _death(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        guess = " (out of memory?)" if name == "SIGKILL" else ""
        return f"its worker was ended by {name}{guess}"
    return f"its worker ended with status {exit_code}"


def _no_inputs_fault(order: Order, death: str) -> RemoteError:
    what = f"pack {order.unit}" if order.packs else f"the unit of inputs {order.first:,} to {order.first + len(order.inputs) - 1:,}"
    return RemoteError(
        f"{what} could not be finished: {death}, again and again, while no input was at work. Everything that was done is kept: if it "
        "ran out of memory, run the same command with fewer workers, or with a larger memory_limit."
    )


def _resident_bytes(pid: int | None) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
