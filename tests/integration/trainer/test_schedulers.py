"""Learning rate schedulers: which dictionaries are taken, and at which batches the rate changes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader

from leyden.core.errors import ConfigError
from leyden.trainer import Callback, Trainer
from leyden.trainer.demos.boring_classes import BoringModel, ManualOptimBoringModel, RandomDataset
from leyden.trainer.utilities.exceptions import MisconfigurationException

pytestmark = pytest.mark.filterwarnings("ignore:You defined a .validation_step.", "ignore:The number of training batches")


def trainer(tmp_path: Path, **arguments: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    given: dict[str, Any] = {"max_epochs": 2, "accelerator": "cpu", "devices": 1, "default_root_dir": tmp_path, **quiet, **arguments}
    return Trainer(**given)


class Rates(Callback):
    """The rate at the end of each batch, `|` between epochs."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append(round(trainer.optimizers[0].param_groups[0]["lr"], 6))

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.seen.append("|")


def module_with(make: Any, base: type[BoringModel] = BoringModel, **entry: Any) -> Any:
    """Return a module whose one scheduler is `make(optimizer)`, with these entries beside it."""

    def configure_optimizers(self: Any) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": make(optimizer), **entry}}

    return type("Mine", (base,), {"configure_optimizers": configure_optimizers})()


def halving(optimizer: Any) -> Any:
    return StepLR(optimizer, 1, 0.5)


def plateau(optimizer: Any) -> Any:
    return ReduceLROnPlateau(optimizer, "min", factor=0.5, patience=0, threshold=1e9, threshold_mode="abs")


def rates(tmp_path: Path, module: Any, **arguments: Any) -> list[Any]:
    watch = Rates()
    loader = DataLoader(RandomDataset(32, 4))
    trainer(tmp_path, callbacks=[watch], limit_val_batches=arguments.pop("limit_val_batches", 1), **arguments).fit(module, loader, loader)
    return watch.seen


# -- when they step ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "arguments", "expected"),
    [
        ({"interval": "step"}, {"max_epochs": 1}, [0.5, 0.25, 0.125, 0.0625, "|"]),
        ({"interval": "step", "frequency": 2}, {"max_epochs": 1}, [1.0, 0.5, 0.5, 0.25, "|"]),
        ({"interval": "step", "frequency": 3}, {}, [1.0, 1.0, 0.5, 0.5, "|", 0.5, 0.5, 0.25, 0.25, "|"]),
        ({"interval": "step"}, {"max_epochs": 1, "accumulate_grad_batches": 2}, [1.0, 0.5, 0.5, 0.25, "|"]),
        ({"interval": "epoch"}, {}, [1.0, 1.0, 1.0, 0.5, "|", 0.5, 0.5, 0.5, 0.25, "|"]),
        ({"interval": "epoch", "frequency": 2}, {}, [1.0, 1.0, 1.0, 1.0, "|", 1.0, 1.0, 1.0, 0.5, "|"]),
        ({}, {"max_epochs": 1}, [1.0, 1.0, 1.0, 0.5, "|"]),
        ({"interval": "step"}, {"max_steps": 3, "max_epochs": -1}, [0.5, 0.25, 0.125, "|"]),
        ({"interval": "epoch"}, {"max_steps": 6, "max_epochs": -1}, [1.0, 1.0, 1.0, 0.5, "|", 0.5, 0.5, "|"]),
    ],
    ids=str,
)
def test_a_scheduler_steps_at_its_interval(entry: dict[str, Any], arguments: dict[str, Any], expected: list[Any], tmp_path: Path) -> None:
    assert rates(tmp_path, module_with(halving, **entry), **arguments) == expected


@pytest.mark.parametrize(
    ("entry", "arguments", "expected"),
    [
        # The first value is the best so far; each later one is worse by the threshold.
        ({"interval": "epoch"}, {"max_epochs": 3}, [1.0] * 4 + ["|"] + [1.0] * 4 + ["|"] + [0.5] * 4 + ["|"]),
        ({"interval": "step"}, {"max_epochs": 1}, [1.0, 1.0, 0.5, 0.25, "|"]),
        ({"interval": "step", "frequency": 2}, {}, [1.0, 1.0, 1.0, 1.0, "|", 0.5, 0.5, 0.25, 0.25, "|"]),
    ],
    ids=str,
)
def test_a_plateau_steps_behind_the_batch_or_the_epoch(
    entry: dict[str, Any], arguments: dict[str, Any], expected: list[Any], tmp_path: Path
) -> None:
    class Logging(BoringModel):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)["loss"]
            self.log("loss", loss, on_step=True, on_epoch=True)
            return loss

    assert rates(tmp_path, module_with(plateau, Logging, monitor="loss", **entry), **arguments) == expected


