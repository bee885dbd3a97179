"""`ProcessRunner`: makes trays in worker processes, for code of the user's that holds the interpreter's lock.

Each worker has a pipe and a few shared regions. The consumer says which rows, the worker answers where the tray lies; the
batches are views of the region. There are no queues with feeder threads, no named shared memory, and nothing is sent per
sample. A worker that dies is replaced and its trays are made again, once: they are functions of the data alone.
"""

import collections
import contextlib
import itertools
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import weakref
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import process, reduction
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from leyden.core.errors import ConfigError, ConfigTypeError, RemoteError, StateError
from leyden.data.loader.runner import Runner, Watch
from leyden.data.loader.shared import Region, unpack
from leyden.data.loader.trays import Task
from leyden.data.loader.work import Made, Work
from leyden.data.loader.worker import Answer, Request, Start, rows_to_bytes, run_worker

_log = logging.getLogger(__name__)
_END_SECONDS = 5.0
_MODULES = ["leyden.data.loader.worker"]
_GUARD = 'Put the code that starts work below `if __name__ == "__main__":`, because worker processes import the script.'
_EVICTIONS = 8  # of blocks of one tray, after which the cache is too small for it
_OPEN: set[int] = set()  # file descriptors of all consumers' ends, which a forked worker must not hold


class _Wanted(NamedTuple):
    """A tray that was given, and by which ticket."""

    ticket: int
    task: Task


@final
class ProcessRunner(Runner):
    """Makes trays in worker processes.

    Args:
        work: What is done with each.
        watch: How long one waits for it.
        workers: How many processes.
        prefetch: How many trays each may be ahead.
        context: How they are started: `forkserver`, `spawn`, `fork`, a context, or `None` for what suits.
        init: Called in each with its number.
        profile: Where each worker's profile goes; `None` makes none.

    Raises:
        ConfigError: The user's functions cannot be sent to other processes.
        StateError: This is a worker itself, which imports the script.
    """

    def __init__(
        self,
        work: Work,
        watch: Watch,
        workers: int,
        prefetch: int,
        context: Any = None,
        init: Callable[[int], Any] | None = None,
        profile: Path | None = None,
    ) -> None:
        super().__init__(work, watch)
        if getattr(process.current_process(), "_inheriting", False):
            raise StateError(f"a loader with workers was started while the script was imported by a worker. {_GUARD}")
        self._context = _context_for(work, init, context)
        self._init, self._profile, self._most = init, profile, workers * prefetch
        self._tickets = itertools.count(1)
        self._wanted: collections.deque[_Wanted] = collections.deque()
        self._done: dict[int, Made | BaseException] = {}
        self._deaths: collections.Counter[int] = collections.Counter()
        self._evictions: collections.Counter[int] = collections.Counter()
        self._workers: list[_Worker] = []
        self._finalizer = weakref.finalize(self, _end, self._workers)
        self._workers += [self._start(number) for number in range(workers)]

    def _start(self, number: int) -> "_Worker":
        return _Worker(self._context, Start.of(self.work, number, self._init, self._profile))

    def room(self) -> int:
        return self._most - len(self._wanted)

    def is_empty(self) -> bool:
        return not self._wanted

    def give(self, task: Task) -> None:
        self.wait_for_blocks(task)
        wanted = _Wanted(next(self._tickets), task)
        self._wanted.append(wanted)
        min(self._workers, key=lambda worker: len(worker.outstanding)).give(wanted)

    def take(self) -> tuple[Task, Made]:
        wanted = self._wanted[0]
        self.watch.wait(lambda seconds: self._has(wanted.ticket, seconds), lambda: self._told(wanted))
        self._wanted.popleft()
        made = self._done.pop(wanted.ticket)
        if isinstance(made, BaseException):
            raise made
        return wanted.task, made

    def _has(self, ticket: int, seconds: float) -> bool:
        while ticket not in self._done:
            handles = {handle: worker for worker in self._workers for handle in (worker.pipe, worker.process.sentinel)}
            ready = wait(list(handles), seconds)
            if not ready:
                return False
            for worker in {id(handles[handle]): handles[handle] for handle in ready}.values():
                self._hear(worker)
        return True

    def _hear(self, worker: "_Worker") -> None:
        """Take what a worker has to say, or find that it is dead."""
        try:
            while worker.pipe.poll():
                self._take_answer(worker, worker.pipe.recv())
        except (EOFError, OSError):
            self._replace(worker)
            return
        if not worker.process.is_alive() and not worker.pipe.poll():
            self._replace(worker)

    def _take_answer(self, worker: "_Worker", answer: Answer) -> None:
        if answer.kind == "ready":
            worker.is_ready = True
            return
        if answer.ticket == 0:
            raise _raised(answer)
        wanted = worker.outstanding.pop(answer.ticket, None)
        made = worker.unpacked(answer) if answer.kind == "done" else worker.give_back(answer.ticket)
        if wanted is None or wanted not in self._wanted:
            return  # forgotten meanwhile
        if answer.kind == "evicted":
            self._fetch_again(worker, wanted)
        else:
            self._done[answer.ticket] = _raised(answer) if made is None else made

    def _fetch_again(self, worker: "_Worker", wanted: _Wanted) -> None:
        self._evictions[wanted.ticket] += 1
        if self._evictions[wanted.ticket] > _EVICTIONS:
            raise ConfigError("the cache loses blocks before they are read: make max_cache_size larger, or batches smaller.")
        self.wait_for_blocks(wanted.task)
        worker.give(wanted)

    def _replace(self, worker: "_Worker") -> None:
        """Start another process in the place of a dead one, and give it the same trays."""
        worker.process.join(_END_SECONDS)
        death = _death(worker.process.exitcode)
        outstanding = [wanted for wanted in worker.outstanding.values() if wanted in self._wanted]
        worker.close()
        if not worker.is_ready:
            raise RemoteError(f"a worker process {death} before it began; what it printed says why. {_GUARD}")
        if outstanding:
            first = outstanding[0]
            self._deaths[first.ticket] += 1
            if self._deaths[first.ticket] > 1:
                rows = first.task.rows.row[:8].tolist()
                raise RemoteError(f"two worker processes died of the same batch: the last one {death}. Its rows begin with {rows}.")
            _log.warning("A worker process %s; its batches are made again.", death)
        place = self._workers.index(worker)
        self._workers[place] = self._start(worker.number)
        for wanted in outstanding:
            self._workers[place].give(wanted)

    def _told(self, wanted: _Wanted) -> str:
        worker = next((each for each in self._workers if wanted.ticket in each.outstanding), None)
        return f"tray {wanted.task.number} is with worker {worker.number if worker else '?'} (pid {worker.process.pid if worker else '?'})"

    def forget(self) -> None:
        self._wanted.clear()
        self._done.clear()

    def close(self) -> None:
        self.forget()
        self._finalizer()


