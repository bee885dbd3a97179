"""`SpikeDetection`: ends a run whose loss jumps, and writes down which batches to leave out of the next try."""

import json
import math
from collections import deque
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from leyden.core.errors import ConfigError, StateError
from leyden.core.files import write_atomic


class TrainingSpikeException(StateError):  # noqa: N818 - the documented name
    """The loss of a batch is far worse than the running mean.

    Args:
        batch_idx: The batch.
    """

    code = "training.spike"

    def __init__(self, batch_idx: int, *args: Any) -> None:
        super().__init__(f"Training spike detected in batch {batch_idx}", *args)
        self.batch_idx = batch_idx

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.batch_idx, *self.args[1:]))

    def __str__(self) -> str:
        return str(self.args[0])


class SpikeDetection:
    """A callback that raises when the loss spikes on any rank.

    A spike is a loss that is worse than the one before and away from the running mean by `atol` **and** by `rtol` times
    the mean, or one that is not finite. Then this batch, and the one before it, whose update may have done the damage,
    go into `skip_batches.json`, and every rank raises `TrainingSpikeException`.

    Args:
        mode: Whether less (`"min"`) or more (`"max"`) is better.
        window: Over how many losses the mean runs.
        warmup: From which batch index on spikes are looked for.
        atol: The least absolute distance; `None` asks for none.
        rtol: The least distance relative to the mean; `None` asks for none.
        exclude_batches_path: The JSON file, or its directory; the working directory if absent.
        finite_only: Whether a loss that is not finite is a spike; else such losses are left out of the mean.

    Raises:
        ConfigError: An unknown mode, or a window or warm-up out of range.

    Example:
        ```python
        fabric = Fabric(callbacks=SpikeDetection(rtol=3.0))
        for index, batch in enumerate(loader):
            loss = step(batch)
            fabric.call("on_train_batch_end", fabric=fabric, loss=loss, batch=batch, batch_idx=index)
        ```
    """

    def __init__(
        self,
        mode: Literal["min", "max"] = "min",
        window: int = 10,
        warmup: int = 1,
        atol: float | None = None,
        rtol: float | None = 2.0,
        exclude_batches_path: str | Path | None = None,
        finite_only: bool = True,  # noqa: FBT001, FBT002 - the documented signature
    ) -> None:
        if mode not in ("min", "max"):
            raise ConfigError(f"mode={mode!r} is not accepted. Use 'min' where less is better, as for a loss, or 'max'.")
        if window < 1 or warmup < 0:
            raise ConfigError(f"window={window} should be at least 1 and warmup={warmup} at least 0; they are 10 and 1 if absent.")
        self.mode = mode
        self.window = window
        self.warmup = warmup
        self.atol = atol
        self.rtol = rtol
        self.finite_only = finite_only
        self.exclude_batches_path = _file(exclude_batches_path)
        self.bad_batches: list[int] = []
        self.last_val: float = 0.0
        self._values: deque[float] = deque(maxlen=window)

    @torch.no_grad()
    def on_train_batch_end(self, fabric: Any, loss: Tensor | float, batch: Any, batch_idx: int) -> None:
        """Look at the loss of a batch; every rank must call it.

        Raises:
            TrainingSpikeException: A rank saw a spike.
        """
        value = float(loss)
        is_spike = batch_idx >= self.warmup and self._is_spike(value, self._running_mean(fabric))
        if fabric.strategy.reduce_boolean_decision(is_spike, all=False):
            self._handle_spike(fabric, batch_idx)
        # A finite loss here may be none elsewhere: all ranks take the batch into their means, or none does.
        if self.finite_only or fabric.strategy.reduce_boolean_decision(math.isfinite(value), all=True):
            self._values.append(value)
            self.last_val = value

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed run needs."""
        return {
            "last_val": self.last_val,
            "mode": self.mode,
            "window": self.window,
            "warmup": self.warmup,
            "atol": self.atol,
            "rtol": self.rtol,
            "bad_batches": list(self.bad_batches),
            "bad_batches_path": str(self.exclude_batches_path),
            "values": list(self._values),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.last_val = state_dict["last_val"]
        self.mode = state_dict["mode"]
        self.window = state_dict["window"]
        self.warmup = state_dict["warmup"]
        self.atol = state_dict["atol"]
        self.rtol = state_dict["rtol"]
        self.bad_batches = list(state_dict["bad_batches"])
        self.exclude_batches_path = _file(state_dict["bad_batches_path"])
        self._values = deque(state_dict["values"], maxlen=self.window)

    def _running_mean(self, fabric: Any) -> float:
        mean = torch.tensor(sum(self._values) / max(len(self._values), 1), dtype=torch.float32, device=fabric.strategy.root_device)
        return float(fabric.strategy.all_reduce(mean, reduce_op="mean"))

    def _is_spike(self, value: float, mean: float) -> bool:
        if not math.isfinite(value):
            return self.finite_only
        if not self._values:  # nothing finite was seen yet
            return False
        change = value - self.last_val
        if change <= 0 if self.mode == "min" else change >= 0:
            return False
        distance = abs(value - mean)
        return (self.atol is None or distance >= abs(self.atol)) and (self.rtol is None or distance >= abs(self.rtol * mean))

    def _handle_spike(self, fabric: Any, batch_idx: int) -> None:
        self.bad_batches.extend([batch_idx - 1, batch_idx])
        if fabric.strategy.is_global_zero:
            write_atomic(self.exclude_batches_path, json.dumps(self.bad_batches, indent=4))
        raise TrainingSpikeException(batch_idx)


def _file(path: str | Path | None) -> Path:
    given = Path.cwd() if path is None else Path(path)
    return given if given.suffix == ".json" else given / "skip_batches.json"