def test_a_module_may_step_its_scheduler_itself(tmp_path: Path) -> None:
    seen: list[Any] = []

    class Own(BoringModel):
        def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
            seen.append((type(scheduler).__name__, metric))

    assert rates(tmp_path, module_with(halving, Own), max_epochs=1) == [1.0, 1.0, 1.0, 1.0, "|"]
    assert seen == [("StepLR", None)]


def test_schedulers_by_hand_wait_for_their_owner(tmp_path: Path) -> None:
    assert rates(tmp_path, module_with(halving, ManualOptimBoringModel), max_epochs=1) == [1.0, 1.0, 1.0, 1.0, "|"]


def test_what_was_configured_can_be_read(tmp_path: Path) -> None:
    made, module = trainer(tmp_path, fast_dev_run=True), module_with(halving, interval="step", frequency=3, name="rate")
    made.fit(module)
    (config,) = made.lr_scheduler_configs
    assert (config.interval, config.frequency, config.name, config.reduce_on_plateau, config.monitor, config.strict) == (
        "step",
        3,
        "rate",
        False,
        None,
        True,
    )
    assert module.lr_schedulers() is config.scheduler


# -- what is refused ---------------------------------------------------------------------------------------------


def test_unknown_keys_are_warned_of(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Found unsupported keys in the lr scheduler dict: .*'foo'"):
        trainer(tmp_path, fast_dev_run=True).fit(module_with(halving, foo=1))


def test_keys_without_a_meaning_by_hand_are_warned_of(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="but the keys will be ignored"):
        trainer(tmp_path, fast_dev_run=True).fit(module_with(halving, ManualOptimBoringModel, interval="step", monitor="x"))


def returning(value: Any) -> Any:
    def configure_optimizers(self: Any) -> Any:
        return value(torch.optim.SGD(self.parameters(), lr=1.0))

    return type("Mine", (BoringModel,), {"configure_optimizers": configure_optimizers})()


class Foreign:
    """A scheduler that torch does not know."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer

    def step(self) -> None: ...
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


REFUSED: list[tuple[Any, str]] = [
    (lambda o: {"optimizer": o, "lr_scheduler": {"interval": "step"}}, 'The lr scheduler dict must have the key "scheduler"'),
    (
        lambda o: {"optimizer": o, "lr_scheduler": {"scheduler": halving(o), "interval": "x"}},
        'The "interval" key in lr scheduler dict must be',
    ),
    (lambda o: {"optimizer": o, "lr_scheduler": plateau(o)}, "must include a monitor when a `ReduceLROnPlateau`"),
    (lambda o: ([o], [plateau(o)]), "must include a monitor when a `ReduceLROnPlateau` scheduler"),
    (lambda o: ([o], [halving(torch.optim.SGD([torch.ones(1)], lr=1.0))]), "attached with an optimizer that wasn't returned"),
    (lambda o: ([o], [Foreign(o)]), "doesn't follow PyTorch's LRScheduler"),
]


@pytest.mark.parametrize(("value", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_schedulers_that_cannot_be_right_are_refused(value: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException) as found:
        trainer(tmp_path, fast_dev_run=True).fit(returning(value))
    assert words in str(found.value)


def test_a_scheduler_needs_a_state(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="should have `state_dict` and `load_state_dict` methods"):
        trainer(tmp_path, fast_dev_run=True).fit(returning(lambda o: ([o], ["x"])))


def test_a_foreign_scheduler_is_stepped_by_its_owner(tmp_path: Path) -> None:
    class Own(BoringModel):
        def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
            scheduler.step()

    trainer(tmp_path, fast_dev_run=True).fit(module_with(Foreign, Own))


def test_a_metric_that_is_not_there_is_an_error_or_a_warning(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ReduceLROnPlateau conditioned on metric x which is not available\. Available metrics are:"):
        rates(tmp_path, module_with(plateau, monitor="x"))
    with pytest.warns(RuntimeWarning, match="conditioned on metric x which is not available"):
        rates(tmp_path, module_with(plateau, monitor="x", strict=False), max_epochs=1)
