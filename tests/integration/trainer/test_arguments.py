"""Arguments of `Trainer` and of its entry points: what is refused, in which words, and what comes of defaults."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from leyden.core.errors import ConfigError
from leyden.trainer import LightningModule, Trainer
from leyden.trainer.callbacks import (
    EarlyStopping,
    LambdaCallback,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelSummary,
    PlainProgressBar,
    Timer,
    TQDMProgressBar,
)
from leyden.trainer.demos.boring_classes import BoringDataModule, BoringModel, RandomDataset, RandomIterableDataset
from leyden.trainer.loggers import CSVLogger, DummyLogger, TensorBoardLogger
from leyden.trainer.trainer.states import TrainerFn, TrainerStatus
from leyden.trainer.utilities.exceptions import MisconfigurationException
from leyden.trainer.utilities.warnings import PossibleUserWarning

pytestmark = pytest.mark.filterwarnings("ignore:You defined a .validation_step.", "ignore:The number of training batches")


def trainer(tmp_path: Path, **arguments: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    given: dict[str, Any] = {"max_epochs": 1, "accelerator": "cpu", "devices": 1, "default_root_dir": tmp_path, **quiet, **arguments}
    return Trainer(**given)


def loader(length: int = 2, **kwargs: Any) -> DataLoader[Tensor]:
    return DataLoader(RandomDataset(32, length), **kwargs)


# -- construction ------------------------------------------------------------------------------------------------

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"fast_dev_run": -1}, "should be >= 0"),
    ({"max_epochs": -2}, "`max_epochs` must be a non-negative integer or -1"),
    ({"max_steps": -2}, "`max_steps` must be a non-negative integer or -1"),
    *[
        ({f"limit_{stage}_batches": value}, "passed invalid value")
        for stage in ("train", "val", "test", "predict")
        for value in (-1, 1.5, "a")
    ],
    ({"overfit_batches": -1}, "passed invalid value"),
    ({"val_check_interval": 1.5}, "passed invalid value"),
    ({"check_val_every_n_epoch": None, "val_check_interval": 0.5}, "`val_check_interval` should be an integer or a time-based duration"),
    ({"check_val_every_n_epoch": 1.5}, "should be an integer"),
    ({"val_check_interval": "10:00"}, "DD:HH:MM:SS"),
    ({"max_time": "00:00:05"}, "format DD:HH:MM:SS"),
    ({"log_every_n_steps": "a"}, "`log_every_n_steps` should be an int"),
    ({"num_sanity_val_steps": 1.5}, "`num_sanity_val_steps` should be an int"),
    ({"accumulate_grad_batches": 0}, "should be an int >= 1"),
    ({"gradient_clip_algorithm": "abc"}, "`gradient_clip_algorithm` abc is invalid"),
    ({"reload_dataloaders_every_n_epochs": -1}, "should be an int >= 0"),
    ({"profiler": "abc"}, "it can only be one of"),
    ({"enable_checkpointing": False, "callbacks": ModelCheckpoint()}, "`enable_checkpointing=False` but found `ModelCheckpoint`"),
    ({"enable_progress_bar": False, "callbacks": TQDMProgressBar()}, "`enable_progress_bar=False` but found `TQDMProgressBar`"),
    (
        {"enable_progress_bar": True, "callbacks": [TQDMProgressBar(), PlainProgressBar()]},
        "You added multiple progress bar callbacks",
    ),
    ({"accelerator": "abc"}, "accelerator='abc' is not known"),
    ({"strategy": "abc"}, "strategy='abc' is not known"),
    ({"precision": "abc"}, "precision='abc' is not known"),
    ({"devices": 0}, "is not a valid input"),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSED, ids=lambda value: str(value)[:60])
def test_what_cannot_be_right_is_refused(arguments: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException) as found:
        trainer(tmp_path, **arguments)
    assert words in str(found.value)


@pytest.mark.parametrize("value", ["a", [1], True])
def test_a_clip_value_of_another_type_is_a_type_error(value: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="`gradient_clip_val` should be an int or a float"):
        trainer(tmp_path, gradient_clip_val=value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("enable_checkpointing", True),
        ("logger", True),
        ("enable_progress_bar", True),
        ("log_every_n_steps", 1),
        ("enable_model_summary", True),
        ("num_sanity_val_steps", 1),
        ("fast_dev_run", True),
        ("detect_anomaly", True),
        ("profiler", "simple"),
    ],
)
def test_a_bare_run_takes_nothing_that_costs(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"`Trainer\(barebones=True, {name}=.*\)` was passed"):
        Trainer(barebones=True, accelerator="cpu", devices=1, **{name: value})


def test_arguments_have_names_alone() -> None:
    with pytest.raises(TypeError, match="takes 1 positional argument"):
        Trainer(1)  # pyrefly: ignore[bad-argument-count]
    with pytest.raises(TypeError, match="unexpected keyword argument 'foo'"):
        Trainer(foo=1)  # pyrefly: ignore[unexpected-keyword]


def test_two_callbacks_with_one_key_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="Found more than one stateful callback of type `ModelCheckpoint`"):
        trainer(tmp_path, callbacks=[ModelCheckpoint(monitor="v"), ModelCheckpoint(monitor="v")], enable_checkpointing=True)


def test_a_summary_that_was_given_stays(tmp_path: Path) -> None:
    assert [type(entry) for entry in trainer(tmp_path, callbacks=[ModelSummary()]).callbacks] == [ModelSummary]


def test_a_default_interval_counts_over_epochs_too(tmp_path: Path) -> None:
    assert trainer(tmp_path, check_val_every_n_epoch=None).check_val_every_n_epoch is None


@pytest.mark.parametrize("interval", ["00:00:00:10", timedelta(seconds=10), {"seconds": 10}, "10s", "500step", "0.25epoch"])
def test_an_interval_may_be_a_time_or_a_trigger(interval: Any, tmp_path: Path) -> None:
    assert trainer(tmp_path, val_check_interval=interval).val_check_interval == interval


@pytest.mark.parametrize("limit", ["00:00:00:10", timedelta(seconds=10), {"seconds": 10}, "90min"])
def test_a_time_limit_is_a_timer(limit: Any, tmp_path: Path) -> None:
    made = trainer(tmp_path, max_epochs=None, max_time=limit)
    assert made.max_epochs == -1
    assert isinstance(made.callbacks[0], Timer)


def test_given_callbacks_keep_their_order_between_finders_and_savers(tmp_path: Path) -> None:
    bar, summary, timer, monitor, stop = TQDMProgressBar(), ModelSummary(), Timer(), LearningRateMonitor(), EarlyStopping("v")
    given = [ModelCheckpoint(), stop, timer, monitor, summary, bar]
    made = trainer(tmp_path, callbacks=given, enable_checkpointing=True, enable_progress_bar=True, enable_model_summary=True)
    assert list(made.callbacks) == [stop, timer, monitor, summary, bar, given[0]]


def test_defaults_come_behind_what_was_given(tmp_path: Path) -> None:
    on = {"enable_checkpointing": True, "enable_progress_bar": True, "enable_model_summary": True}
    made = trainer(tmp_path, callbacks=[EarlyStopping("v")], max_time="00:01:00:00", **on)
    names = [type(entry).__name__ for entry in made.callbacks]
    assert names == ["EarlyStopping", "Timer", type(made.progress_bar_callback).__name__, names[3], "ModelCheckpoint"]
    assert names[3].endswith("ModelSummary")


def test_a_fast_run_keeps_nothing(tmp_path: Path) -> None:
    made = trainer(tmp_path, fast_dev_run=3, logger=CSVLogger(tmp_path), callbacks=[EarlyStopping("v")])
    assert (made.max_epochs, made.max_steps, made.num_sanity_val_steps, made.limit_train_batches) == (1, 3, 0, 3)
    assert isinstance(made.logger, DummyLogger)


def test_attributes_say_what_the_arguments_were(tmp_path: Path) -> None:
    made = trainer(tmp_path, overfit_batches=3, val_check_interval=2, gradient_clip_val=0.5, accumulate_grad_batches=4, log_every_n_steps=7)
    assert (made.overfit_batches, made.limit_train_batches, made.limit_val_batches, made.limit_test_batches) == (3, 3, 3, 1.0)
    assert (made.val_check_interval, made.gradient_clip_val, made.accumulate_grad_batches, made.log_every_n_steps) == (2, 0.5, 4, 7)
    assert (made.fast_dev_run, made.barebones, made.num_sanity_val_steps, made.check_val_every_n_epoch) == (False, False, 2, 1)


def test_before_a_run_nothing_is_known(tmp_path: Path) -> None:
    made = trainer(tmp_path, max_steps=5, max_epochs=None)
    assert (made.lightning_module, made.model, made.datamodule, made.optimizers, made.lr_scheduler_configs) == (None, None, None, [], [])
    assert (made.train_dataloader, made.val_dataloaders, made.num_training_batches, made.num_val_batches) == (None, None, float("inf"), [])
    assert (made.estimated_stepping_batches, made.enable_validation, made.callback_metrics, made.ckpt_path) == (5, False, {}, None)
    assert (made.state.status, made.state.fn, made.state.stage) == (TrainerStatus.INITIALIZING, None, None)


def test_fit_without_any_limit_warns_and_other_entry_points_do_not(tmp_path: Path) -> None:
    made = trainer(tmp_path, max_epochs=None, limit_train_batches=0)
    made.validate(BoringModel(), loader(), verbose=False)
    with pytest.warns(UserWarning, match="`max_epochs` was not set"):
        made.fit(BoringModel())


def test_the_environment_fills_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_TRAINER_ACCUMULATE_GRAD_BATCHES", "3")
    assert trainer(tmp_path).accumulate_grad_batches == 3
    assert trainer(tmp_path, accumulate_grad_batches=2).accumulate_grad_batches == 2


def test_loggers(tmp_path: Path) -> None:
    assert trainer(tmp_path).loggers == []
    assert isinstance(trainer(tmp_path, logger=True).logger, TensorBoardLogger)
    two = trainer(tmp_path, logger=[CSVLogger(tmp_path, name="a"), CSVLogger(tmp_path, name="b")])
    assert two.log_dir == os.fspath(tmp_path / "a" / "version_0")
    two.logger = None
    assert (two.loggers, trainer(tmp_path).log_dir) == ([], os.fspath(tmp_path))


# -- entry points ------------------------------------------------------------------------------------------------

ENTRY_POINTS = ("fit", "validate", "test", "predict")


class Streamed(BoringModel):
    def train_dataloader(self) -> Any:
        return DataLoader(RandomIterableDataset(32, 3))


def run(fn: str, made: Trainer, *args: Any, **kwargs: Any) -> Any:
    quiet = {"verbose": False} if fn in ("validate", "test") else {}
    return getattr(made, fn)(*args, **kwargs, **quiet)


@pytest.mark.parametrize("fn", ENTRY_POINTS)
def test_an_entry_point_needs_a_module(fn: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=rf"`Trainer\.{fn}\(\)` requires a `LightningModule` when it hasn't been passed in a previous run"):
        run(fn, trainer(tmp_path))
    with pytest.raises(TypeError, match=r"must be a `LightningModule` .*, got `Linear`"):
        run(fn, trainer(tmp_path), torch.nn.Linear(1, 1))


@pytest.mark.parametrize("fn", ENTRY_POINTS)
def test_loaders_and_a_data_module_exclude_each_other(fn: str, tmp_path: Path) -> None:
    words = "`train_dataloader` or `val_dataloaders`" if fn == "fit" else rf"both `trainer\.{fn}\(dataloaders=\.\.\., datamodule=\.\.\.\)`"
    with pytest.raises(ConfigError, match=f"You cannot pass {words}"):
        run(fn, trainer(tmp_path), BoringModel(), loader(), datamodule=BoringDataModule())


def test_a_data_module_may_come_second(tmp_path: Path) -> None:
    made = trainer(tmp_path, fast_dev_run=True)
    made.fit(BoringModel(), BoringDataModule())
    assert isinstance(made.datamodule, BoringDataModule)


@pytest.mark.parametrize(("fn", "hook"), [("fit", "train"), ("validate", "val"), ("test", "test"), ("predict", "predict")])
def test_what_is_no_loader_is_refused(fn: str, hook: str, tmp_path: Path) -> None:
    argument = "train_dataloaders" if fn == "fit" else "dataloaders"
    with pytest.raises(TypeError, match=rf"An invalid dataloader was passed to `Trainer\.{fn}\({argument}=\.\.\.\)`. Found 5"):
        run(fn, trainer(tmp_path), BoringModel(), 5)
    bad = type("Bad", (BoringModel,), {f"{hook}_dataloader": lambda self: 5})
    with pytest.raises(TypeError, match=rf"An invalid dataloader was returned from `Bad\.{hook}_dataloader\(\)`. Found 5"):
        run(fn, trainer(tmp_path, limit_val_batches=None if fn == "validate" else 0), bad())


@pytest.mark.parametrize(("fn", "hook"), [("fit", "train"), ("validate", "val"), ("test", "test"), ("predict", "predict")])
def test_loaders_must_come_from_somewhere(fn: str, hook: str, tmp_path: Path) -> None:
    class Bare(LightningModule):
        def training_step(self, batch: Any, batch_idx: int) -> Any: ...
        def configure_optimizers(self) -> Any: ...
        def forward(self, x: Any) -> Any: ...

        validation_step = test_step = training_step

    with pytest.raises(MisconfigurationException, match=f"`{hook}_dataloader` must be implemented"):
        run(fn, trainer(tmp_path), Bare())


@pytest.mark.parametrize("fn", ENTRY_POINTS)
@pytest.mark.parametrize(
    ("path", "error", "words"),
    [
        ("missing.ckpt", FileNotFoundError, "Checkpoint file not found"),
        ("best", ConfigError, "`ModelCheckpoint` is not configured"),
        ("hpc", ConfigError, "no HPC checkpoint was found"),
        ("registry:model", ConfigError, "registries are not supported"),
    ],
)
def test_a_checkpoint_that_is_not_there_is_an_error(fn: str, path: str, error: type[Exception], words: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=words):
        run(fn, trainer(tmp_path), BoringModel(), loader(), ckpt_path=path)


def test_best_needs_a_saver_that_keeps_the_best(tmp_path: Path) -> None:
    made = trainer(tmp_path, callbacks=[ModelCheckpoint(save_top_k=0)], enable_checkpointing=True)
    with pytest.raises(ConfigError, match="is not configured to save the best"):
        made.fit(BoringModel(), ckpt_path="best")


def test_no_last_checkpoint_is_a_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="No checkpoint will be loaded"):
        trainer(tmp_path, fast_dev_run=False, limit_train_batches=1, limit_val_batches=0).fit(BoringModel(), ckpt_path="last")


def test_a_model_is_needed_for_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(AttributeError, match="Saving a checkpoint is only possible if a model is attached"):
        trainer(tmp_path).save_checkpoint(tmp_path / "a.ckpt")


def test_a_checkpoint_of_weights_alone_does_not_resume(tmp_path: Path) -> None:
    first = trainer(tmp_path, limit_train_batches=1, limit_val_batches=0)
    first.fit(BoringModel())
    first.save_checkpoint(tmp_path / "weights.ckpt", weights_only=True)
    with pytest.raises(KeyError, match="checkpoint contains only the model"):
        trainer(tmp_path, max_epochs=2).fit(BoringModel(), ckpt_path=tmp_path / "weights.ckpt")


def test_a_longer_run_does_not_go_on_as_a_shorter_one(tmp_path: Path) -> None:
    first = trainer(tmp_path, max_epochs=2, limit_train_batches=1, limit_val_batches=0)
    first.fit(BoringModel())
    first.save_checkpoint(tmp_path / "two.ckpt")
    with pytest.raises(ConfigError, match="You restored a checkpoint with current_epoch=2"):
        trainer(tmp_path, limit_train_batches=1).fit(BoringModel(), ckpt_path=tmp_path / "two.ckpt")


def test_a_run_with_validation_goes_on_without(tmp_path: Path) -> None:
    class Plain(BoringModel):
        val_dataloader = LightningModule.val_dataloader

    first = trainer(tmp_path, limit_train_batches=2)
    first.fit(Plain(), loader(), loader())
    first.save_checkpoint(tmp_path / "one.ckpt")
    second = trainer(tmp_path, max_epochs=2, limit_train_batches=2)
    second.fit(Plain(), loader(), ckpt_path=tmp_path / "one.ckpt")
    assert (second.current_epoch, second.global_step) == (2, 4)


# -- data --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["train", "val"])
def test_less_than_a_batch_is_refused(stage: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"You requested to check 0.01 of the `{stage}_dataloader`"):
        trainer(tmp_path, **{f"limit_{stage}_batches": 0.01}).fit(BoringModel(), loader(), loader())


def test_there_is_no_fraction_of_a_stream(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`Trainer\(limit_train_batches\)` must be `1.0` or an int"):
        trainer(tmp_path, limit_train_batches=0.5).fit(Streamed())
    with pytest.raises(ConfigError, match=r"`Trainer\(val_check_interval\)` must be `1.0`"):
        trainer(tmp_path, val_check_interval=0.5).fit(Streamed())


def test_validation_cannot_come_after_the_epoch(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be less than or equal to the number of the training batches"):
        trainer(tmp_path, val_check_interval=10).fit(BoringModel(), loader())
    trainer(tmp_path, val_check_interval=10, limit_val_batches=0).fit(BoringModel(), loader())


def test_overfitting_turns_shuffling_off(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="requested to overfit but enabled train dataloader shuffling"):
        trainer(tmp_path, overfit_batches=1).fit(BoringModel(), loader(shuffle=True))


def test_a_limit_beside_overfit_batches_has_no_effect(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="limit_val_batches=0 has no effect: overfit_batches=1 comes first"):
        made = trainer(tmp_path, overfit_batches=1, limit_val_batches=0)
    assert made.limit_val_batches == 1


@pytest.mark.parametrize(("fn", "stage"), [("validate", "val"), ("test", "test"), ("predict", "predict")])
def test_shuffled_evaluation_is_warned_of(fn: str, stage: str, tmp_path: Path) -> None:
    with pytest.warns(PossibleUserWarning, match=f"Your `{stage}_dataloader`'s sampler has shuffling enabled"):
        run(fn, trainer(tmp_path), BoringModel(), loader(shuffle=True))


@pytest.mark.parametrize(("fn", "stage"), [("validate", "val"), ("test", "test"), ("predict", "predict")])
def test_a_loader_of_which_nothing_is_taken_is_not_made(fn: str, stage: str, tmp_path: Path) -> None:
    def fail(self: Any) -> Any:
        raise AssertionError("it was asked for")

    class Refusing(BoringModel):
        val_dataloader = test_dataloader = predict_dataloader = fail

    assert not run(fn, trainer(tmp_path, **{f"limit_{stage}_batches": 0}), Refusing())


def test_no_training_batches_is_said_and_nothing_is_done(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    started: list[Any] = []

    def note(*args: Any) -> None:
        started.append(args)

    made = trainer(tmp_path, limit_train_batches=0, callbacks=[LambdaCallback(on_train_start=note)])
    made.fit(BoringModel())
    assert (started, made.global_step, made.state.finished) == ([], 0, True)


# -- after a run -------------------------------------------------------------------------------------------------


def test_a_run_leaves_what_it_had(tmp_path: Path) -> None:
    made, module = trainer(tmp_path, limit_train_batches=2, limit_val_batches=1), BoringModel()
    made.fit(module)
    assert made.model is module
    assert made.lightning_module is module
    assert isinstance(made.train_dataloader, DataLoader)
    assert (made.state.status, made.state.fn, made.state.stage) == (TrainerStatus.FINISHED, TrainerFn.FITTING, None)
    assert (made.num_training_batches, made.num_val_batches, made.num_sanity_val_batches, made.estimated_stepping_batches) == (
        2,
        [1],
        [1],
        2,
    )


def test_a_module_that_fails_leaves_the_trainer_interrupted(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    with pytest.raises(ZeroDivisionError):
        made.fit(type("Failing", (BoringModel,), {"training_step": lambda self, batch, batch_idx: 1 / 0})())
    assert (made.interrupted, made.state.status) == (True, TrainerStatus.INTERRUPTED)


def test_training_goes_on_with_a_later_end(tmp_path: Path) -> None:
    made, module = trainer(tmp_path, limit_train_batches=2, limit_val_batches=0), BoringModel()
    made.fit(module)
    made.fit(module)
    assert (made.current_epoch, made.global_step) == (1, 2)
    made.fit_loop.max_epochs = 3
    made.fit(module)
    assert (made.current_epoch, made.global_step, made.max_epochs) == (3, 6, 3)


def test_callbacks_may_come_from_the_module(tmp_path: Path) -> None:
    class Own(BoringModel):
        def configure_callbacks(self) -> Any:
            return EarlyStopping("v", strict=False, verbose=False)

    made = trainer(tmp_path, fast_dev_run=True, callbacks=[EarlyStopping("other"), LambdaCallback()])
    made.fit(Own())
    assert [getattr(entry, "monitor", None) for entry in made.callbacks] == [None, "v"]


def test_a_callback_of_the_module_replaces_its_kind_and_parents_not_children(tmp_path: Path) -> None:
    class Child(EarlyStopping):
        pass

    class Brings(BoringModel):
        brought: type[EarlyStopping]

        def configure_callbacks(self) -> Any:
            return self.brought("v", strict=False, verbose=False)

    def kinds(given: type[EarlyStopping], brought: type[EarlyStopping]) -> list[type]:
        module = Brings()
        module.brought = brought
        made = trainer(tmp_path, fast_dev_run=True, callbacks=[given("other", strict=False)])
        made.fit(module)
        return [type(callback) for callback in made.callbacks]

    assert kinds(EarlyStopping, Child) == [Child]
    assert kinds(Child, EarlyStopping) == [Child, EarlyStopping]


def test_a_stop_can_be_asked_for_before_the_loop_but_not_before_a_run(tmp_path: Path) -> None:
    made = trainer(tmp_path, limit_train_batches=4, limit_val_batches=0)
    with pytest.raises(AttributeError, match="has not run yet"):
        made.request_stop("too early")

    def ask(trainer: Any, pl_module: Any, stage: str) -> None:
        trainer.request_stop("enough")

    made.callbacks.append(LambdaCallback(setup=ask))
    made.fit(BoringModel())
    assert made.global_step == 1


def test_what_fails_while_an_exception_is_told_is_noted_with_it(tmp_path: Path) -> None:
    class Data(BoringDataModule):
        def on_exception(self, exception: BaseException) -> None:
            raise OSError("no space for the report")

    class Failing(BoringModel):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            raise ZeroDivisionError("the first one wins")

    with pytest.raises(ZeroDivisionError, match="the first one wins") as raised:
        trainer(tmp_path).fit(Failing(), Data())
    assert any("on_exception raised OSError: no space for the report" in note for note in raised.value.__notes__)


def test_a_minimum_above_the_maximum_is_said_to_have_no_effect(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="min_steps=5 has no effect: max_steps=2"):
        trainer(tmp_path, min_steps=5, max_steps=2)
    with pytest.warns(UserWarning, match="min_epochs=5 has no effect: max_epochs=2"):
        trainer(tmp_path, min_epochs=5, max_epochs=2)


def test_a_cadence_without_validation_is_said_to_have_no_effect(tmp_path: Path) -> None:
    class Trains(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(32, 1)

        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            return self.layer(batch).sum()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    with pytest.warns(UserWarning, match=r"Trainer\(val_check_interval=2, check_val_every_n_epoch=2\) has no effect"):
        trainer(tmp_path, val_check_interval=2, check_val_every_n_epoch=2).fit(Trains(), loader())
