from typing import Any

import pytest
import torch

from leyden.core.errors import ConfigError
from leyden.fabric.strategies.single import SingleDeviceStrategy
from leyden.trainer.callbacks import DeviceStatsMonitor
from leyden.trainer.callbacks.device_stats_monitor import ProcessorStats, processor_times
from tests.support.module_trainer import FakeModule, ModuleTrainer, RowLogger

CPU_KEYS = {"cpu_percent", "cpu_vm_percent", "cpu_swap_percent"}


def trained(monitor: DeviceStatsMonitor, *, batches: int = 4, **options: Any) -> list[tuple[int | None, dict[str, Any]]]:
    logger, module = RowLogger(), FakeModule()
    trainer = ModuleTrainer(callbacks=[monitor], loggers=[logger], log_every_n_steps=2, **options)
    trainer.start(module)
    trainer.epoch(module, [torch.ones(1, 4)] * batches)
    trainer.validation(module, [torch.ones(1, 4)])
    return logger.rows


def test_the_machines_numbers_are_logged_before_and_after_batches_with_a_row() -> None:
    rows = trained(DeviceStatsMonitor())
    assert [step for step, _ in rows] == [1, 1, 3, 3]
    assert [next(iter(row)).split("/")[0] for _, row in rows[:2]] == [
        "DeviceStatsMonitor.on_train_batch_start",
        "DeviceStatsMonitor.on_train_batch_end",
    ]
    assert {key.split("/")[1] for key in rows[0][1]} == CPU_KEYS
    assert all(0 <= value <= 100 for _, row in rows for value in row.values())


def test_only_the_asked_numbers_are_logged() -> None:
    rows = trained(DeviceStatsMonitor(filter_keys={"cpu_percent"}))
    assert {key.split("/")[1] for _, row in rows for key in row} == {"cpu_percent"}


def test_validation_within_a_row_is_logged_too() -> None:
    rows = trained(DeviceStatsMonitor(), batches=5)
    assert [next(iter(row)).split("/")[0].split(".")[1] for _, row in rows[-2:]] == ["on_validation_batch_start", "on_validation_batch_end"]


def test_processors_are_left_out_where_asked() -> None:
    assert all(row == {} for _, row in trained(DeviceStatsMonitor(cpu_stats=False)))


def test_without_a_logger_it_is_refused() -> None:
    with pytest.raises(ConfigError, match="Cannot use `DeviceStatsMonitor` callback with `Trainer\\(logger=False\\)`"):
        DeviceStatsMonitor().setup(ModuleTrainer(), FakeModule(), "fit")


def test_a_number_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"no 'cpu'. There are cpu_percent, cpu_swap_percent, cpu_vm_percent"):
        DeviceStatsMonitor(filter_keys=["cpu"]).setup(ModuleTrainer(loggers=[RowLogger()]), FakeModule(), "fit")


def test_other_ranks_log_nothing() -> None:
    class Second(SingleDeviceStrategy):
        global_rank = 1  # type: ignore[assignment]

    assert trained(DeviceStatsMonitor(), strategy=Second("cpu")) == []


def test_the_share_of_busy_time_is_that_since_the_last_reading() -> None:
    stats = ProcessorStats()
    first = stats.read()
    assert first.keys() == CPU_KEYS
    assert processor_times("cpu  1 2 3 4 5 6 7 8 9 9\ncpu0 1") == (27, 36)
