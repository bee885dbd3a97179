"""Loops from outside: what callbacks and users see while they run and where they end."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from leyden.core.errors import ConfigError
from leyden.trainer import Callback, LightningModule, Trainer
from leyden.trainer.callbacks import EarlyStopping
from leyden.trainer.utilities import CombinedLoader
from tests.support.trainer_facts import Line, Numbers, StopsInStep, WantsToStop

pytestmark = pytest.mark.filterwarnings("ignore:You defined a .validation_step.", "ignore:The number of training batches")


def trainer(tmp_path: Path, **arguments: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    given: dict[str, Any] = {"max_epochs": 1, "accelerator": "cpu", "devices": 1, "default_root_dir": tmp_path, **quiet, **arguments}
    return Trainer(**given)


def loader(batches: int) -> Any:
    return DataLoader(Numbers(batches))


class Counters(Callback):
    """Reads counters of `fit_loop` in some hooks."""

    def __init__(self, *paths: str) -> None:
        self.paths = paths
        self.seen: dict[str, list[Any]] = {}

    def _read(self, hook: str, trainer: Any) -> None:
        values = []
        for path in self.paths:
            value: Any = trainer.fit_loop
            for name in path.split("."):
                value = getattr(value, name)
            values.append(value)
        self.seen.setdefault(hook, []).append(tuple(values))

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._read("start", trainer)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._read("batch", trainer)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._read("batch_end", trainer)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self._read("validated", trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._read("epoch_end", trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._read("end", trainer)


def test_batches_are_counted_as_they_come_and_go(tmp_path: Path) -> None:
    side = "epoch_loop.batch_progress.current"
    counters = Counters(f"{side}.ready", f"{side}.processed", f"{side}.completed", "batch_idx", "total_batch_idx")
    trainer(tmp_path, max_epochs=2, callbacks=[counters]).fit(Line(), loader(2), loader(1))
    assert counters.seen == {
        "start": [(0, 0, 0, -1, -1)],
        "batch": [(1, 0, 0, 0, 0), (2, 1, 1, 1, 1), (1, 0, 0, 0, 2), (2, 1, 1, 1, 3)],
        "batch_end": [(1, 1, 0, 0, 0), (2, 2, 1, 1, 1), (1, 1, 0, 0, 2), (2, 2, 1, 1, 3)],
        "validated": [(2, 2, 2, 1, 1), (2, 2, 2, 1, 3)],
        "epoch_end": [(2, 2, 2, 1, 1), (2, 2, 2, 1, 3)],
        "end": [(2, 2, 2, 1, 3)],
    }


def test_epochs_are_counted_as_they_come_and_go(tmp_path: Path) -> None:
    counters = Counters(*(f"epoch_progress.current.{name}" for name in ("ready", "processed", "completed")))
    trainer(tmp_path, max_epochs=2, callbacks=[counters]).fit(Line(), loader(1))
    assert (counters.seen["batch"], counters.seen["epoch_end"]) == ([(1, 0, 0), (2, 1, 1)], [(1, 1, 0), (2, 2, 1)])
    assert counters.seen["end"] == [(2, 2, 2)]


def test_the_x_of_rows_can_be_read(tmp_path: Path) -> None:
    counters = Counters("epoch_loop._batches_that_stepped", "epoch_loop.global_step")
    trainer(tmp_path, callbacks=[counters], accumulate_grad_batches=2).fit(Line(), loader(4))
    assert counters.seen["batch_end"] == [(0, 0), (0, 1), (1, 1), (1, 2)]


def test_limits_can_be_moved_while_training(tmp_path: Path) -> None:
    class Longer(Line):
        def on_train_epoch_start(self) -> None:
            self.trainer.fit_loop.max_epochs = 3

    made = trainer(tmp_path)
    made.fit(Longer(), loader(2))
    assert (made.current_epoch, made.fit_loop.done, made.fit_loop.max_epochs) == (3, True, 3)


def test_the_last_batch_is_known_until_the_next_epoch(tmp_path: Path) -> None:
    counters = Counters("epoch_loop.batch_progress.is_last_batch")
    made = trainer(tmp_path, callbacks=[counters])
    made.fit(Line(), loader(2))
    assert [value for (value,) in counters.seen["batch"]] == [False, True]
    assert (counters.seen["end"], made.is_last_batch) == ([(True,)], True)


# -- metrics as they are -------------------------------------------------------------------------------------------


def test_logged_metrics_hold_what_is_current_whatever_the_cadence(tmp_path: Path) -> None:
    seen: list[Any] = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            seen.append(sorted(trainer.logged_metrics))

        def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            seen.append(sorted(trainer.logged_metrics))

    made = trainer(tmp_path, callbacks=[Watch()], num_sanity_val_steps=0, log_every_n_steps=50)
    made.fit(Line(), loader(1), loader(1))
    assert seen == [["loss_step"], ["loss_step", "v"]]
    assert sorted(made.logged_metrics) == ["loss_epoch", "loss_step", "v"]


# -- ends ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "arguments", "expected"),
    [
        (StopsInStep, {"max_epochs": 3}, (1, 2)),
        (WantsToStop, {"max_epochs": 3}, (1, 1)),
        (WantsToStop, {"max_epochs": 3, "min_epochs": 2}, (2, 8)),
        (WantsToStop, {"max_epochs": 3, "min_steps": 6}, (2, 6)),
    ],
)
def test_a_stop_is_heeded_behind_the_batch_once_it_may_be(
    module: type[Line], arguments: dict[str, Any], expected: tuple[int, int], tmp_path: Path
) -> None:
    made = trainer(tmp_path, **arguments)
    made.fit(module(), loader(4), loader(1))
    assert (made.current_epoch, made.global_step) == expected


def test_a_stop_before_the_first_batch_leaves_the_epoch_empty(tmp_path: Path) -> None:
    class Early(Line):
        def on_train_epoch_start(self) -> None:
            self.trainer.should_stop = True

    made = trainer(tmp_path, max_epochs=3)
    made.fit(Early(), loader(4), loader(1))
    assert (made.current_epoch, made.global_step, made.should_stop, made.fit_loop.done) == (1, 0, True, True)


@pytest.mark.parametrize("arguments", [{"max_epochs": 0}, {"max_steps": 0}])
def test_nothing_to_do_is_done_at_once(arguments: dict[str, Any], tmp_path: Path) -> None:
    counters = Counters("done")
    made = trainer(tmp_path, callbacks=[counters], **arguments)
    made.fit(Line(), loader(2), loader(1))
    assert (counters.seen, made.global_step, made.state.finished) == ({}, 0, True)


def test_early_stopping_waits_for_min_epochs(tmp_path: Path) -> None:
    stop = EarlyStopping("v", mode="max", patience=1)
    made = trainer(tmp_path, max_epochs=6, min_epochs=4, callbacks=[stop])
    made.fit(Line(), loader(4), loader(2))
    assert (made.current_epoch, stop.stopped_epoch > 0) == (4, True)


# -- modes and gradients -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fn", ["validate", "test", "predict"])
@pytest.mark.parametrize("inference_mode", [True, False])
def test_evaluation_computes_no_gradients(fn: str, inference_mode: bool, tmp_path: Path) -> None:
    seen: list[Any] = []

    class Modes(Line):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> int:
            seen.append((self.training, torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
            return 0

        test_step = predict_step = validation_step

    module = Modes()
    getattr(trainer(tmp_path, inference_mode=inference_mode), fn)(module, loader(1))
    assert seen == [(False, False, inference_mode)]
    assert module.training
    assert torch.is_grad_enabled()


# -- several loaders -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "count"), [("min_size", 2), ("max_size", 3), ("max_size_cycle", 3)])
def test_training_takes_collections_of_loaders(mode: str, count: int, tmp_path: Path) -> None:
    seen: list[Any] = []

    class Watching(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            seen.append({name: None if part is None else part.shape for name, part in batch.items()})
            return self(torch.ones(1, 2)).mean()

    trainer(tmp_path).fit(Watching(), CombinedLoader({"a": loader(2), "b": loader(3)}, mode))
    assert len(seen) == count
    assert seen[-1].keys() == {"a", "b"}
    assert (seen[-1]["a"] is None) == (mode == "max_size")


def test_a_dictionary_of_loaders_is_cycled(tmp_path: Path) -> None:
    made = trainer(tmp_path)

    class Both(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self(batch["a"] + batch["b"]).mean()

    made.fit(Both(), {"a": loader(2), "b": loader(3)})
    assert (made.num_training_batches, made.global_step) == (3, 3)


def test_loaders_one_after_the_other_are_for_evaluation(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`FitLoop` does not support"):
        trainer(tmp_path).fit(Line(), CombinedLoader([loader(1)], "sequential"))
    with pytest.raises(ValueError, match="only supports the `CombinedLoader"):
        trainer(tmp_path).predict(Line(), CombinedLoader([loader(1), loader(1)], "min_size"))


def test_values_of_each_loader_are_returned(tmp_path: Path) -> None:
    found = trainer(tmp_path).validate(Line(), [loader(1), loader(2)], verbose=False)
    assert [list(entry) for entry in found] == [["v/dataloader_idx_0"], ["v/dataloader_idx_1"]]
    predictions: Any = trainer(tmp_path).predict(Line(), {"a": loader(1), "b": loader(2)})
    assert [len(part) for part in predictions] == [1, 2]


def test_validate_after_fit_takes_the_loaders_that_fit_was_given(tmp_path: Path) -> None:
    class Net(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.layer(batch).mean()

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val", self.layer(batch).mean())

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, **quiet)
    data = DataLoader(torch.ones(4, 2), batch_size=2)  # pyrefly: ignore - tensors are indexable
    trainer.fit(Net(), data, data)
    assert trainer.validate(ckpt_path="best", verbose=False) == [{"val": float(trainer.callback_metrics["val"])}]
    with pytest.raises(ConfigError, match="`test_step\\(\\)` method"):
        trainer.test(trainer.lightning_module, verbose=False)
