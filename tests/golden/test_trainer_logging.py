"""What `self.log` makes of a run: rows, dictionaries and results, replayed through `Trainer` against PyTorch Lightning 2.6.6."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from leyden.core.errors import ConfigError
from leyden.fabric.loggers import Logger
from leyden.trainer.core.module import LightningModule
from leyden.trainer.trainer.trainer import Trainer

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden_logging_2.6.6.json").read_text())["cases"]
Hook = Callable[[Any, int], Any]
pytestmark = pytest.mark.filterwarnings("ignore:The number of training batches")


class Recorder(Logger):
    name = version = "recorder"  # pyrefly: ignore - properties of the base

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self.finalized: list[str] = []

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.rows.append([step, {name: float(value) for name, value in metrics.items()}])

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Keep nothing."""

    def finalize(self, status: str) -> None:
        self.finalized.append(status)


class Logging(LightningModule):
    def __init__(self, *, train: Hook | None = None, val: Hook | None = None, is_manual: bool = False, **hooks: Any) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.train_hook, self.val_hook = train, val
        self.automatic_optimization = not is_manual
        self.hooks = hooks

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.train_hook is not None:
            self.train_hook(self, batch_idx)
        loss = self.layer(batch).mean()
        if not self.automatic_optimization:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            return None
        return loss

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        if self.val_hook is not None:
            self.val_hook(self, batch_idx + 100 * dataloader_idx)

    test_step = validation_step

    def on_train_epoch_start(self) -> None:
        if "start" in self.hooks:
            self.log("in_epoch_start", 5.0)

    def on_train_epoch_end(self) -> None:
        if "end" in self.hooks:
            self.log("in_epoch_end", 7.0)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def loader(batches: int) -> DataLoader[Any]:
    return DataLoader(torch.ones(batches, 2), batch_size=1)  # pyrefly: ignore - tensors are indexable


def a(**options: Any) -> Hook:
    return lambda module, index: module.log("a", torch.tensor(index + 1.0), **options)


def v(**options: Any) -> Hook:
    return lambda module, index: module.log("v", 10.0 + 10 * (index // 100) + index % 100, **options)


def reductions(module: Any, index: int) -> None:
    for name, reduce_fx in (("s", "sum"), ("M", max), ("m", torch.min)):
        module.log(name, torch.tensor(index + 1.0), on_step=False, on_epoch=True, reduce_fx=reduce_fx)


def step_key(module: Any, index: int) -> None:
    module.log("step", index + 1.0, on_step=False, on_epoch=True)
    module.log("a", index + 1.0, on_step=False, on_epoch=True)


BOTH: dict[str, Any] = {"on_step": True, "on_epoch": True}
FORKED: dict[str, Any] = {**BOTH, "prog_bar": True}
VAL: dict[str, Any] = {"vals": [2]}
CASES: dict[str, tuple[Logging, dict[str, Any]]] = {
    "train_default": (Logging(train=a()), {}),
    "train_on_epoch_only": (Logging(train=a(on_step=False, on_epoch=True)), {}),
    "train_forked": (Logging(train=a(**FORKED)), {}),
    "train_reduce_sum_max_min": (Logging(train=reductions), {}),
    "train_logger_false": (Logging(train=a(logger=False, prog_bar=True)), {}),
    "train_log_every_1": (Logging(train=a()), {"log_every_n_steps": 1}),
    "train_accumulate2_log1": (Logging(train=a()), {"log_every_n_steps": 1, "accumulate_grad_batches": 2}),
    "train_accumulate3_on5_log1": (Logging(train=a()), {"log_every_n_steps": 1, "accumulate_grad_batches": 3, "batches": 5}),
    "train_manual_log1": (Logging(train=a(), is_manual=True), {"log_every_n_steps": 1}),
    "train_step_key": (Logging(train=step_key), {}),
    "train_epoch_hooks": (Logging(train=a(), start=True, end=True), {}),
    "val_default": (Logging(train=a(), val=v()), VAL),
    "val_forked": (Logging(train=a(), val=v(**FORKED)), VAL),
    "val_two_loaders": (Logging(val=v()), {"vals": [2, 2]}),
    "val_twice_per_epoch": (Logging(train=a(**BOTH), val=v()), {**VAL, "val_check_interval": 2}),
    "val_every_3_steps": (
        Logging(train=a(), val=v()),
        {**VAL, "val_check_interval": 3, "check_val_every_n_epoch": None, "max_epochs": 3},
    ),
}


def make(tmp_path: Path, **kwargs: Any) -> tuple[Trainer, Recorder]:
    recorder = Recorder()
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    options = {"max_epochs": 2, "log_every_n_steps": 2, "accelerator": "cpu", "default_root_dir": tmp_path, **quiet, **kwargs}
    return Trainer(logger=recorder, **options), recorder


def outcome(trainer: Trainer, recorder: Recorder) -> dict[str, Any]:
    return {
        "logger_rows": recorder.rows,
        "callback_metrics": numbers(trainer.callback_metrics),
        "logged_metrics": numbers(trainer.logged_metrics),
        "progress_bar_metrics": numbers(trainer.progress_bar_metrics),
        "global_step": trainer.global_step,
        "current_epoch": trainer.current_epoch,
    }


def numbers(metrics: Any) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


def golden(case: str, fn: str) -> dict[str, Any]:
    found = dict(GOLDEN[case][fn])
    found.pop("returned")
    return found


@pytest.mark.parametrize("case", CASES)
def test_fit_writes_the_documented_rows(case: str, tmp_path: Path) -> None:
    module, options = CASES[case]
    options = dict(options)
    vals = [loader(count) for count in options.pop("vals", [])]
    train = loader(options.pop("batches", 4))
    trainer, recorder = make(tmp_path, **options)
    trainer.fit(module, train, vals if len(vals) > 1 else (vals[0] if vals else loader(1)))
    assert outcome(trainer, recorder) == golden(case, "fit")
    assert recorder.finalized == GOLDEN[case]["finalize"]


@pytest.mark.parametrize("fn", ["validate", "test"])
def test_evaluation_returns_epoch_values(fn: str, tmp_path: Path) -> None:
    trainer, recorder = make(tmp_path)
    returned = getattr(trainer, fn)(Logging(val=v(**BOTH)), loader(2), verbose=False)
    assert returned == GOLDEN["validate_test_returned"][fn]["returned"]
    assert outcome(trainer, recorder) == golden("validate_test_returned", fn)


def test_validate_returns_one_dictionary_per_loader(tmp_path: Path) -> None:
    trainer, recorder = make(tmp_path)
    assert trainer.validate(Logging(val=v()), [loader(2), loader(2)], verbose=False) == GOLDEN["validate_two"]["validate"]["returned"]
    assert outcome(trainer, recorder) == golden("validate_two", "validate")


def test_one_name_from_two_loaders_without_their_number_is_refused(tmp_path: Path) -> None:
    trainer, _ = make(tmp_path)
    with pytest.raises(ConfigError, match="twice in `validation_step` with different arguments"):
        trainer.fit(Logging(val=v(add_dataloader_idx=False)), loader(4), [loader(2), loader(2)])