@final
class _Worker:
    """A worker process, its regions, and the trays that it has."""

    def __init__(self, context: Any, start: Start) -> None:
        self.number = start.number
        self.pipe, theirs = context.Pipe()
        _OPEN.add(self.pipe.fileno())
        if context.get_start_method() == "fork":
            start = replace(start, strangers=tuple(_OPEN))
        self.process = context.Process(target=run_worker, args=(theirs, start), name=f"leyden-loader-{start.number}", daemon=True)
        try:
            self.process.start()
        except RuntimeError as error:
            raise StateError(f"worker processes cannot be started here: {error}. {_GUARD}") from error
        theirs.close()
        self.outstanding: dict[int, _Wanted] = {}
        self.is_ready = False
        self._regions: dict[int, Region] = {}
        self._free: collections.deque[int] = collections.deque()
        self._used: dict[int, int | None] = {}  # ticket -> the region that it was given
        self._leases: dict[int, weakref.ref[NDArray[np.uint8]]] = {}

    def give(self, wanted: _Wanted) -> None:
        """Ask for a tray."""
        task = wanted.task
        arrays, has_copies, has_parts = rows_to_bytes(task.rows)
        region, forgotten = self._next_region()
        size = sum(array.nbytes for array in arrays)
        raw: bytes | None = None
        if region is not None and size <= self._regions[region].size:
            place = self._regions[region].view()[:size].view(np.int64)
            np.concatenate(arrays, out=place)
        else:
            raw = np.concatenate(arrays).tobytes()
        self.outstanding[wanted.ticket] = wanted
        self._used[wanted.ticket] = region
        count = len(task.rows)
        with contextlib.suppress(OSError):  # it died just now: its sentinel says so
            self.pipe.send(
                Request(wanted.ticket, region, forgotten, raw, count, task.borders, task.consumed, task.epoch, has_copies, has_parts)
            )

    def _next_region(self) -> tuple[int | None, list[int]]:
        """Return the largest free region, and those that were let go of for it."""
        free: list[int] = []
        while self._free:
            free.append(self._free.popleft())
        if not free:
            return None, []
        chosen = max(free, key=lambda number: self._regions[number].size)
        keep, forgotten = len(self.outstanding) + 1, list[int]()
        for number in sorted((each for each in free if each != chosen), key=lambda each: -self._regions[each].size):
            if len(self._free) < keep:
                self._free.append(number)
            else:
                forgotten.append(number)
                del self._regions[number]
        return chosen, forgotten

    def unpacked(self, answer: Answer) -> Made:
        """Return the tray of an answer; its arrays hold the region until the last of them is gone."""
        given = self._used.pop(answer.ticket, None)
        if answer.new_size:
            fd = reduction.recv_handle(self.pipe)
            try:
                self._regions[answer.region] = Region(fd, answer.new_size)
            finally:
                os.close(fd)
            if given is not None:
                self._free.append(given)
        if answer.packed is None:
            raise AssertionError("a tray that is done was packed")
        number, free, leases = answer.region, self._free, self._leases
        made, lease = unpack(answer.packed, self._regions[number], lambda: free.append(number))
        leases[number] = lease
        if lease() is None and number not in free:
            free.append(number)  # nothing of it is left in the region
        return made

    def give_back(self, ticket: int) -> None:
        """Take back the region of a tray that could not be made."""
        region = self._used.pop(ticket, None)
        if region is not None:
            self._free.append(region)

    def close(self) -> None:
        """Let the process end: it sees the pipe closed."""
        if not self.pipe.closed:
            _OPEN.discard(self.pipe.fileno())
            self.pipe.close()


