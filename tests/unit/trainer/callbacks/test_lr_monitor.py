from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import StepLR

from leyden.core.errors import ConfigError
from leyden.trainer.callbacks.lr_monitor import LearningRateMonitor
from leyden.trainer.core.optimizer import LRSchedulerConfig
from tests.support.fake_trainer import FakeTrainer


class KeptRows:
    """A logger that keeps its rows."""

    def __init__(self) -> None:
        self.rows: list[tuple[int | None, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))


def parameters(count: int = 1) -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.zeros(1)) for _ in range(count)]


def sgd(*names: str | None, **options: Any) -> Optimizer:
    groups = [{"params": parameters(), **({"name": name} if name else {})} for name in names or (None,)]
    return SGD(groups, lr=0.5, **options)


def scheduled(optimizer: Optimizer, **options: Any) -> LRSchedulerConfig:
    return LRSchedulerConfig(scheduler=StepLR(optimizer, 1), **options)


def monitored(root: Path, monitor: LearningRateMonitor, **attributes: Any) -> tuple[FakeTrainer, KeptRows]:
    rows = KeptRows()
    trainer = FakeTrainer(root, monitor, loggers=[rows], **attributes)
    trainer.begin()
    return trainer, rows


def keys(root: Path, optimizers: list[Optimizer], configs: list[LRSchedulerConfig], **arguments: Any) -> list[str]:
    trainer, rows = monitored(root, LearningRateMonitor(**arguments), optimizers=optimizers, lr_scheduler_configs=configs)
    trainer.fire("on_train_epoch_start")
    return list(rows.rows[0][1])


def test_names_say_whose_rate_it_is(tmp_path: Path) -> None:
    first, second, adam = sgd(), sgd(), Adam(parameters(), lr=0.1)
    assert keys(tmp_path, [first, adam, second], []) == ["lr-SGD", "lr-Adam", "lr-SGD-1"]
    assert keys(tmp_path, [sgd(None, None)], []) == ["lr-SGD/pg1", "lr-SGD/pg2"]
    assert keys(tmp_path, [sgd("body", None, "head")], []) == ["lr-SGD/body", "lr-SGD/pg2", "lr-SGD/head"]
    assert keys(tmp_path, [sgd("all")], []) == ["lr-SGD/all"]
    assert keys(tmp_path, [first], [scheduled(first, name="mine")]) == ["mine"]
    both = [scheduled(first, name="same"), scheduled(second, name="same")]
    assert keys(tmp_path, [first, second], both) == ["same", "same-1"]
    assert keys(tmp_path, [first, second], [scheduled(second)]) == ["lr-SGD", "lr-SGD-1"]


def test_a_prefix_stands_before_every_key(tmp_path: Path) -> None:
    options = {"log_key_prefix": "optim/", "log_momentum": True, "log_weight_decay": True}
    assert keys(tmp_path, [sgd()], [], **options) == ["optim/lr-SGD", "optim/lr-SGD-momentum", "optim/lr-SGD-weight_decay"]


def test_momentum_and_weight_decay_are_logged_on_request(tmp_path: Path) -> None:
    optimizers = [sgd(momentum=0.9, weight_decay=0.01), Adam(parameters(), betas=(0.8, 0.99))]
    monitor = LearningRateMonitor(log_momentum=True, log_weight_decay=True)
    trainer, rows = monitored(tmp_path, monitor, optimizers=optimizers)
    trainer.fire("on_train_epoch_start")
    logged = rows.rows[0][1]
    assert (logged["lr-SGD-momentum"], logged["lr-Adam-momentum"]) == (0.9, 0.8)
    assert (logged["lr-SGD-weight_decay"], logged["lr-Adam-weight_decay"]) == (0.01, 0.0)
    assert monitor.last_momentum_values == {"lr-SGD-momentum": 0.9, "lr-Adam-momentum": 0.8}


def test_an_optimizer_without_momentum_is_warned_about(tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning, match="neither momentum nor betas"):
        monitored(tmp_path, LearningRateMonitor(log_momentum=True), optimizers=[torch.optim.Adagrad(parameters())])


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        (None, [(0, ["lr-Adam"]), (0, ["lr-SGD"]), (1, ["lr-SGD"])]),
        ("step", [(0, ["lr-Adam", "lr-SGD"]), (1, ["lr-Adam", "lr-SGD"])]),
        ("epoch", [(0, ["lr-Adam", "lr-SGD"])]),
    ],
    ids=str,
)
def test_each_scheduler_is_logged_when_it_steps_unless_told_otherwise(
    tmp_path: Path, interval: Any, expected: list[tuple[int, list[str]]]
) -> None:
    by_epoch, by_step = Adam(parameters()), sgd()
    configs = [scheduled(by_epoch, interval="epoch"), scheduled(by_step, interval="step")]
    trainer, rows = monitored(tmp_path, LearningRateMonitor(interval), optimizers=[by_epoch, by_step], lr_scheduler_configs=configs)
    trainer.fire("on_train_epoch_start")
    trainer.batch(0)
    trainer.batch(1)
    assert [(step, list(row)) for step, row in rows.rows] == expected


def test_rows_come_as_often_as_those_of_the_module(tmp_path: Path) -> None:
    trainer, rows = monitored(tmp_path, LearningRateMonitor("step"), optimizers=[sgd()], log_every_n_steps=2, accumulate=2)
    for index in range(8):
        trainer.batch(index)
    assert [step for step, _ in rows.rows] == [1, 3]


def test_rates_are_kept_and_offered_to_other_callbacks(tmp_path: Path) -> None:
    optimizer = sgd()
    monitor = LearningRateMonitor("epoch")
    trainer, _ = monitored(tmp_path, monitor, optimizers=[optimizer])
    trainer.epoch()
    optimizer.param_groups[0]["lr"] = 0.25
    trainer.epoch()
    assert monitor.lrs == {"lr-SGD": [0.5, 0.25]}
    assert trainer.callback_metrics["lr-SGD"] == torch.tensor(0.25)


def test_a_group_added_later_gives_the_first_one_a_number(tmp_path: Path) -> None:
    optimizer = sgd()
    monitor = LearningRateMonitor("epoch")
    trainer, _ = monitored(tmp_path, monitor, optimizers=[optimizer])
    trainer.epoch()
    optimizer.add_param_group({"params": parameters(), "lr": 0.1})
    trainer.epoch()
    assert monitor.lrs == {"lr-SGD/pg1": [0.5, 0.5], "lr-SGD/pg2": [0.1]}


def test_it_needs_a_logger(tmp_path: Path) -> None:
    trainer = FakeTrainer(tmp_path, LearningRateMonitor())
    with pytest.raises(ConfigError, match="`Trainer` that has no logger"):
        trainer.begin()


def test_groups_of_one_name_are_refused(tmp_path: Path) -> None:
    words = "A single `Optimizer` cannot have multiple parameter groups with identical `name` values: lr-SGD has 'a' twice"
    with pytest.raises(ConfigError, match=words):
        monitored(tmp_path, LearningRateMonitor(), optimizers=[sgd("a", "b", "a")])


def test_another_interval_is_refused() -> None:
    with pytest.raises(ConfigError, match="logging_interval should be `step` or `epoch` or `None`"):
        LearningRateMonitor("batch")  # pyrefly: ignore[bad-argument-type]
