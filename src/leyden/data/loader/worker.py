"""What a worker process does: trays, until its consumer is gone."""

import contextlib
import cProfile
import os
import pickle
import random
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import reduction
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from leyden.core.errors import RemoteError
from leyden.data.loader.collate import Collator
from leyden.data.loader.shared import Packed, Region, RegionArena, pack
from leyden.data.loader.trays import Task
from leyden.data.loader.work import Work
from leyden.data.read.cached import EvictedError
from leyden.data.read.stream import Rows
from leyden.data.read.transform import Applies, Transform, seed_globals


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """What a worker is started with.

    Args:
        stream: The stream, pickled: locks and threads of the consumer do not come along, by a fork either.
        collator: As of `Work`.
        transform: As of `Work`.
        collate_fn: As of `Work`.
        batch_transform: As of `Work`.
        rank: As of `Work`.
        number: Of the worker.
        init: Called with the number.
        strangers: File descriptors of the consumer that a fork has copied.
        profile: Where the profile of Python's own profiler goes; `None` makes none.
    """

    stream: bytes
    collator: Collator
    transform: Applies | None
    collate_fn: Callable[[list[Any]], Any] | None
    batch_transform: Transform | None
    rank: int
    number: int
    init: Callable[[int], Any] | None
    strangers: tuple[int, ...] = ()
    profile: Path | None = None

    @classmethod
    def of(cls, work: Work, number: int, init: Callable[[int], Any] | None, profile: Path | None = None) -> "Start":
        """Return how to start a worker for some work."""
        return cls(
            stream=pickle.dumps(work.stream, protocol=5),
            collator=work.collator,
            transform=work.transform,
            collate_fn=work.collate_fn,
            batch_transform=work.batch_transform,
            rank=work.rank,
            number=number,
            init=init,
            profile=profile,
        )

    def work(self) -> Work:
        """Return the work."""
        stream = pickle.loads(self.stream)  # noqa: S301 - from our own process
        stream.never_fetch()
        return Work(
            stream=stream,
            collator=self.collator,
            transform=self.transform,
            collate_fn=self.collate_fn,
            batch_transform=self.batch_transform,
            rank=self.rank,
        )


class Request(NamedTuple):
    """A tray to be made.

    Args:
        ticket: By which the answer names it.
        region: The number of the region to use, if there is one.
        forgotten: Numbers of regions that are not used any more.
        rows: The rows' arrays; in the region itself if it has room for them.
        count: Rows.
        borders: As of `Task`.
        consumed: As of `Task`.
        epoch: As of `Task`.
        has_copies: Whether copies follow the rows.
        has_parts: Whether sources follow.
    """

    ticket: int
    region: int | None
    forgotten: Sequence[int]
    rows: bytes | None
    count: int
    borders: list[int]
    consumed: list[int]
    epoch: int
    has_copies: bool
    has_parts: bool


class Answer(NamedTuple):
    """What became of a tray.

    Args:
        ticket: Which.
        kind: `ready` (the worker is), `done`, `evicted` (a block is not in the cache any more) or `failed`.
        region: The number of the region that it lies in.
        new_size: The size of the region, if it is new; its file descriptor follows then.
        packed: Where it lies.
        error: What was raised, and its traceback.
    """

    ticket: int
    kind: str
    region: int = -1
    new_size: int = 0
    packed: Packed | None = None
    error: "tuple[BaseException, str] | None" = None


def rows_to_bytes(rows: Rows) -> tuple[list[NDArray[np.int64]], bool, bool]:
    """Return the arrays that a worker needs of rows: rows, and copies and sources if there are any."""
    has_copies, has_parts = bool(rows.copy.any()), bool(rows.part.any())
    arrays = [rows.row]
    if has_copies:
        arrays.append(rows.copy)
    if has_parts:
        arrays.append(rows.part.astype(np.int64))
    return arrays, has_copies, has_parts


def rows_from(values: NDArray[np.int64], request: Request) -> Rows:
    """Return the rows that a request is about."""
    count = request.count
    pieces = [values[start : start + count] for start in range(0, len(values), count)] if count else [values]
    zeros = np.zeros(count, np.int64)
    copy = pieces[1] if request.has_copies else zeros
    part = pieces[-1] if request.has_parts else zeros
    return Rows(part.astype(np.int32), pieces[0], copy, zeros.astype(np.int32))


def run_worker(pipe: Connection, start: Start) -> None:
    """Make trays until the consumer closes the pipe, or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the consumer decides
    for fd in start.strangers:
        with contextlib.suppress(OSError):
            os.close(fd)
    with contextlib.suppress(EOFError, OSError):
        try:
            worker = _Worker(pipe, start)
        except Exception as error:  # noqa: BLE001 - told to the consumer
            pipe.send(Answer(0, "failed", error=_portable(error)))
            return
        pipe.send(Answer(0, "ready"))
        with _profiled(start):
            while True:
                worker.answer(pipe.recv())


@contextlib.contextmanager
def _profiled(start: Start) -> Iterator[None]:
    if start.profile is None:
        yield
        return
    profile = cProfile.Profile()
    profile.enable()
    try:
        yield
    finally:
        profile.disable()
        start.profile.mkdir(parents=True, exist_ok=True)
        profile.dump_stats(start.profile / f"worker-{start.number}.prof")


@final
class _Worker:
    def __init__(self, pipe: Connection, start: Start) -> None:
        _settle_process(start)
        self._pipe, self._work = pipe, start.work()
        self._regions: dict[int, Region] = {}
        self._next_region = 0

    def answer(self, request: Request) -> None:
        for number in request.forgotten:
            self._regions.pop(number, None)
        region = None if request.region is None else self._regions[request.region]
        raw = request.rows if request.rows is not None else region.memory if region is not None else b""
        width = request.count * (1 + request.has_copies + request.has_parts)
        rows = rows_from(np.frombuffer(raw, np.int64, width).copy(), request)
        task, arena = Task(0, rows, request.borders, request.consumed, 0, request.epoch), RegionArena(region)
        try:
            packed, used, fd = pack(self._work.make(task, arena), arena)
        except EvictedError:
            self._pipe.send(Answer(request.ticket, "evicted"))
        except BaseException as error:  # noqa: BLE001 - raised by the consumer, at its place
            self._pipe.send(Answer(request.ticket, "failed", error=_portable(error)))
        else:
            self._send(request, packed, used, fd)

    def _send(self, request: Request, packed: Packed, used: Region, fd: int | None) -> None:
        if fd is None:
            self._pipe.send(Answer(request.ticket, "done", request.region if request.region is not None else -1, 0, packed))
            return
        number, self._next_region = self._next_region, self._next_region + 1
        self._regions[number] = used
        try:
            self._pipe.send(Answer(request.ticket, "done", number, used.size, packed))
            reduction.send_handle(self._pipe, fd, 0)
        finally:
            os.close(fd)


def _settle_process(start: Start) -> None:
    seed_globals(random.Random(start.number).getrandbits(63))  # noqa: S311 - not for secrets
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
    if start.init is not None:
        start.init(start.number)


def _portable(error: BaseException) -> tuple[BaseException, str]:
    """Return an error in a form that another process can raise."""
    told = traceback.format_exc()
    try:
        again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
        if type(again) is type(error):
            return error, told
    except Exception:  # noqa: BLE001, S110 - then as text
        pass
    return RemoteError(f"{type(error).__name__}: {error}"), told
