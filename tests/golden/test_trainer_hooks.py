"""The order of hooks, replayed against traces executed on PyTorch Lightning 2.6.6 (facts, not code)."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from leyden.trainer.callbacks import ModelCheckpoint
from leyden.trainer.core.callback import Callback
from leyden.trainer.core.datamodule import LightningDataModule
from leyden.trainer.core.module import LightningModule
from leyden.trainer.trainer.trainer import Trainer

TRACES: dict[str, Any] = json.loads((Path(__file__).parent / "golden_2.6.6.json").read_text())["traces"]
STAGED = {"setup", "teardown"}
MODULE = (
    "configure_callbacks", "prepare_data", "setup", "configure_model", "configure_optimizers", "zero_grad", "eval", "train", "forward",
    "training_step", "validation_step", "test_step", "predict_step", "backward", "optimizer_step", "optimizer_zero_grad",
    "configure_gradient_clipping", "clip_gradients", "lr_scheduler_step", "on_before_batch_transfer", "transfer_batch_to_device",
    "on_after_batch_transfer", "state_dict", "load_state_dict", "teardown", "on_validation_model_zero_grad",
    "on_save_checkpoint", "on_load_checkpoint",
)  # fmt: skip
DATA = ("prepare_data", "setup", "train_dataloader", "val_dataloader", "test_dataloader", "predict_dataloader", "teardown", "state_dict",
        "load_state_dict", "on_exception")  # fmt: skip


def recording(cls: type, names: list[str], letter: str) -> type:
    """Return a subclass that notes each call of these methods in `trace`, and then does what the class does."""

    def make(name: str) -> Any:
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            shown = {"setup": args[-1] if args else kwargs.get("stage"), "teardown": args[-1] if args else kwargs.get("stage")}.get(name)
            if name == "train":
                shown = args[0] if args else kwargs.get("mode", True)
            if self.__dict__.get("trace") is not None:
                self.__dict__["trace"].append(f"{letter}.{name}" + (f"({shown})" if shown is not None else ""))
            return getattr(cls, name)(self, *args, **kwargs)

        method.__name__ = name
        return method

    return type(f"Recording{cls.__name__}", (cls,), {name: make(name) for name in names})


class Model(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self(batch).mean()

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        self(batch)

    def test_step(self, batch: Any, batch_idx: int) -> Any:
        self(batch)

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return self(batch)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


class Manual(Model):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        optimizer = self.optimizers()
        optimizer.optimizer.zero_grad()
        loss = self(batch).mean()
        self.manual_backward(loss)
        optimizer.step()


class Failing(Model):
    error: BaseException

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        raise self.error


class Skipping(Model):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None


class LeavingEpoch(Model):
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int:
        return -1


class Data(LightningDataModule):
    def train_dataloader(self) -> Any:
        return DataLoader(torch.ones(4, 2), batch_size=2)

    val_dataloader = test_dataloader = predict_dataloader = train_dataloader


def hooks_of(cls: type, names: tuple[str, ...] = ()) -> list[str]:
    return [*(name for name in dir(cls) if name.startswith("on_") and callable(getattr(cls, name)) and name != "on_gpu"), *names]


def build(cls: type[Model], trace: list[str]) -> tuple[Any, Any, Any]:
    names = sorted({*hooks_of(cls, MODULE)})
    model = recording(cls, names, "M")()
    data = recording(Data, list(DATA), "D")()
    callback = recording(Callback, sorted({*hooks_of(Callback), "setup", "teardown", "state_dict", "load_state_dict"}), "C")()
    for obj in (model, data, callback):
        obj.__dict__["trace"] = trace
    return model, data, callback


def trainer(tmp_path: Path, callbacks: list[Any], **kwargs: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "devices": 1}
    options = {"max_epochs": 1, "enable_checkpointing": False, "default_root_dir": tmp_path, **quiet, **kwargs}
    return Trainer(callbacks=callbacks, **options)


def expected(*path: str) -> list[str]:
    found: Any = TRACES
    for name in path:
        found = found[name]
    return found


def trace_of(cls: type[Model], tmp_path: Path, fn: str = "fit", **kwargs: Any) -> list[str]:
    trace: list[str] = []
    model, data, callback = build(cls, trace)
    run = trainer(tmp_path, [callback, *kwargs.pop("callbacks", [])], **kwargs)
    try:
        getattr(run, fn)(model, datamodule=data)
    except BaseException as error:  # noqa: BLE001 - its name is what is compared
        trace.append(f"!! raised {type(error).__name__}")
    return trace


@pytest.mark.parametrize("fn", ["fit", "validate", "test", "predict"])
def test_hooks_come_in_the_documented_order(fn: str, tmp_path: Path) -> None:
    assert trace_of(Model, tmp_path, fn) == expected("all_fns", fn)


def test_accumulation_steps_at_the_second_batch(tmp_path: Path) -> None:
    assert trace_of(Model, tmp_path, accumulate_grad_batches=2, gradient_clip_val=1.0) == expected("fit_accumulate2_clip", "fit")


def test_manual_optimisation_calls_the_step_alone(tmp_path: Path) -> None:
    assert trace_of(Manual, tmp_path) == expected("fit_manual", "fit")


def test_a_save_asks_module_callbacks_and_data(tmp_path: Path) -> None:
    trace = trace_of(Model, tmp_path, enable_checkpointing=True, callbacks=[ModelCheckpoint(tmp_path / "saved")])
    assert trace == expected("fit_ckpt", "fit")


def test_an_exception_reaches_callbacks_and_data_and_no_other_hook(tmp_path: Path) -> None:
    cls = type("Raising", (Failing,), {"error": ValueError("no")})
    assert trace_of(cls, tmp_path) == expected("fit_exception", "fit")


def test_ctrl_c_ends_in_an_error_that_is_both(tmp_path: Path) -> None:
    cls = type("Interrupting", (Failing,), {"error": KeyboardInterrupt()})
    golden = [*expected("fit_keyboard_interrupt", "fit")[:-1], "!! raised Interrupted"]  # D7: also a KeyboardInterrupt
    assert trace_of(cls, tmp_path) == golden


@pytest.mark.filterwarnings("ignore:Detected call of")
def test_minus_one_leaves_the_epoch(tmp_path: Path) -> None:
    assert trace_of(LeavingEpoch, tmp_path) == expected("fit_batch_start_returns_-1", "fit")


@pytest.mark.filterwarnings("ignore:.training_step. returned")
def test_none_skips_backward_and_steps_all_the_same(tmp_path: Path) -> None:
    assert trace_of(Skipping, tmp_path) == expected("fit_training_step_returns_None", "fit")


@pytest.mark.filterwarnings("ignore:Be aware that")
def test_a_run_resumed_at_an_epochs_end_goes_on_with_the_next(tmp_path: Path) -> None:
    first = trainer(tmp_path, [ModelCheckpoint(tmp_path / "saved")], enable_checkpointing=True)
    first.fit(Model(), datamodule=Data())
    path = first.checkpoint_callback.best_model_path
    trace: list[str] = []
    model, data, callback = build(Model, trace)
    trainer(tmp_path, [callback], max_epochs=2).fit(model, datamodule=data, ckpt_path=path)
    golden = expected("fit_resume_from_epoch_end", "fit")
    start, end = golden.index("C.on_sanity_check_start"), golden.index("C.on_sanity_check_end") + 1
    without = golden[:start] + golden[end:]  # D5: no sanity check with a restored state
    load = without.index("D.train_dataloader")
    assert [entry for entry in trace if entry not in ("D.val_dataloader", "D.load_state_dict")] == [
        entry for entry in without if entry != "D.val_dataloader"
    ]
    assert trace[load] == "D.train_dataloader"
