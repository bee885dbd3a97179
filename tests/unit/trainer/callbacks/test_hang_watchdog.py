import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from leyden.core.errors import ConfigError
from leyden.fabric.launch.store import MemoryStore
from leyden.trainer.callbacks import HangWatchdog
from leyden.trainer.callbacks.hang_watchdog import HangWatch, StandstillRule, stacks
from tests.support.module_trainer import FakeModule, ModuleTrainer

DEADLINE = 20.0


class Told(logging.Handler):
    """Waits for a record."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.arrived = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()
        self.arrived.set()


@pytest.fixture
def told() -> Iterator[Told]:
    handler, logger = Told(), logging.getLogger("leyden.fabric.launch.lifeline")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def test_a_standstill_is_due_once() -> None:
    rule = StandstillRule(10, now=0)
    assert [rule.is_due(count, now) for count, now in [(0, 9), (0, 19), (0, 50), (1, 51), (1, 60), (1, 61)]] == [
        False,
        True,
        False,
        False,
        False,
        True,
    ]


def test_stacks_show_other_threads() -> None:
    release, began = threading.Event(), threading.Event()

    def stand_still_here() -> None:
        began.set()
        release.wait(DEADLINE)

    thread = threading.Thread(target=stand_still_here)
    thread.start()
    began.wait(DEADLINE)
    text = stacks()
    release.set()
    thread.join()
    assert "stand_still_here" in text
    assert "test_stacks_show_other_threads" in text


def test_a_report_names_each_ranks_last_tick(told: Told) -> None:
    store = MemoryStore()
    store.set("hang/1", json.dumps({"hook": "on_validation_batch_start", "batch": 3, "time": 0.0}))
    watch = HangWatch(store, 0, 3, timeout_seconds=0.1)
    watch.tick("on_train_batch_start", 7)
    assert told.arrived.wait(DEADLINE)
    watch.close()
    assert "rank 0: no batch began or ended for 0.1 s" in told.text
    assert "rank 0: last seen in on_train_batch_start of batch 7" in told.text
    assert "rank 1: last seen in on_validation_batch_start of batch 3" in told.text
    assert "rank 2: has not reached setup" in told.text
    assert "test_a_report_names_each_ranks_last_tick" in told.text


def test_a_store_that_is_gone_does_not_hide_the_stacks(told: Told) -> None:
    class Gone(MemoryStore):
        def set(self, key: str, value: str | bytes) -> None:
            raise RuntimeError("connection closed")

        def check(self, keys: Any) -> bool:
            raise RuntimeError("connection closed")

        def clone(self) -> "Gone":
            return self

    watch = HangWatch(Gone(), 0, 2, timeout_seconds=0.1)
    assert told.arrived.wait(DEADLINE)
    watch.close()
    assert "does not answer" in told.text
    assert "Stacks of all threads" in told.text


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "leyden-hang-watch"]


@pytest.mark.parametrize("end", ["teardown", "exception", "strategy"])
def test_the_thread_ends_with_the_run(end: str) -> None:
    dog, module = HangWatchdog(), FakeModule()
    trainer = ModuleTrainer(callbacks=[dog])
    trainer.start(module)
    assert threads()
    if end == "teardown":
        trainer.end(module)
    elif end == "exception":
        dog.on_exception(trainer, module, RuntimeError())
    else:
        trainer.strategy.teardown()
    assert not threads()


def test_a_run_that_moves_is_left_alone(told: Told) -> None:
    dog, module = HangWatchdog(timeout_seconds=60), FakeModule()
    trainer = ModuleTrainer(callbacks=[dog])
    trainer.start(module)
    trainer.validation(module)
    trainer.end(module)
    assert not told.arrived.is_set()


@pytest.mark.parametrize("options", [{"timeout_seconds": 0}, {"timeout_seconds": -1}, {"action": "kill"}], ids=str)
def test_bad_arguments_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        HangWatchdog(**options)
