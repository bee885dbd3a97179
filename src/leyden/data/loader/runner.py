"""`Runner`: makes trays and gives them back in order; here in this thread, or in several.

Gathering and decoding release the interpreter's lock, so threads do where no code of the user's runs; else there are
processes (`leyden.data.loader.processes`).
"""

import collections
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, NamedTuple, final

from leyden.data.errors import ChunkWaitTimeoutError, StalledError
from leyden.data.loader.trays import Task
from leyden.data.loader.work import Made, Work
from leyden.data.read.stream import Needs

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 0.5  # after which a thread that waits looks whether it is still wanted


class Watch(NamedTuple):
    """How long one waits for a tray.

    Args:
        timeout: Seconds, after which it is an error; 0 is any time.
        stall_seconds: Seconds, after which one is told what is waited for.
    """

    timeout: float = 0.0
    stall_seconds: float = 60.0

    def wait(self, attempt: Callable[[float], bool], what: Callable[[], str]) -> None:
        """Try until it works.

        Args:
            attempt: Waits for so many seconds; returns whether it worked.
            what: Says what is waited for.

        Raises:
            StalledError: It took too long.
        """
        waited = 0.0
        while True:
            seconds = self.stall_seconds if not self.timeout else min(self.stall_seconds, self.timeout - waited)
            if attempt(seconds):
                return
            waited += seconds
            if self.timeout and waited >= self.timeout:
                raise StalledError(f"no batch within timeout={self.timeout:g} s: {what()}.")
            _log.warning("No batch for %.0f s: %s.", waited, what())


class Runner(ABC):
    """Makes trays.

    Args:
        work: What is done with each.
        watch: How long one waits for it.
    """

    def __init__(self, work: Work, watch: Watch) -> None:
        self.work, self.watch = work, watch
        self._is_closed = False

    @abstractmethod
    def room(self) -> int:
        """Return how many more trays may be given."""

    @abstractmethod
    def give(self, task: Task) -> None:
        """Begin a tray, or remember it."""

    @abstractmethod
    def is_empty(self) -> bool:
        """Return whether no tray is on its way."""

    @abstractmethod
    def take(self) -> tuple[Task, Made]:
        """Return the oldest tray; whatever its making raised is raised here."""

    @abstractmethod
    def forget(self) -> None:
        """Let go of all trays that are on their way."""

    @abstractmethod
    def close(self) -> None:
        """End all threads and processes."""

    def renew(self, work: Work) -> None:
        """Do other work from now on; trays that are on their way are forgotten."""
        self.forget()
        self.work = work

    def wait_for_blocks(self, task: Task) -> None:
        """Wait until the blocks of a tray are at hand; those of local data are."""
        if not self.work.is_remote:
            return
        needs = self.work.stream.needs(task.rows)
        self.watch.wait(lambda seconds: self._are_ready(needs, seconds), lambda: f"tray {task.number} waits for blocks {_told(needs)}")

    def _are_ready(self, needs: Needs, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while not self._is_closed:
            left = until - time.monotonic()
            try:
                self.work.stream.ready(needs, max(0.0, min(left, _LOOK_SECONDS)))
            except ChunkWaitTimeoutError:
                if left > _LOOK_SECONDS:
                    continue
                return False
            return True
        raise CancelledError


@final
class InlineRunner(Runner):
    """Makes a tray when it is taken."""

    def __init__(self, work: Work, watch: Watch) -> None:
        super().__init__(work, watch)
        self._task: Task | None = None

    def room(self) -> int:
        return 1 if self._task is None else 0

    def give(self, task: Task) -> None:
        self._task = task

    def is_empty(self) -> bool:
        return self._task is None

    def take(self) -> tuple[Task, Made]:
        task, self._task = self._task, None
        if task is None:
            raise AssertionError("there is no tray to take")
        self.wait_for_blocks(task)
        return task, self.work.make(task)

    def forget(self) -> None:
        self._task = None

    def close(self) -> None:
        self._task = None


@final
class ThreadRunner(Runner):
    """Makes trays in threads.

    Args:
        work: What is done with each.
        watch: How long one waits for it.
        threads: How many.
        prefetch: How many trays each may be ahead.
    """

    def __init__(self, work: Work, watch: Watch, threads: int, prefetch: int) -> None:
        super().__init__(work, watch)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="leyden-loader")
        self._most = threads * prefetch
        self._pending: collections.deque[tuple[Task, Future[Made]]] = collections.deque()

    def room(self) -> int:
        return self._most - len(self._pending)

    def give(self, task: Task) -> None:
        self._pending.append((task, self._pool.submit(self._make, self.work, task)))

    def _make(self, work: Work, task: Task) -> Made:
        self.wait_for_blocks(task)
        return work.make(task)

    def is_empty(self) -> bool:
        return not self._pending

    def take(self) -> tuple[Task, Made]:
        task, future = self._pending.popleft()
        self.watch.wait(lambda seconds: _is_done(future, seconds), lambda: f"tray {task.number} is being read")
        return task, future.result()

    def forget(self) -> None:
        while self._pending:
            self._pending.popleft()[1].cancel()

    def close(self) -> None:
        self.forget()
        self._is_closed = True  # a thread that waits for blocks sees it soon; nobody waits for the thread
        self._pool.shutdown(wait=False, cancel_futures=True)


def _is_done(future: "Future[Any]", seconds: float) -> bool:
    try:
        future.exception(seconds)
    except FutureTimeoutError:
        return False
    return True


def _told(needs: Needs) -> str:
    blocks = needs.block.tolist()
    return f"{blocks[:4]} and {len(blocks) - 4} more" if len(blocks) > 4 else f"{blocks}"
