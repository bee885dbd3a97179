"""`Callback`: what runs beside the module at every point of a run. Every hook is a no-op; override what you need.

A callback that keeps state between runs returns it from `state_dict`; `state_key` tells two instances of a class apart.
"""

from typing import Any

from torch import Tensor
from torch.optim import Optimizer


class Callback:  # noqa: SIZE003 - one method per documented hook
    """Base of all callbacks.

    Example:
        ```python
        class PrintEpoch(Callback):
            def on_train_epoch_end(self, trainer, pl_module):
                trainer.print("finished epoch", trainer.current_epoch)
        ```
    """

    @property
    def state_key(self) -> str:
        """Under which key this callback's state lies in a checkpoint; include what tells two instances apart."""
        return type(self).__qualname__

    def _generate_state_key(self, **kwargs: Any) -> str:
        """Return a key with arguments in it, in the documented form: `Name{'monitor': 'loss'}`."""
        return f"{type(self).__qualname__}{kwargs!r}"

    # -- around a run --------------------------------------------------------------------------------------------

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Called when an entry point begins; `stage` is fit, validate, test or predict."""

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Called when an entry point ends well."""

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Called when fit begins, after the optimizers exist."""

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Called when fit ends."""

    def on_sanity_check_start(self, trainer: Any, pl_module: Any) -> None:
        """Called before the sanity check."""

    def on_sanity_check_end(self, trainer: Any, pl_module: Any) -> None:
        """Called after the sanity check."""

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Called when an exception ends the run."""

    # -- training ------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Called before the first training epoch."""

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Called after the last training epoch."""

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Called when a training epoch begins."""

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Called when a training epoch ends; those that monitor run after the module."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Called before a training batch."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Called after a training batch; `outputs` is what `training_step` returned."""

    def on_before_zero_grad(self, trainer: Any, pl_module: Any, optimizer: Optimizer) -> None:
        """Called before gradients are zeroed."""

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        """Called before the backward pass."""

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        """Called after the backward pass, before the step."""

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Optimizer) -> None:
        """Called before an optimizer steps."""

    # -- evaluation and prediction -------------------------------------------------------------------------------

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Called when validation begins."""

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Called when validation ends."""

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Called when a validation epoch begins."""

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Called when a validation epoch ends."""

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Called before a validation batch."""

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Called after a validation batch."""

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        """Called when testing begins."""

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Called when testing ends."""

    def on_test_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Called when a test epoch begins."""

    def on_test_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Called when a test epoch ends."""

    def on_test_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Called before a test batch."""

    def on_test_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Called after a test batch."""

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        """Called when prediction begins."""

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        """Called when prediction ends."""

    def on_predict_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Called when a prediction epoch begins."""

    def on_predict_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Called when a prediction epoch ends."""

    def on_predict_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Called before a prediction batch."""

    def on_predict_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Called after a prediction batch."""

    # -- state ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs; an empty dictionary is not stored."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Called before a checkpoint is written; may add to it."""

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Called before a checkpoint's weights are loaded."""


class MonitoringCallback(Callback):
    """A callback that acts on metrics of the epoch that just ended, so its `on_train_epoch_end` comes after the module's."""


class Checkpoint(MonitoringCallback):
    """Base of callbacks that write checkpoints; the trainer moves them behind all others."""
