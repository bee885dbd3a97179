"""`StallWatch`: says which ranks are missing when a collective does not come about.

Each rank counts the collectives it enters; a daemon thread publishes the count to the run's store when it has changed. A
rank that has waited half the time-out compares: who has entered fewer is missing, and what it entered last is a hint.
The main thread only writes two attributes per collective; there is no extra communication.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple, final

from leyden.core.errors import StateError
from leyden.core.log import get_logger
from leyden.fabric.launch.lifeline import notify
from leyden.fabric.launch.store import KeyValueStore, own_client

_logger = get_logger(__name__)
_WAKE_SECONDS = 5.0  # the longest interval of the thread


@final
class StallWatch:
    """Watches this rank's collectives. Owned by the group; `close` ends its thread.

    Args:
        store: The run's store.
        rank: This process's rank.
        world_size: How many ranks there are.
        timeout: The time-out of a collective; the report comes after half of it.
    """

    def __init__(self, store: KeyValueStore, rank: int, world_size: int, timeout: timedelta) -> None:
        self._store = own_client(store)
        self._rank = rank
        self._world_size = world_size
        self._seconds = timeout.total_seconds()
        self._counts: dict[str, int] = {}  # by group: "" is all ranks, "0,2" those two
        self._entered = 0
        self._waiting: _Waiting | None = None
        self._latest: _Waiting | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="leyden-stall-watch", daemon=True)
        self._thread.start()

    @contextmanager
    def entered(self, name: str, ranks: tuple[int, ...] | None = None) -> Iterator[None]:
        """Mark this rank as waiting in the collective `name`.

        Args:
            name: What the report calls it.
            ranks: The global ranks of the group; `None`: all.

        Raises:
            StateError: The collective timed out; the message names it and the ranks that are missing.
        """
        group = "" if ranks is None else ",".join(map(str, ranks))
        count = self._counts[group] = self._counts.get(group, 0) + 1
        waiting = _Waiting(name, group, ranks or tuple(range(self._world_size)), count, time.monotonic())
        self._entered += 1
        self._waiting = self._latest = waiting
        try:
            yield
        except RuntimeError as error:
            waited = time.monotonic() - waiting.since
            if waited < self._seconds * 0.95 or isinstance(error, StateError):
                raise
            raise StateError(
                f"{name} timed out on rank {self._rank} after {waited:.1f} s (time-out {self._seconds:g} s). {self._missing(waiting)} "
                "Every rank must make the same calls; if one only needs longer, raise the strategy's timeout=timedelta(...)."
            ) from error
        finally:
            self._waiting = None

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._thread.join(_WAKE_SECONDS)

    def _watch(self) -> None:
        published = 0
        reported: _Waiting | None = None
        interval = min(self._seconds / 8, _WAKE_SECONDS)
        while not self._closed.wait(interval):
            entered, waiting = self._entered, self._waiting
            try:
                if entered != published and self._latest is not None:
                    counts = dict(self._counts)
                    self._store.set(f"stall/{self._rank}", json.dumps({"counts": counts, "name": self._latest.name}))
                    published = entered
                if waiting is None or waiting is reported or waiting.ranks[0] != self._rank:
                    continue
                if time.monotonic() - waiting.since > self._seconds / 2:
                    reported = waiting
                    notify(f"{waiting.name} has waited {self._seconds / 2:g} s on rank {self._rank}. {self._missing(waiting)}")
            except RuntimeError:  # the store went with rank 0
                _logger.debug("the stall watch of rank %d ends: no store", self._rank, exc_info=True)
                return

    def _missing(self, waiting: "_Waiting") -> str:
        """Name the ranks that have entered fewer collectives of this group, or entered another."""
        try:
            seen = {rank: self._progress(rank, waiting.group) for rank in waiting.ranks if rank != self._rank}
        except RuntimeError:
            return "The store does not answer, so the missing ranks are not known."
        missing = {rank: name for rank, (count, name) in seen.items() if count < waiting.count}
        if missing:
            told = ", ".join(f"{rank} ({f'last seen in {name}' if name else 'in none yet'})" for rank, name in missing.items())
            return f"Missing: rank {told}."
        elsewhere = {rank: name for rank, (count, name) in seen.items() if count == waiting.count and name != waiting.name}
        if elsewhere:
            return "Rank " + ", ".join(f"{rank} is in {name} instead" for rank, name in elsewhere.items()) + "."
        return "All ranks have entered as many collectives: a connection is stuck."

    def _progress(self, rank: int, group: str) -> tuple[int, str]:
        key = f"stall/{rank}"
        if not self._store.check([key]):
            return 0, ""
        told = json.loads(self._store.get(key))
        return int(told["counts"].get(group, 0)), str(told["name"])


class _Waiting(NamedTuple):
    """One entry into a collective."""

    name: str
    group: str
    ranks: tuple[int, ...]
    count: int
    since: float
