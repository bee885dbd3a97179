"""The key-value store of a run: torch's `TCPStore` between processes, `MemoryStore` where there is only one.

A torch client serves one request at a time: a thread that waits blocks every other thread of that client. So whoever
waits takes a client of its own (`own_client`).
"""

import sys
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol, final

from torch import distributed as dist

from leyden.core.errors import StateError

WAIT_SLICE = timedelta(seconds=10)  # an endless wait is made of these, so that a dead connection is noticed


class KeyValueStore(Protocol):
    """What `fabric.store` can do. Values come back as bytes."""

    def set(self, key: str, value: str, /) -> None:
        """Set a key."""

    def get(self, key: str, /) -> bytes:
        """Return a key's value; waits until there is one."""
        ...

    def add(self, key: str, amount: int, /) -> int:
        """Add to a counter (0 at first) and return it."""
        ...

    def wait(self, keys: list[str], timeout: timedelta, /) -> None:
        """Wait until all keys are set."""

    def check(self, keys: list[str], /) -> bool:
        """Return whether all keys are set."""
        ...

    def compare_set(self, key: str, expected: str, desired: str, /) -> bytes:
        """Set the key if it has the expected value (`""`: none yet), and return what it has now."""
        ...

    def delete_key(self, key: str, /) -> bool:
        """Forget a key; returns whether there was one."""
        ...


@final
class MemoryStore:
    """The store of a run of one process: the same words, no socket.

    Example:
        >>> store = MemoryStore()
        >>> store.compare_set("winner", "", "rank 0"), store.compare_set("winner", "", "rank 1")
        (b'rank 0', b'rank 0')
    """

    def __init__(self, timeout: timedelta = timedelta(minutes=30)) -> None:
        self._timeout = timeout
        self._values: dict[str, bytes] = {}
        self._changed = threading.Condition()

    def set(self, key: str, value: str | bytes) -> None:
        """Set a key."""
        with self._changed:
            self._values[key] = _bytes(value)
            self._changed.notify_all()

    def get(self, key: str) -> bytes:
        """Return a key's value; waits until there is one."""
        self.wait([key])
        return self._values[key]

    def add(self, key: str, amount: int) -> int:
        """Add to a counter (0 at first) and return it."""
        with self._changed:
            total = int(self._values.get(key, b"0")) + amount
            self._values[key] = str(total).encode()
            self._changed.notify_all()
            return total

    def wait(self, keys: Sequence[str], timeout: timedelta | None = None) -> None:
        """Wait until all keys are set.

        Raises:
            StateError: They are not, and the time is over.
        """
        seconds = (timeout or self._timeout).total_seconds()
        deadline = time.monotonic() + seconds
        with self._changed:
            while missing := [key for key in keys if key not in self._values]:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise StateError(f"nobody set {missing[0]!r} within {seconds:g} s. Set it first, or wait(keys, a longer timeout).")
                self._changed.wait(left)

    def check(self, keys: Sequence[str]) -> bool:
        """Return whether all keys are set."""
        with self._changed:
            return all(key in self._values for key in keys)

    def compare_set(self, key: str, expected: str, desired: str) -> bytes:
        """Set the key if it has the expected value (`""`: none yet), and return what it has now."""
        with self._changed:
            present = self._values.get(key)
            if present is None and expected:
                return expected.encode()  # as torch's store answers
            if present is None or present == expected.encode():
                self._values[key] = present = desired.encode()
                self._changed.notify_all()
            return present

    def delete_key(self, key: str) -> bool:
        """Forget a key; returns whether there was one."""
        with self._changed:
            return self._values.pop(key, None) is not None

    def clone(self) -> "MemoryStore":
        """Return this store: it may be used by several threads."""
        return self


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


def own_client(store: KeyValueStore) -> KeyValueStore:
    """Return a client of the same store for one more thread, where the store can make one (torch >= 2.7)."""
    clone = getattr(store, "clone", None)
    return clone() if clone is not None else store


def wait_for_ever(store: KeyValueStore, key: str) -> bytes:
    """Return the value of a key whenever it comes.

    Raises:
        DistNetworkError: The store is gone.
    """
    while True:
        try:
            store.wait([key], WAIT_SLICE)
        except (dist.DistStoreError, StateError):  # the slice is over; a lost connection is another class
            continue
        return store.get(key)


def tcp_store(address: str, port: int, *, hosts: bool, timeout: timedelta, descriptor: int | None = None) -> dist.TCPStore:
    """Open a store (on a socket that listens already, if its descriptor is given), or connect to one; torch's own errors."""
    return dist.TCPStore(
        address,
        port,
        None,
        is_master=hosts,
        timeout=timeout,
        wait_for_workers=False,
        master_listen_fd=descriptor,
        use_libuv=sys.platform != "win32",
    )