def _end(workers: "list[_Worker]") -> None:
    """End all processes: they are asked to, and after a while killed."""
    for worker in workers:
        worker.close()
    for worker in workers:
        worker.process.join(_END_SECONDS)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


def _context_for(work: Work, init: Callable[[int], Any] | None, wanted: Any) -> Any:
    """Return the way in which processes are started: by a fork server, unless what they need cannot be sent."""
    methods = multiprocessing.get_all_start_methods()
    given = multiprocessing.get_context(wanted) if isinstance(wanted, str) else wanted
    context: Any = given or multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if context.get_start_method() == "fork":
        return context
    name, error = _unpicklable(work, init)
    if name and given is None and sys.platform == "linux":
        _log.info("%s cannot be sent to other processes (%s), so workers are forked.", name, error)
        return multiprocessing.get_context("fork")
    if name:
        raise ConfigTypeError(
            f"{name} cannot be sent to worker processes ({error}). Define it at the top of a module, without lambda; or pass num_workers=0."
        )
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload([*_MODULES, *(["torch"] if "torch" in sys.modules else [])])
    return context


def _unpicklable(work: Work, init: Callable[[int], Any] | None) -> tuple[str, str]:
    parts = {
        "transform": work.transform,
        "collate_fn": work.collate_fn,
        "batch_transform": work.batch_transform,
        "worker_init_fn": init,
    }
    for name, part in parts.items():
        try:
            pickle.dumps(part)
        except Exception as error:  # noqa: BLE001 - pickling runs any code
            return name, f"{error}"
    return "", ""


def _raised(answer: Answer) -> BaseException:
    if answer.error is None:
        raise AssertionError("what failed has an error")
    error, told = answer.error
    error.__cause__ = RemoteError(f"in a worker process:\n{told}")
    return error


def _death(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        guess = " (out of memory?)" if -exit_code == signal.SIGKILL else ""
        return f"was ended by {signal.Signals(-exit_code).name}{guess}"
    return f"ended with status {exit_code}"
