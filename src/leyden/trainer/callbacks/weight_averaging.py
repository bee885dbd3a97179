"""`WeightAveraging` and `EMAWeightAveraging`: validate, and end, with an average of the weights on the way.

The module trains; the average lies beside it. During validation, and after training, the two have changed places. A
checkpoint's `state_dict` is always the average, `current_model_state` the weights that train, and the callback's state
says which of them the module held.

Until the first update there is no average: validation then sees the weights that train.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from leyden.core.errors import ConfigError, ConfigTypeError, UnsupportedError, closest
from leyden.fabric.checkpoint import read
from leyden.trainer.callbacks.averaged_tensors import (
    AveragedTensors,
    MultiAverage,
    StateHolder,
    equal_average,
    exponential_average,
    load_live,
    one_by_one,
)
from leyden.trainer.core.callback import Callback

_FUNCTIONS = ("avg_fn", "multi_avg_fn")


class WeightAveraging(Callback):
    """Averages the weights, by default after every step and with equal weights (stochastic weight averaging).

    Override `should_update` to choose when. Sharded modules are averaged shard by shard.

    Izmailov et al., *Averaging Weights Leads to Wider Optima and Better Generalization*, 2018, https://arxiv.org/abs/1803.05407.

    Args:
        device: Where the average lies; `None`: beside the weights.
        use_buffers: Whether buffers, such as a batch norm's statistics, are averaged too.
        **kwargs: `avg_fn(average, value, count)`, which returns the new average of one tensor, or
            `multi_avg_fn(averages, values, count)`, which changes lists of them in place.

    Raises:
        ConfigTypeError: Other arguments, or both of these.

    Example:
        ```python
        class FromEpochTen(WeightAveraging):
            def should_update(self, step_idx=None, epoch_idx=None):
                return epoch_idx is not None and epoch_idx >= 10
        ```
    """

    def __init__(
        self,
        device: torch.device | str | int | None = None,
        use_buffers: bool = True,  # noqa: FBT001, FBT002 - the documented signature
        **kwargs: Any,
    ) -> None:
        if unknown := [name for name in kwargs if name not in _FUNCTIONS]:
            hint = closest(unknown[0], _FUNCTIONS)
            raise ConfigTypeError(
                f"{type(self).__name__}({unknown[0]}=…): accepted beside device and use_buffers are avg_fn, multi_avg_fn.{hint}"
            )
        self.device = None if device is None else torch.device(device)
        self.use_buffers = use_buffers
        self._function = _function_of(kwargs.get("avg_fn"), kwargs.get("multi_avg_fn"))
        self._average: AveragedTensors | None = None
        self._module_id = 0
        self._in_module: Literal["", "validation", "end"] = ""  # why the module holds the average now
        self._resume_in = ""
        self._resume_from: tuple[dict[str, Tensor] | None, int] | None = None
        self._latest_update_step = 0

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Return whether the weights go into the average now; override it.

        Args:
            step_idx: The step that was made, from 0; `None` at the end of an epoch.
            epoch_idx: The epoch that ends, from 0; `None` after a step.
        """
        return step_idx is not None

    # -- a run ---------------------------------------------------------------------------------------------------

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage != "fit":
            return
        if self._average is not None and self._in_module == "validation" and self._module_id == id(pl_module):
            self._average.swap(pl_module)  # a fit broke off in validation
        self._average, self._in_module = None, ""
        self._resume_in, self._resume_from = "", None
        self._latest_update_step = trainer.global_step

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Copy the weights, which are final here: moved, sharded, loaded.

        Raises:
            UnsupportedError: The strategy keeps the weights where only its engine finds them.
        """
        strategy = trainer.strategy
        if strategy.state_layout == "foreign":
            raise UnsupportedError(
                f"{type(self).__name__} does not go with {type(strategy).__name__}, whose engine holds the weights. "
                "Use strategy='fsdp' or 'ddp'."
            )
        self._module_id = id(pl_module)
        self._average = AveragedTensors(pl_module, device=self.device, use_buffers=self.use_buffers)
        if self._resume_from is not None:  # then the module holds the average now
            live, self._average.count = self._resume_from
            self._take_live_weights(trainer, pl_module, live)
            self._resume_from = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if self._resume_in == "validation":
            self._exchange(pl_module, "validation")
        self._resume_in = ""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        step = trainer.global_step
        if step > self._latest_update_step:  # else the batch only accumulated
            self._latest_update_step = step
            if self.should_update(step_idx=step - 1):
                self._update(pl_module)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if self.should_update(epoch_idx=trainer.current_epoch):
            self._update(pl_module)

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.state.fn == "fit" and not self._in_module:
            self._exchange(pl_module, "validation")

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if self._in_module == "validation":
            self._exchange(pl_module, "")

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if not self._in_module:
            self._exchange(pl_module, "end")

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        self.on_train_end(trainer, pl_module)  # again for a run resumed behind its `on_train_end`

    def _update(self, pl_module: Any) -> None:
        if self._average is not None:
            self._average.update(pl_module, self._function)

    def _exchange(self, pl_module: Any, why: Literal["", "validation", "end"]) -> None:
        if self._average is not None and self._average.count:
            self._average.swap(pl_module)
            self._in_module = why

    # -- state ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {"latest_update_step": self._latest_update_step, "average_in_module": self._in_module or self._resume_in}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._latest_update_step = int(state_dict["latest_update_step"])
        self._resume_in = state_dict.get("average_in_module", "")

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        if self._average is None:
            return
        held: Any = checkpoint["state_dict"]
        beside: Any = self._average.put_into(held, pl_module) if self._average.count else held
        if trainer.strategy.state_layout == "sharded":  # as modules, each rank writes its parts of both
            held, beside = pl_module, StateHolder(beside)
        live, average = (beside, held) if self._in_module else (held, beside)
        checkpoint["state_dict"] = average
        checkpoint["current_model_state"] = live
        checkpoint["averaging_state"] = {"n_averaged": torch.tensor(self._average.count)}

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        # `state_dict` stays as it is: the Trainer loads it before or after this, and `on_fit_start` takes it for the average.
        if trainer.state.fn == "fit" and "averaging_state" in checkpoint:
            self._resume_from = (checkpoint.get("current_model_state"), int(checkpoint["averaging_state"]["n_averaged"]))

    def _take_live_weights(self, trainer: Any, pl_module: Any, live: dict[str, Tensor] | None) -> None:
        if live is not None:
            load_live(pl_module, trainer.strategy.get_module_state_dict(pl_module), live)
            return
        # In a directory of shards they are apart from the tree: each rank reads its own.
        read(trainer.ckpt_path, {"current_model_state": pl_module}, strategy=trainer.strategy, restore_rng=False)


class EMAWeightAveraging(WeightAveraging):
    """Keeps an exponential moving average of the weights.

    Args:
        device: Where the average lies; `None`: beside the weights.
        use_buffers: Whether buffers are averaged too.
        decay: Which part of the average stays at each update.
        update_every_n_steps: Between updates.
        update_starting_at_step: The first step, from 0, that counts.
        update_starting_at_epoch: If given, there is an update at the end of each epoch from this one on too.
        **kwargs: None are accepted.

    Raises:
        ConfigError: A number out of its range.

    Example:
        >>> ema = EMAWeightAveraging(decay=0.99, update_every_n_steps=4, update_starting_at_step=100)
        >>> [ema.should_update(step_idx=step) for step in (0, 99, 100, 101, 104)]
        [False, False, True, False, True]
    """

    def __init__(
        self,
        device: torch.device | str | int | None = None,
        use_buffers: bool = True,  # noqa: FBT001, FBT002 - the documented signature
        decay: float = 0.999,
        update_every_n_steps: int = 1,
        update_starting_at_step: int | None = None,
        update_starting_at_epoch: int | None = None,
        **kwargs: Any,
    ) -> None:
        if not 0 <= decay <= 1:
            raise ConfigError(f"EMAWeightAveraging(decay={decay!r}): the part of the average that stays should lie between 0 and 1.")
        if update_every_n_steps < 1:
            raise ConfigError(f"EMAWeightAveraging(update_every_n_steps={update_every_n_steps!r}) should be at least 1.")
        super().__init__(device, use_buffers, **{"multi_avg_fn": exponential_average(decay), **kwargs})
        self.decay = decay
        self.update_every_n_steps = update_every_n_steps
        self.update_starting_at_step = update_starting_at_step
        self.update_starting_at_epoch = update_starting_at_epoch

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        if step_idx is not None:
            return step_idx >= (self.update_starting_at_step or 0) and step_idx % self.update_every_n_steps == 0
        first = self.update_starting_at_epoch
        return epoch_idx is not None and first is not None and epoch_idx >= first


def _function_of(avg_fn: Callable[[Tensor, Tensor, Tensor], Tensor] | None, multi_avg_fn: MultiAverage | None) -> MultiAverage:
    if avg_fn is not None and multi_avg_fn is not None:
        raise ConfigTypeError("Both avg_fn and multi_avg_fn are given; pass the one for single tensors or the one for lists.")
    if avg_fn is not None:
        return one_by_one(avg_fn)
    return equal_average if multi_avg_fn is None else multi_avg_fn
