"""The hooks of modules and data modules, all of them no-ops: the documented names, in the order in which they are called."""

from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from leyden.core.errors import ConfigError
from leyden.fabric.loading.transfer import move_data_to_device


class DataHooks:
    """What a module and a data module have in common: preparing data, loaders, moving batches."""

    def prepare_data(self) -> None:
        """Download and prepare; runs once per node (or once, with `prepare_data_per_node=False`), so keep no state here."""

    def setup(self, stage: str) -> None:
        """Build what every process needs; `stage` is fit, validate, test or predict."""

    def teardown(self, stage: str) -> None:
        """Clean up at the end of an entry point."""

    def train_dataloader(self) -> Any:
        """Return the training loader, or a collection of them."""
        raise _missing("train_dataloader", "fit")

    def val_dataloader(self) -> Any:
        """Return the validation loader, or several."""
        raise _missing("val_dataloader", "validate")

    def test_dataloader(self) -> Any:
        """Return the test loader, or several."""
        raise _missing("test_dataloader", "test")

    def predict_dataloader(self) -> Any:
        """Return the prediction loader, or several."""
        raise _missing("predict_dataloader", "predict")

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Change a batch before it moves to the device."""
        return batch

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        """Move a batch to the device; override for a class of your own."""
        return move_data_to_device(batch, device)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Change a batch after it moved."""
        return batch


class ModuleHooks:  # noqa: SIZE003 - one method per documented hook
    """The hooks that only a module has."""

    def configure_model(self) -> None:
        """Build or shard layers in the strategy's context; called before every run, so it must be idempotent."""

    def configure_callbacks(self) -> Any:
        """Return callbacks that this module brings along: one or a list."""
        no_callbacks: list[Any] = []
        return no_callbacks

    def on_fit_start(self) -> None:
        """Called when fit begins."""

    def on_fit_end(self) -> None:
        """Called when fit ends."""

    def on_train_start(self) -> None:
        """Called before the first training epoch."""

    def on_train_end(self) -> None:
        """Called after the last training epoch."""

    def on_train_epoch_start(self) -> None:
        """Called when a training epoch begins."""

    def on_train_epoch_end(self) -> None:
        """Called when a training epoch ends."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        """Called before a training batch; return -1 to skip the rest of the epoch."""

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Called after a training batch."""

    def on_before_zero_grad(self, optimizer: Optimizer) -> None:
        """Called before gradients are zeroed."""

    def on_before_backward(self, loss: Tensor) -> None:
        """Called before the backward pass."""

    def on_after_backward(self) -> None:
        """Called after the backward pass, before the step."""

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Called before an optimizer steps; gradients are unscaled and not yet clipped."""

    def on_validation_model_zero_grad(self) -> None:
        """Free gradients before validation."""
        self.zero_grad()  # pyrefly: ignore[missing-attribute] - of nn.Module

    def on_validation_model_eval(self) -> None:
        """Go to evaluation mode for validation."""
        self.eval()  # pyrefly: ignore[missing-attribute] - of nn.Module

    def on_validation_model_train(self) -> None:
        """Go back to training mode after validation; not overridden, every submodule gets its own mode back."""
        self.train()  # pyrefly: ignore[missing-attribute] - of nn.Module

    def on_test_model_eval(self) -> None:
        """Go to evaluation mode for testing."""
        self.eval()  # pyrefly: ignore[missing-attribute] - of nn.Module

    def on_test_model_train(self) -> None:
        """Go back to training mode after testing."""
        self.train()  # pyrefly: ignore[missing-attribute] - of nn.Module

    def on_predict_model_eval(self) -> None:
        """Go to evaluation mode for prediction."""
        self.eval()  # pyrefly: ignore[missing-attribute] - of nn.Module

    def on_validation_start(self) -> None:
        """Called when validation begins."""

    def on_validation_end(self) -> None:
        """Called when validation ends."""

    def on_validation_epoch_start(self) -> None:
        """Called when a validation epoch begins."""

    def on_validation_epoch_end(self) -> None:
        """Called when a validation epoch ends."""

    def on_validation_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Called before a validation batch."""

    def on_validation_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Called after a validation batch."""

    def on_test_start(self) -> None:
        """Called when testing begins."""

    def on_test_end(self) -> None:
        """Called when testing ends."""

    def on_test_epoch_start(self) -> None:
        """Called when a test epoch begins."""

    def on_test_epoch_end(self) -> None:
        """Called when a test epoch ends."""

    def on_test_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Called before a test batch."""

    def on_test_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Called after a test batch."""

    def on_predict_start(self) -> None:
        """Called when prediction begins."""

    def on_predict_end(self) -> None:
        """Called when prediction ends."""

    def on_predict_epoch_start(self) -> None:
        """Called when a prediction epoch begins."""

    def on_predict_epoch_end(self) -> None:
        """Called when a prediction epoch ends."""

    def on_predict_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Called before a prediction batch."""

    def on_predict_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Called after a prediction batch."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Called before a checkpoint is written; may add to it."""

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Called before a checkpoint's weights are loaded."""


def _missing(hook: str, entry: str) -> Exception:
    return ConfigError(f"`{hook}` must be implemented to be used with `Trainer.{entry}`: return a DataLoader from it, or pass one.")
