import gc
from collections.abc import Iterator

import pytest
import torch

from leyden.core.errors import ConfigError
from leyden.trainer.callbacks import GarbageCollection
from tests.support.module_trainer import FakeModule, ModuleTrainer


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()
    gc.enable()
    gc.freeze()  # as tests/conftest.py leaves it


def collections(generation: int = 1) -> int:
    return int(gc.get_stats()[generation]["collections"])


def run(callbacks: list[GarbageCollection], batches: int, trainer: ModuleTrainer | None = None) -> list[int]:
    """Train without an end, and return after which batches something was collected."""
    trainer = trainer or ModuleTrainer()
    trainer.callbacks = list(callbacks)
    module = FakeModule()
    trainer.start(module)
    collected = []
    for index in range(batches):
        before = collections()
        trainer.epoch(module, [torch.ones(1, 4)])
        if collections() > before:
            collected.append(index)
    return collected


def test_garbage_is_collected_every_n_steps_and_at_no_other_time() -> None:
    assert run([GarbageCollection(every_n_steps=3)], 10) == [3, 6, 9]
    assert not gc.isenabled()


def test_a_resumed_run_collects_at_the_same_steps() -> None:
    trainer = ModuleTrainer()
    trainer.run.clock.log_step = 4
    assert run([GarbageCollection(every_n_steps=3)], 6, trainer) == [2, 5]


def test_what_is_alive_after_the_first_collection_is_set_aside() -> None:
    run([GarbageCollection(every_n_steps=2)], 2)
    before = gc.get_freeze_count()  # newer Pythons freeze some objects themselves
    run([GarbageCollection(every_n_steps=2)], 3)
    assert gc.get_freeze_count() > before


@pytest.mark.parametrize("how", ["ends", "raises"])
def test_the_collector_is_as_before_when_training(how: str) -> None:
    callback = GarbageCollection(every_n_steps=1)
    run([callback], 3)
    if how == "ends":
        callback.on_train_end(ModuleTrainer(), FakeModule())
    else:
        callback.on_exception(ModuleTrainer(), FakeModule(), RuntimeError())
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    callback = GarbageCollection()
    run([callback], 1)
    callback.on_train_end(ModuleTrainer(), FakeModule())
    assert not gc.isenabled()


def test_no_step_between_collections_is_refused() -> None:
    with pytest.raises(ConfigError, match="every_n_steps=0"):
        GarbageCollection(every_n_steps=0)
