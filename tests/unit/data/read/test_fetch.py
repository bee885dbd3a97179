"""Retries, and the order in which a `Fetcher` works."""

import gc
import threading
from collections.abc import Callable

import numpy as np
import pytest

from leyden.core.errors import CorruptDataError, NotFoundError, StorageError
from leyden.core.storage import Storage, open_storage
from leyden.data.read.fetch import AHEAD, URGENT, Fetcher, Patience, read_range
from leyden.data.read.supply import LookAhead
from tests.support.fake_clock import FakeClock


class PermissionDeniedError(Exception):
    """Stands for obstore's."""


def storage_that_says(*answers: Exception | bytes) -> tuple[Storage, list[int]]:
    storage, calls, left = open_storage("memory://fetch"), [], list(answers)

    def answer(key: str, start: int, length: int) -> bytes:
        calls.append(start)
        said = left.pop(0)
        if isinstance(said, Exception):
            raise said
        return said

    storage.read_range = answer  # type: ignore[method-assign]
    return storage, calls


def patient(clock: FakeClock) -> Patience:
    return Patience(clock=clock, draw=lambda: 0.5)


def test_what_may_pass_is_tried_again_after_jittered_doubling_waits() -> None:
    clock = FakeClock()
    storage, calls = storage_that_says(StorageError("503"), CorruptDataError("2 bytes came"), StorageError("reset"), b"data")
    assert read_range(storage, "a", 4, 4, patient(clock)) == b"data"
    assert calls == [4] * 4
    assert clock.slept == pytest.approx([0.05, 0.1, 0.2])


def test_the_last_failure_names_key_range_tries_and_answer() -> None:
    storage, calls = storage_that_says(*[StorageError("slow down")] * 6)
    with pytest.raises(StorageError, match=r"fetch/a: bytes 4 to 8 could not be read in 6 tries. The last answer: slow down"):
        read_range(storage, "a", 4, 4, patient(FakeClock()))
    assert len(calls) == 6


def test_a_body_that_stays_short_is_corrupt_data() -> None:
    storage, _ = storage_that_says(*[CorruptDataError("2 bytes came")] * 6)
    with pytest.raises(CorruptDataError, match="2 bytes came"):
        read_range(storage, "a", 4, 4, patient(FakeClock()))


def refused() -> StorageError:
    error = StorageError("access was refused")
    error.__cause__ = PermissionDeniedError()
    return error


@pytest.mark.parametrize("make", [lambda: NotFoundError("no object"), refused])
def test_a_refusal_or_a_missing_object_is_raised_at_once(make: Callable[[], Exception]) -> None:
    storage, calls = storage_that_says(make())
    with pytest.raises((NotFoundError, StorageError)):
        read_range(storage, "a", 0, 4, patient(FakeClock()))
    assert len(calls) == 1


def test_urgent_tasks_come_first_then_in_order() -> None:
    fetcher, gate, done = Fetcher(1), threading.Event(), []
    first = fetcher.submit(lambda: gate.wait(30))
    futures = [
        fetcher.submit(lambda name=name: done.append(name), priority) for name, priority in zip("abc", (AHEAD, URGENT, AHEAD), strict=True)
    ]
    late = fetcher.submit(lambda: done.append("d"))
    fetcher.hurry(late)
    gate.set()
    for future in [first, *futures, late]:
        future.result(30)
    assert done == ["b", "d", "a", "c"]
    fetcher.close()


def test_no_more_tasks_run_at_once_than_connections() -> None:
    fetcher, lock, running, most, gate = Fetcher(3), threading.Lock(), [0], [0], threading.Barrier(3)

    def task() -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        gate.wait(30)
        with lock:
            running[0] -= 1

    for future in [fetcher.submit(task) for _ in range(12)]:
        future.result(30)
    assert most[0] == 3
    fetcher.close()


def test_a_failed_task_raises_where_it_is_waited_for() -> None:
    fetcher = Fetcher(2)
    future = fetcher.submit(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        future.result(30)
    fetcher.close()


def test_closing_cancels_what_waits_and_ends_the_threads() -> None:
    fetcher, gate = Fetcher(1), threading.Event()
    running = fetcher.submit(lambda: gate.wait(30))
    while not running.running():
        threading.Event().wait(0.001)
    waiting = fetcher.submit(lambda: None)
    gate.set()
    fetcher.close()
    assert running.result(30)
    assert waiting.cancelled() or waiting.done()
    assert fetcher.submit(lambda: None).cancelled()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("leyden-fetch")]


def test_a_forgotten_fetcher_ends_its_threads() -> None:
    fetcher = Fetcher(2)
    fetcher.submit(lambda: None).result(30)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("leyden-fetch")]
    del fetcher
    gc.collect()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def test_looking_ahead_ends_when_all_is_ahead_and_asks_again_for_what_was_used() -> None:
    ahead = LookAhead(np.full(3, 10), budget_bytes=1000)
    assert ahead.ask(0, [0, 1]) == [0, 1]
    assert not ahead.is_satisfied()
    assert ahead.ask(8, [1, 2]) == [2]
    assert ahead.is_satisfied(), "there is nothing else"
    ahead.use(4)  # block 0 is behind, block 1 is needed again
    assert not ahead.is_satisfied()
    assert ahead.ask(16, [0, 1]) == [0]


def test_looking_ahead_ends_after_very_many_rows() -> None:
    ahead = LookAhead(np.full(3, 10), budget_bytes=1000, most_rows=100)
    ahead.ask(0, [0])
    ahead.ask(101, [0])
    assert ahead.is_satisfied()
    ahead.use(50)
    assert not ahead.is_satisfied()
