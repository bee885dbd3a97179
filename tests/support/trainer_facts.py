"""Runs a configuration of `Trainer` that is described by plain data, and returns what happened as plain data.

A case says: `fn`, Trainer's `arguments`, `module` (a name of `MODULES`), `train` and `eval` (how many batches the loaders
have; a list: several loaders; `"unsized": n` an iterable without a length). What happened: the hooks with the counters
that they saw, the rows that went to the logger, what was returned, and the public attributes afterwards.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from leyden.trainer import Callback, LightningModule, Trainer
from leyden.trainer.loggers import Logger

ATTRIBUTES = (
    "global_step", "current_epoch", "max_steps", "should_stop", "is_last_batch", "num_training_batches", "num_val_batches",
    "num_test_batches", "num_predict_batches", "num_sanity_val_batches", "val_check_batch", "enable_validation",
)  # fmt: skip
WITHOUT_A_CALLBACK = (
    "training_step", "validation_step", "test_step", "predict_step", "optimizer_step", "lr_scheduler_step", "backward",
    "on_validation_model_zero_grad", "on_validation_model_eval", "on_validation_model_train", "configure_gradient_clipping",
)  # fmt: skip


class Numbers(Dataset[Tensor]):
    def __init__(self, length: int) -> None:
        self.rows = torch.arange(2 * length, dtype=torch.float).reshape(length, 2) / 10

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        return self.rows[index]


class Stream(IterableDataset[Tensor]):
    def __init__(self, length: int) -> None:
        self.length = length

    def __iter__(self) -> Iterator[Tensor]:
        return iter(Numbers(self.length).rows)


class Line(LightningModule):
    trace: list[str]

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        nn.init.constant_(self.layer.weight, 0.5)
        nn.init.constant_(self.layer.bias, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self(batch).mean()
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        self.log("v", self(batch).mean())

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        self.log("t", self(batch).mean())

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        return self(batch)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class ByHand(Line):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        loss = self(batch).mean()
        self.manual_backward(loss)
        optimizer.step()
        self.log("loss", loss, on_step=True, on_epoch=True)


class EverySecondByHand(ByHand):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        optimizer: Any = self.optimizers()
        self.manual_backward(self(batch).mean())
        if batch_idx % 2:
            optimizer.step()
            optimizer.zero_grad()
        self.log("number", float(batch_idx))


class LeavesAtTwo(Line):
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        return -1 if batch_idx == 2 else None


class SkipsOne(Line):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None if batch_idx == 1 else super().training_step(batch, batch_idx)


class StopsInStep(Line):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.trainer.should_stop = batch_idx == 1
        return super().training_step(batch, batch_idx)


class WantsToStop(Line):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.trainer.should_stop = True
        return super().training_step(batch, batch_idx)


class StopsAtEpochStart(Line):
    def on_train_epoch_start(self) -> None:
        self.trainer.should_stop = True


class StopsInValidation(Line):
    def on_validation_start(self) -> None:
        self.trainer.should_stop = not self.trainer.sanity_checking


class Extras(Line):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return {"loss": super().training_step(batch, batch_idx), "number": batch_idx}


class Quasi(Line):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return (self(batch) ** 2).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.LBFGS(self.parameters(), lr=0.01, max_iter=3)


def scheduled(kind: str, interval: str, frequency: int, monitor: str | None = None) -> type[Line]:
    """Return a module with a scheduler: `step` halves the rate, `plateau` does where a metric does not grow."""

    def configure_optimizers(self: Line) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        lr = torch.optim.lr_scheduler
        plateau = kind == "plateau"
        scheduler: Any = lr.ReduceLROnPlateau(optimizer, "max", patience=0, factor=0.5) if plateau else lr.StepLR(optimizer, 1, 0.5)
        entry = {"scheduler": scheduler, "interval": interval, "frequency": frequency}
        return {"optimizer": optimizer, "lr_scheduler": {**entry, "monitor": monitor} if monitor else entry}

    return type("Scheduled", (Line,), {"configure_optimizers": configure_optimizers})


MODULES: dict[str, type[Line]] = {
    "plain": Line, "by_hand": ByHand, "every_second_by_hand": EverySecondByHand, "leaves_at_two": LeavesAtTwo, "skips_one": SkipsOne,
    "stops_in_step": StopsInStep, "wants_to_stop": WantsToStop, "stops_at_epoch_start": StopsAtEpochStart,
    "stops_in_validation": StopsInValidation, "extras": Extras, "lbfgs": Quasi,
    **{f"step_{interval}_{n}": scheduled("step", interval, n) for interval in ("epoch", "step") for n in (1, 2, 3)},
    **{f"plateau_epoch_{n}": scheduled("plateau", "epoch", n, "v") for n in (1, 2)},
    **{f"plateau_step_{n}": scheduled("plateau", "step", n, "loss") for n in (1, 2)},
}  # fmt: skip


class Rows(Logger):
    """Keeps rows."""

    name: Any = "rows"
    version: Any = 0

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Any] = []

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.rows.append([step, {name: rounded(float(value)) for name, value in metrics.items()}])

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        pass


class Watch(Callback):
    """Notes every hook with epoch, step, stage and batch, and what batches returned."""

    def __init__(self, trace: list[str]) -> None:
        self.trace = trace


def _note(trainer: Any, name: str, args: tuple[Any, ...]) -> str:
    stage = trainer.state.stage
    numbers = "".join(f" {value}" for value in args if type(value) is int)
    text = f"{name} e{trainer.current_epoch} s{trainer.global_step} {stage.value if stage else '-'}{numbers}"
    if name == "on_train_batch_end":
        text += f" {plain(args[0])} last={trainer.is_last_batch} lr={rounded(trainer.optimizers[0].param_groups[0]['lr'])}"
    return text


def _watching(name: str) -> Any:
    def hook(self: Any, trainer: Any, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        self.trace.append(_note(trainer, name, args))

    return hook


def _noting(cls: type, name: str) -> Any:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.trace.append(_note(self.trainer, f".{name}", args))
        return getattr(cls, name)(self, *args, **kwargs)

    return method


SKIPPED = ("on_save_checkpoint", "on_load_checkpoint", "on_exception")
for _name in [name for name in dir(Callback) if name.startswith("on_") and name not in SKIPPED]:
    setattr(Watch, _name, _watching(_name))


def rounded(value: float) -> float:
    return round(value, 4)


def plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if isinstance(value, Tensor):
        return [rounded(float(number)) for number in value.detach().flatten()]
    if isinstance(value, float):
        return str(value) if math.isinf(value) else rounded(value)
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return value


def loader(batches: Any) -> Any:
    if isinstance(batches, list):
        return [loader(entry) for entry in batches]
    return DataLoader(Stream(batches["unsized"]) if isinstance(batches, dict) else Numbers(batches))


def run_case(case: dict[str, Any], directory: Path, **more: Any) -> dict[str, Any]:
    """Run a case and return what happened."""
    cls, trace, rows = MODULES[case.get("module", "plain")], list[str](), Rows()
    recording = type(cls.__name__, (cls,), {name: _noting(cls, name) for name in WITHOUT_A_CALLBACK})
    module: Any = recording()
    module.__dict__["trace"] = trace
    arguments: dict[str, Any] = {
        "max_epochs": 1, "accelerator": "cpu", "devices": 1, "enable_checkpointing": False, "enable_progress_bar": False,
        "enable_model_summary": False, "default_root_dir": directory, **case.get("arguments", {}), **more,
    }  # fmt: skip
    trainer = Trainer(logger=rows, callbacks=[Watch(trace)], **arguments)
    fn = case.get("fn", "fit")
    evaluated = loader(case["eval"]) if case.get("eval") is not None else None
    loaders = (loader(case.get("train", 4)), evaluated) if fn == "fit" else (evaluated,)
    quiet = {"verbose": False} if fn in ("validate", "test") else {}
    returned = getattr(trainer, fn)(module, *loaders, **quiet)
    return {
        "trace": trace,
        "rows": rows.rows,
        "returned": plain(returned),
        "weights": plain(module.layer.weight),
        "attributes": {name: plain(getattr(trainer, name)) for name in ATTRIBUTES},
        "metrics": {name: plain(value) for name, value in sorted(trainer.callback_metrics.items())},
        "logged": {name: plain(value) for name, value in sorted(trainer.logged_metrics.items())},
    }
