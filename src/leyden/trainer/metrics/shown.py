"""`Shown`: the three dictionaries that callbacks, bars and users read.

They are brought up to date when they are read, from the slots that were logged since. What is in them are tensors, for
the progress bar floats; a float becomes a tensor only when somebody asks.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from leyden.trainer.metrics.slot import Slot, StageSlots, Value


class Shown:
    """Callback, logged and progress bar metrics. Values of a stage are shown once it is in `stages`."""

    def __init__(self, stages: Mapping[str, StageSlots]) -> None:
        self._stages = stages
        self._callback: dict[str, Any] = {}
        self._progress: dict[str, Any] = {}
        self._logged: dict[str, Any] = {}

    @property
    def callback(self) -> dict[str, Any]:
        """All values, as tensors; of evaluations only those of an epoch."""
        self.refresh()
        return _as_tensors(self._callback)

    @property
    def logged(self) -> dict[str, Any]:
        """What goes to loggers, as tensors: current steps and finished epochs, whether or not their row is due."""
        self.refresh()
        return _as_tensors(self._logged)

    @property
    def progress(self) -> dict[str, Any]:
        """What the progress bar shows, as floats. Reads devices."""
        self.refresh()
        progress = self._progress
        for name, value in progress.items():
            if isinstance(value, Tensor):
                progress[name] = value.item()
        return progress

    def refresh(self) -> None:
        """Take over the step values that were logged since the last time."""
        for stage in self._stages.values():
            for slot in stage.on_step:
                if slot.fresh:
                    self.show_step(stage, slot, slot.step_value())

    def show_step(self, stage: StageSlots, slot: Slot, value: Value) -> None:
        """Show a step's value."""
        slot.fresh = False
        if stage.name == "train":
            self._callback[slot.plain] = self._callback[slot.step_name] = as_double(value) if slot.double else value
        if slot.options.logger:
            self._logged[slot.step_name] = value
        if slot.options.prog_bar:
            self._progress[slot.step_name] = value

    def show_epoch(self, slot: Slot, value: Value) -> None:
        """Show an epoch's value."""
        self._callback[slot.plain] = self._callback[slot.epoch_name] = as_double(value) if slot.double else value
        if slot.options.logger:
            self._logged[slot.epoch_name] = value
        if slot.options.prog_bar:
            self._progress[slot.epoch_name] = value

    def show_logged(self, row: Mapping[str, Any]) -> None:
        """Show what went to loggers."""
        self._logged.update(row)

    def clear(self) -> None:
        """Empty all three. Whoever holds one keeps what it held."""
        self._callback = dict[str, Any]()
        self._progress = dict[str, Any]()
        self._logged = dict[str, Any]()

    def state_dict(self) -> dict[str, Any]:
        """Return all three, as plain values and tensors on the CPU."""
        return {"callback": _on_cpu(self.callback.items()), "progress": dict(self.progress), "logged": _on_cpu(self.logged.items())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._callback, self._progress, self._logged = dict(state["callback"]), dict(state["progress"]), dict(state["logged"])


def _as_tensors(values: dict[str, Any]) -> dict[str, Any]:
    for name, value in values.items():
        if not isinstance(value, Tensor) or value.is_inference():
            values[name] = as_tensor(value)
    return values


def as_tensor(value: Any, dtype: torch.dtype = torch.float32) -> Any:
    """Return a value as a tensor that may be computed with, whatever mode this is called in."""
    with torch.inference_mode(mode=False):
        if isinstance(value, Tensor):
            return value.clone() if value.is_inference() else value
        return torch.tensor(value, dtype=dtype) if isinstance(value, (float, int)) else value


def as_double(value: Value) -> Tensor:
    """Return a value as a tensor of double precision, where that is how it was logged."""
    return as_tensor(value, torch.float64)


def _on_cpu(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value.detach().cpu() if isinstance(value, Tensor) else value for name, value in items}
