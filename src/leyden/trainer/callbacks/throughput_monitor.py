"""`ThroughputMonitor`: batches, samples, items and FLOPs per second of each stage, into the loggers.

Fabric's `Throughput` counts; here is only what a Trainer adds: which stage runs, and that validation is not training time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from leyden.core.clock import Clock, SystemClock
from leyden.fabric.rank_zero import rank_zero_warn
from leyden.fabric.throughput import Throughput, get_available_flops
from leyden.trainer.callbacks.row_cadence import row_is_due
from leyden.trainer.core.callback import Callback


class ThroughputMonitor(Callback):
    """Logs `train/device/batches_per_sec` and its kin with each row of training; `validate/…`, `test/…`, `predict/…` likewise.

    Rates are of this rank's batches; with several ranks there are totals without `device/` too, which take the ranks to be
    alike. A module's `flops_per_batch` (see `leyden.fabric.measure_flops`) adds FLOPs, and their share of the chip's peak.

    Args:
        batch_size_fn: Batch → its number of samples.
        length_fn: Batch → its number of items, such as tokens.
        **kwargs: `leyden.fabric.throughput.Throughput`'s, such as `window_size`.

    Example:
        >>> monitor = ThroughputMonitor(batch_size_fn=len, window_size=20)
        >>> monitor.kwargs
        {'window_size': 20}
    """

    def __init__(self, batch_size_fn: Callable[[Any], int], length_fn: Callable[[Any], int] | None = None, **kwargs: Any) -> None:
        self.batch_size_fn = batch_size_fn
        self.length_fn = length_fn
        self.kwargs = kwargs
        self.clock: Clock = SystemClock()
        self._meters: dict[str, _Meter] = {}
        self._saved: dict[str, Any] = {}  # training's totals of a resumed run
        self._rows: dict[str, int] = {}  # batches seen by stage, over all evaluations: the x of their rows
        self._evaluation_began = 0.0
        self._last_step = 0

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if not trainer.loggers:
            rank_zero_warn("ThroughputMonitor has no effect without a logger. Use Trainer(logger=True), or leave the callback out.")
        if stage == "fit" and not hasattr(pl_module, "flops_per_batch"):
            rank_zero_warn(
                f"ThroughputMonitor: {type(pl_module).__name__} has no `flops_per_batch`, so no FLOPs are logged. Set it in setup(), for "
                "instance by measure_flops."
            )
        self._meters.clear()
        self._rows.clear()

    def state_dict(self) -> dict[str, Any]:
        meter = self._meters.get("train")
        training = self._saved if meter is None else meter.totals(self.clock.monotonic())
        return {"train": training, "rows": dict(self._rows)} if training else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._saved, self._rows = dict(state_dict.get("train", {})), dict(state_dict.get("rows", {}))

    # -- training ------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._begin(trainer, "train", **self._saved)
        self._saved = {}
        self._last_step = trainer.global_step

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        stepped = not pl_module.automatic_optimization or trainer.global_step != self._last_step
        self._last_step = trainer.global_step
        is_due = stepped and row_is_due(trainer)
        self._update(trainer, pl_module, "train", batch, is_read=is_due)
        if is_due:
            self._log(trainer, "train", trainer.run.clock.log_step)

    # -- evaluation ----------------------------------------------------------------------------------------------

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self._evaluation_began = self.clock.monotonic()
        if not trainer.sanity_checking:
            self._begin(trainer, "validate")

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if not trainer.sanity_checking:
            self._evaluated(trainer, pl_module, "validate", batch)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if (training := self._meters.get("train")) is not None:
            training.began += self.clock.monotonic() - self._evaluation_began

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        self._begin(trainer, "test")

    def on_test_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluated(trainer, pl_module, "test", batch)

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        self._begin(trainer, "predict")

    def on_predict_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluated(trainer, pl_module, "predict", batch)

    def _evaluated(self, trainer: Any, pl_module: Any, stage: str, batch: Any) -> None:
        every = trainer.log_every_n_steps
        self._rows[stage] = seen = self._rows.get(stage, 0) + 1
        is_due = bool(every) and seen % every == 0
        self._update(trainer, pl_module, stage, batch, is_read=is_due)
        if is_due:
            self._log(trainer, stage, seen)

    # -- counting ------------------------------------------------------------------------------------------------

    def _begin(self, trainer: Any, stage: str, *, seconds: float = 0.0, batches: int = 0, samples: int = 0, lengths: int = 0) -> None:
        device = trainer.strategy.root_device
        accelerator, dtype = trainer.strategy.accelerator, trainer.strategy.precision.compute_dtype
        peak = accelerator.peak_flops(device, dtype) if accelerator is not None else None  # a vendor's plug-in knows its own chips
        arguments: dict[str, Any] = {"available_flops": peak or get_available_flops(device, dtype), "world_size": trainer.world_size}
        throughput = Throughput(**{**arguments, **self.kwargs})
        self._meters[stage] = _Meter(throughput, self.clock.monotonic() - seconds, batches, samples, lengths)

    def _update(self, trainer: Any, pl_module: Any, stage: str, batch: Any, *, is_read: bool) -> None:
        meter = self._meters[stage]
        device = trainer.strategy.root_device
        if is_read and device.type != "cpu":
            # Only where numbers are read: a wait after every batch would cost what is measured. Between, the host runs a few
            # batches ahead of the device at most, which a window of many batches does not see.
            torch.get_device_module(device).synchronize(device)
        meter.batches += 1
        meter.samples += self.batch_size_fn(batch)
        if self.length_fn is not None:
            meter.lengths += self.length_fn(batch)
        meter.throughput.update(
            time=self.clock.monotonic() - meter.began,
            batches=meter.batches,
            samples=meter.samples,
            lengths=None if self.length_fn is None else meter.lengths,
            flops=getattr(pl_module, "flops_per_batch", None),
        )

    def _log(self, trainer: Any, stage: str, step: int) -> None:
        if not trainer.is_global_zero:
            return
        throughput = self._meters[stage].throughput
        metrics = {f"{stage}{throughput.separator}{key}": value for key, value in throughput.compute().items()}
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=step)


@dataclass
class _Meter:
    """The totals of one stage, beside the window of their rates."""

    throughput: Throughput
    began: float  # when it would have begun, had nothing been left out
    batches: int = 0
    samples: int = 0
    lengths: int = 0

    def totals(self, now: float) -> dict[str, Any]:
        return {"seconds": now - self.began, "batches": self.batches, "samples": self.samples, "lengths": self.lengths}
