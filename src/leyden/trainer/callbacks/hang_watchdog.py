"""`HangWatchdog`: a run that does not move says where every thread of every rank stands.

The main thread only writes two attributes at each hook (a *tick*). A thread of the watchdog looks at them now and then,
publishes them to the run's store, and reports when they have not changed for too long. A hang inside C code that keeps
Python's lock stops this thread too: then the other ranks' reports name the rank by its last tick.
"""

import faulthandler
import json
import os
import tempfile
import threading
from typing import Any, Literal, final

from leyden.core.clock import Clock, SystemClock
from leyden.core.errors import ConfigError, closest, listed
from leyden.core.log import get_logger
from leyden.fabric.launch.lifeline import notify
from leyden.fabric.launch.store import KeyValueStore, MemoryStore, own_client
from leyden.trainer.core.callback import Callback

ACTIONS = ("dump", "abort")
EXIT_HUNG = 70
_WAKE_SECONDS = 5.0  # the longest interval of the thread
_logger = get_logger(__name__)


class HangWatchdog(Callback):
    """Reports a run in which no batch begins or ends for `timeout_seconds`: the stacks of all threads, each rank's last tick.

    The first batch counts from the beginning of the run: it may compile. Leave room for the longest validation batch and
    for saving a checkpoint.

    Args:
        timeout_seconds: For how long nothing may happen.
        action: `"dump"` reports, once per standstill; `"abort"` then ends this process with exit status 70, so that the
            launcher ends the others.

    Raises:
        ConfigError: A time of 0 or less, or another action.

    Example:
        >>> HangWatchdog(timeout_seconds=1800, action="abort").action
        'abort'
    """

    def __init__(self, timeout_seconds: float = 600, action: Literal["dump", "abort"] = "dump") -> None:
        if not timeout_seconds > 0:
            raise ConfigError(f"HangWatchdog(timeout_seconds={timeout_seconds!r}): the time should be above 0 seconds.")
        if action not in ACTIONS:
            raise ConfigError(f"HangWatchdog(action={action!r}): accepted are {listed(ACTIONS)}.{closest(str(action), ACTIONS)}")
        self.timeout_seconds = float(timeout_seconds)
        self.action = action
        self._watch: HangWatch | None = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._close()
        strategy = trainer.strategy
        store = strategy.group.store if strategy.world_size > 1 else MemoryStore()
        self._watch = HangWatch(
            store, strategy.global_rank, strategy.world_size, timeout_seconds=self.timeout_seconds, aborts=self.action == "abort"
        )
        strategy.own(self._watch)  # closed before the store goes, whatever ends the run
        self._tick(f"setup({stage})")

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._close()

    def on_sanity_check_start(self, trainer: Any, pl_module: Any) -> None:
        self._tick("on_sanity_check_start")

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._tick("on_train_start")

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._tick("on_train_epoch_end")

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._tick("on_train_end")

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._tick("on_train_batch_start", batch_idx)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._tick("on_train_batch_end", batch_idx)

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._tick("on_validation_batch_start", batch_idx)

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._tick("on_validation_batch_end", batch_idx)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self._tick("on_validation_end")

    def on_test_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._tick("on_test_batch_start", batch_idx)

    def on_test_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._tick("on_test_batch_end", batch_idx)

    def on_predict_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._tick("on_predict_batch_start", batch_idx)

    def on_predict_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._tick("on_predict_batch_end", batch_idx)

    def _tick(self, hook: str, batch: int | None = None) -> None:
        if self._watch is not None:
            self._watch.tick(hook, batch)

    def _close(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None


@final
class HangWatch:
    """The thread that watches one rank's ticks. `close` ends it.

    Args:
        store: The run's store; the thread takes a client of its own.
        rank: This process's rank.
        world_size: How many ranks there are.
        timeout_seconds: For how long no tick may come.
        aborts: Whether the process ends after the report.
        clock: Tells the time to the thread.
    """

    def __init__(
        self, store: KeyValueStore, rank: int, world_size: int, *, timeout_seconds: float, aborts: bool = False, clock: Clock | None = None
    ) -> None:
        self._store = own_client(store)
        self._rank = rank
        self._world_size = world_size
        self._timeout = timeout_seconds
        self._aborts = aborts
        self._clock = clock or SystemClock()
        self._latest: tuple[int, str, int | None] = (0, "", None)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leyden-hang-watch", daemon=True)
        self._thread.start()

    def tick(self, hook: str, batch: int | None = None) -> None:
        """Note that the run moves."""
        self._latest = (self._latest[0] + 1, hook, batch)  # one assignment: the thread sees the old or the new one

    def close(self) -> None:
        """End the thread. Idempotent."""
        self._closed.set()
        if self._thread is not threading.current_thread():
            self._thread.join(_WAKE_SECONDS)

    def _run(self) -> None:
        rule = StandstillRule(self._timeout, self._clock.monotonic())
        published = -1
        while not self._closed.wait(min(self._timeout / 8, _WAKE_SECONDS)):
            count, hook, batch = self._latest
            if count != published:
                self._publish(hook, batch)
                published = count
            if rule.is_due(count, self._clock.monotonic()):
                self._report()

    def _publish(self, hook: str, batch: int | None) -> None:
        told = {"hook": hook, "batch": batch, "time": self._clock.time()}
        try:
            self._store.set(f"hang/{self._rank}", json.dumps(told))
        except RuntimeError:  # the store went with rank 0; the stacks are worth having all the same
            _logger.debug("the hang watch of rank %d cannot reach the store", self._rank, exc_info=True)

    def _report(self) -> None:
        notify(
            f"rank {self._rank}: no batch began or ended for {self._timeout:g} s.\n{self._ticks()}\n"
            f"Stacks of all threads of rank {self._rank}:\n{stacks()}"
        )
        if self._aborts:
            _logger.critical("rank %d ends with exit status %d: HangWatchdog(action='abort')", self._rank, EXIT_HUNG)
            os._exit(EXIT_HUNG)  # only this ends a process whose main thread does not run

    def _ticks(self) -> str:
        now = self._clock.time()
        try:
            lines = [self._line(rank, now) for rank in range(self._world_size)]
        except RuntimeError:
            return "The run's store does not answer, so the other ranks' ticks are not known."
        return "\n".join(lines)

    def _line(self, rank: int, now: float) -> str:
        key = f"hang/{rank}"
        if not self._store.check([key]):
            return f"  rank {rank}: has not reached setup"
        told = json.loads(self._store.get(key))
        batch = "" if told["batch"] is None else f" of batch {told['batch']}"
        return f"  rank {rank}: last seen in {told['hook']}{batch}, {now - told['time']:.0f} s ago"


@final
class StandstillRule:
    """Decides when to report: once per standstill.

    Args:
        timeout_seconds: For how long the count may stay the same.
        now: The time at the beginning.

    Example:
        >>> rule = StandstillRule(10, now=0)
        >>> [rule.is_due(count, now) for count, now in [(1, 5), (1, 14), (1, 15), (1, 99), (2, 100), (2, 110)]]
        [False, False, True, False, False, True]
    """

    def __init__(self, timeout_seconds: float, now: float) -> None:
        self._timeout = timeout_seconds
        self._count = -1
        self._since = now
        self._is_reported = False

    def is_due(self, count: int, now: float) -> bool:
        """Return whether `count` has stood still for long enough, for the first time."""
        if count != self._count:
            self._count, self._since, self._is_reported = count, now, False
        if self._is_reported or now - self._since < self._timeout:
            return False
        self._is_reported = True
        return True


def stacks() -> str:
    """Return the stacks of all threads of this process as text, innermost call first."""
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file=file, all_threads=True)
        file.seek(0)
        return file.read()
