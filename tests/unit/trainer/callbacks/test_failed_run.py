import threading
from types import SimpleNamespace
from typing import Any

import pytest

from leyden.fabric.launch.store import MemoryStore
from leyden.trainer.callbacks.failed_run import PATIENCE_SECONDS, save_in_failed_run
from tests.support.fake_clock import FakeClock


def rank(number: int, world_size: int, store: MemoryStore) -> Any:
    strategy = SimpleNamespace(world_size=world_size, global_rank=number, group=SimpleNamespace(store=store))
    return SimpleNamespace(strategy=strategy, global_step=7, is_global_zero=number == 0)


def test_ranks_that_fail_together_save_together() -> None:
    store, saved = MemoryStore(), []
    threads = [
        threading.Thread(target=save_in_failed_run, args=(rank(number, 3, store), "a", RuntimeError("x"), lambda n=number: saved.append(n)))
        for number in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert sorted(saved) == [0, 1, 2]


def test_a_rank_that_fails_alone_does_not_wait_for_ever_nor_save(caplog: pytest.LogCaptureFixture) -> None:
    store, saved, clock = MemoryStore(), [], FakeClock()
    save_in_failed_run(rank(0, 2, store), "a", ValueError("x"), lambda: saved.append(0), clock=clock)
    assert sum(clock.slept) == pytest.approx(PATIENCE_SECONDS, abs=0.1)
    assert "ValueError at step 7: no checkpoint was saved, because not all ranks failed together" in caplog.text
    save_in_failed_run(rank(1, 2, store), "a", ValueError("x"), lambda: saved.append(1), clock=clock)  # too late: decided already
    assert saved == []


def test_another_step_and_another_saver_are_other_meetings() -> None:
    store, saved = MemoryStore(), []
    store.set("failed/a/7/1", "1")
    save_in_failed_run(rank(0, 2, store), "b", ValueError("x"), lambda: saved.append(0), clock=FakeClock())
    assert saved == []
    save_in_failed_run(rank(0, 2, store), "a", ValueError("x"), lambda: saved.append(0), clock=FakeClock())
    assert saved == [0]


def test_ctrl_c_during_the_save_is_not_swallowed() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_in_failed_run(rank(0, 1, MemoryStore()), "a", RuntimeError("x"), interrupt)
